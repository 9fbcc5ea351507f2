"""Processes that judge a model's output, and limits on what they may do."""
