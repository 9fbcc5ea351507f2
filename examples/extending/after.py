"""An exit that closes a thought after some seconds, and the table row of its cause."""

from __future__ import annotations

from typing import cast

from ponder.thought.exits.causes import Cause, CauseInfo
from ponder.thought.exits.exit import Close, GoOn, Progress

# In `ponder.thought.exits.causes`, "time" joins the names of `Cause`, and ROW the table.
TIME = cast(Cause, "time")
ROW = CauseInfo("closed when its time was up", "was closed when its time was up", "server")


class After:
    """Closes a thought so many seconds after it was asked for."""

    def __init__(self, seconds: float = 2.0) -> None:
        self._seconds = seconds
        self._end: float | None = None

    def look(self, at: Progress) -> GoOn | Close:
        if self._end is None:
            self._end = at.now + self._seconds
        return Close(TIME) if at.now >= self._end else GoOn(time=self._end)
