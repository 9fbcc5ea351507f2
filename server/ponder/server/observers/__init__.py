"""Whoever looks at requests: each is told when one begins and how it ended."""
