"""Networks, devices, trained models on disk."""
