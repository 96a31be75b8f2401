"""Measurements. ``python -m benchmarks [NAME ...]`` measures asyncflow and the floor, one JSON line a figure;
``python -m benchmarks.report`` adds other engines and prints one table."""
