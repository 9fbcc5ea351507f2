"""What stops a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """A server failed, or did not do what is being measured."""
