"""Measurements: ``python -m benchmarks`` prints one JSON line for each workload."""
