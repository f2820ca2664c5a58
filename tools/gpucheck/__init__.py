"""What `tools/gpu_check.py` checks on a GPU: each part in a process of its own, its results on disk at once."""
