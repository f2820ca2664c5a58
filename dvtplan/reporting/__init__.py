"""The HTML report of scores."""
