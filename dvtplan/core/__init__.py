"""Errors, files, JSON records, console, processes. Nothing here knows the domain."""
