"""Fingerprint, plan, recipe, preprocessing."""
