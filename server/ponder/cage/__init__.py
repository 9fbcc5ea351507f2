"""Processes that judge what a model wrote, and what such a process may do."""
