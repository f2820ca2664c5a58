"""nnU-Net 2D and recipes of dvtplan on the same fold, cores and wall time."""
