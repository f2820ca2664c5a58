"""From masks to scores and tables."""
