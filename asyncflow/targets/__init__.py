"""Targets, one backend a module."""
