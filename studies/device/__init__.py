"""A study in pieces of some minutes on one GPU: a cold start, then arms from it side by side."""
