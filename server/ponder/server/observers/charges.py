"""Charges every request's cost to its arm, in the ledger.

Requests that fail or whose client leaves count too: an arm that loses more of them must not look
cheap.
"""

from __future__ import annotations

import time
from functools import partial

from ponder.experiment.ledger import Ledger
from ponder.experiment.store import Entry
from ponder.server.completion import Completion
from ponder.server.observers.protocol import Observer, Watch
from ponder.thought.errors import NoAnswerProduced


class Charges(Observer):
    """Records tokens and seconds of every request, and how answered requests ended."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def began(self, completion: Completion) -> Watch:
        return Watch(partial(self._ended, completion))

    def _ended(self, completion: Completion, error: BaseException | None) -> None:
        for entry in _charges(completion, isinstance(error, NoAnswerProduced)):
            self._ledger.record(entry)


def _charges(completion: Completion, empty: bool) -> list[Entry]:
    """The cost of a completion, for each arm that it is in; `empty`: it has no answer."""
    assignment, *others = completion.assignments
    measures = {
        "tokens": (1.0, float(completion.spent_tokens)),
        "seconds": (1.0, time.perf_counter() - completion.started_at),
    }
    outcomes = completion.outcomes
    if empty:
        measures["empty"] = (1.0, 1.0)
    response = None
    if outcomes:
        forced = sum(outcome.answer_forced for outcome in outcomes)
        measures |= {"empty": (1.0, 0.0), "forced": (float(len(outcomes)), float(forced))}
        response = completion.id
    rated = Entry(assignment, measures, response)
    return [rated, *(Entry(other, measures) for other in others)]
