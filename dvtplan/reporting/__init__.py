"""The HTML report of scores, and the model archive."""
