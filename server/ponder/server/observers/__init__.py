"""Observers of requests: each learns when a request begins and how it ended."""
