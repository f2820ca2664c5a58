"""Checks of the phantom and of the knee finder."""
