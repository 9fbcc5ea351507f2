"""`ponder serve`."""

from __future__ import annotations

from ponder.server.settings import Settings as Options

__all__ = ["Options", "run"]


def run(options: Options) -> int:
    """Serve until stopped; returns the exit status."""
    from ponder.server import process

    return process.run(options)
