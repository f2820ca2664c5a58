"""Checks of `tools/gpu_check.py`: each part runs in its own process, and each result is saved at once."""
