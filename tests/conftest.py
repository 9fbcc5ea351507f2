"""Shared by every test."""

from hypothesis import settings

# Examples share the machine with real engines: a slow one says nothing.
settings.register_profile("ponder", deadline=None)
settings.load_profile("ponder")
