"""What `tools/benchmark.py` measures: a room per question, and three that they share."""
