"""Measurements of `tools/benchmark.py`: one module per section, and shared modules."""
