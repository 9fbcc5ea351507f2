"""Closes a thought when somebody outside asks for it.

A cut in the middle costs an answer little, and asking the model to hurry costs more (arXiv
2510.11713): the exit closes the thought and prompts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ponder.thought.exits.exit import Close, GoOn, Progress


@dataclass(slots=True)
class FinishNow:
    """Once `asked`, closes the thought, and every block that the answer opens after it.

    A caller that sets `asked` also wakes the thought (`ponder.thought.drive.Driver.wake`). A
    thought that is not open yet is closed when it opens, before its first token. Forks share the
    exit.
    """

    asked: bool = False

    def look(self, at: Progress) -> GoOn | Close:
        return Close("finish_now") if self.asked else GoOn()

    def __deepcopy__(self, _memo: object) -> Self:
        return self
