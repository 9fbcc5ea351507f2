"""Waiting for events: on a busy machine they come late, and late is not wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE = 120.0
"""Seconds until what has not happened counts as never: no test passes by being quick."""


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Poll until `condition`; fails when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "condition not reached in time"
        time.sleep(0.02)
