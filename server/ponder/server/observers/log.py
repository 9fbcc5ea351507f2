"""Adds a request's thoughts to its line in the log."""

from __future__ import annotations

import asyncio
from functools import partial

from ponder.server import logs
from ponder.server.completion import Completion
from ponder.server.observers.protocol import Observer, Watch


class Notes(Observer):
    """Adds counts, causes and times to the request's line; never prompts or answers."""

    def began(self, completion: Completion) -> Watch:
        return Watch(partial(_note, completion))


def _note(completion: Completion, error: BaseException | None) -> None:
    outcomes = completion.outcomes
    first = [outcome.first_token_at for outcome in outcomes if outcome.first_token_at]
    logs.note(
        arm=completion.assignment.arm,
        budget=completion.longest_plan.budget,
        end_causes=[outcome.end_cause for outcome in outcomes],
        prompt_tokens=completion.prompt_tokens,
        thinking_tokens=sum(outcome.thinking_tokens for outcome in outcomes),
        probe_tokens=sum(outcome.probe_tokens for outcome in outcomes),
        completion_tokens=completion.spent_tokens,
        first_token_seconds=round(min(first) - completion.started_at, 6) if first else None,
        error=error and type(error).__name__,
    )
    if isinstance(error, asyncio.CancelledError):
        logs.note(code="client_disconnected")
