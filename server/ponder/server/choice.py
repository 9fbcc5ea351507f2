"""One choice of a completion while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ponder.thought.drive import Driver
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.finish_now import FinishNow
from ponder.thought.outcome import Outcome
from ponder.thought.thought import Thought


class Choice(Protocol):
    """A choice that runs: one thought, or several that give one answer.

    Token counts are those until now, also after a failure or after the client left.
    """

    @property
    def outcome(self) -> Outcome: ...
    @property
    def spent_tokens(self) -> int: ...
    @property
    def thinking_tokens(self) -> int: ...
    @property
    def thinking_ids(self) -> Sequence[int]:
        """The tokens of the thought that gave the answer."""
        ...

    def finish(self) -> bool:
        """Close the thought now, or when it opens; False where the answer is being written.

        A second call returns the same.
        """
        ...

    async def live(self) -> NoAnswerProduced | None:
        """Run to the end; returns why there is no answer, or None. Raises the engine's failure."""
        ...


@dataclass(frozen=True, slots=True)
class Single:
    """A choice of one thought, its driver, and the button that finishes it."""

    thought: Thought
    driver: Driver
    button: FinishNow

    @property
    def outcome(self) -> Outcome:
        return self.thought.outcome

    @property
    def spent_tokens(self) -> int:
        return self.thought.spent_tokens

    @property
    def thinking_tokens(self) -> int:
        return self.thought.outcome.thinking_tokens

    @property
    def thinking_ids(self) -> Sequence[int]:
        return self.thought.thinking_ids

    def finish(self) -> bool:
        if self.thought.thinking and not self.button.asked:
            self.button.asked = True
            self.driver.wake()
        return self.button.asked

    async def live(self) -> NoAnswerProduced | None:
        try:
            await self.driver.run()
        except NoAnswerProduced as failure:
            return failure
        return None


@dataclass(frozen=True, slots=True)
class Scored(Single):
    """A choice that only scores its prompt: an engine samples a token with it, which nobody sees.

    That token costs no step of its own, and is not counted.
    """

    @property
    def outcome(self) -> Outcome:
        return replace(self.thought.outcome, finish_reason="length", answer_tokens=0)

    @property
    def spent_tokens(self) -> int:
        return 0


def unheard(_event: object) -> None:
    """Take an event that nobody is told of."""


async def live_all(choices: Sequence[Choice]) -> None:
    """Run all choices to their ends.

    Raises the engine's failure, or the first choice's error if none has an answer.
    """
    if len(choices) == 1:
        failures = [await choices[0].live()]
    else:
        tasks = []
        try:
            async with asyncio.TaskGroup() as group:
                for choice in choices:
                    tasks.append(group.create_task(choice.live()))
                    await asyncio.sleep(0)  # starting all at once would hold the loop
        except BaseExceptionGroup as raised:
            raise raised.exceptions[0] from raised
        failures = [task.result() for task in tasks]
    unanswered = [failure for failure in failures if failure is not None]
    if len(unanswered) == len(choices):
        raise unanswered[0]
