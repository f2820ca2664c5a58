"""Voxels in patient space, and volumes on disk."""
