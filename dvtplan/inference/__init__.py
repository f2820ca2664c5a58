"""From an input to its masks."""
