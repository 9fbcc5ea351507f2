"""One choice of a completion while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ponder.thought.drive import Driver
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.finish_now import FinishNow
from ponder.thought.thought import Thought


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice that runs: its thought, who lives it, and the button that finishes it."""

    thought: Thought
    driver: Driver
    button: FinishNow

    def finish(self) -> bool:
        """Close the thought now, or when it opens; False where the answer is being written.

        Asked again, it is as the first time.
        """
        if self.thought.thinking and not self.button.asked:
            self.button.asked = True
            self.driver.wake()
        return self.button.asked

    async def live(self) -> NoAnswerProduced | None:
        """Returns why there is no answer, where there is none."""
        try:
            await self.driver.run()
        except NoAnswerProduced as failure:
            return failure
        return None


async def live_all(choices: Sequence[Choice]) -> None:
    """Raises what the engine fails on; where no choice has an answer, why the first has none."""
    if len(choices) == 1:
        await choices[0].driver.run()
        return
    tasks = []
    try:
        async with asyncio.TaskGroup() as group:
            for choice in choices:
                tasks.append(group.create_task(choice.live()))
                await asyncio.sleep(0)  # all at once, they would hold the loop
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    unanswered = [failure for task in tasks if (failure := task.result()) is not None]
    if len(unanswered) == len(choices):
        raise unanswered[0]
