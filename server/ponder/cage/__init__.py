"""Processes that judge a model's output, limits on what they may do, and how processes end."""
