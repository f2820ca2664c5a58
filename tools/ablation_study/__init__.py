"""The recipe `modern` with one thing changed at a time, at equal time."""
