"""Damaged scans: whether every one of them is read right, or refused in one line."""
