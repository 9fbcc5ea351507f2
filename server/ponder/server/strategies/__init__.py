"""How several thoughts on one budget come to one answer: one strategy, one file."""
