"""What the program knows about legs: knees, levels, regions."""
