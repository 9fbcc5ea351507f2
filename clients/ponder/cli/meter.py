"""The meter of a budget: an estimate while the thought streams, the exact numbers at its end."""

from __future__ import annotations

from ponder.client.request import Budget
from ponder.protocol.response import Capabilities, PonderReport
from ponder.thought.exits.causes import CAUSES, CauseInfo

UNLIMITED = -1
FIRST_CHARACTERS_PER_TOKEN = 4.0

_CUT_AT = {
    "request": "the budget",
    "effort": "the effort's budget",
    "auto": "the budget that auto chose",
    "default": "the server's default budget",
    "ceiling": "the server's ceiling",
    "load": "what the load leaves",
    "pool": "what its pool lent",
    "max_completion_tokens": "max_completion_tokens",
    "context": "the end of the context",
}


class Meter:
    """Estimates how much of its budget a running thought has used.

    A stream has text, but no token counts, so `used` is an estimate until the report comes. Every
    report improves the next estimate.
    """

    def __init__(self) -> None:
        self._characters_per_token = FIRST_CHARACTERS_PER_TOKEN
        self._characters = 0
        self._deltas = 0
        self.budget: int | None = None
        self.unlimited = ""

    def start(self, budget: int | None, unlimited: str = "no limit") -> None:
        """Begin a thought with a `budget` in tokens; `unlimited` describes a budget of None."""
        self.budget, self.unlimited = budget, unlimited
        self._characters = self._deltas = 0

    def add(self, thought: str) -> None:
        self._characters += len(thought)
        self._deltas += 1

    @property
    def used(self) -> int:
        """The estimated tokens: at least one for each delta, and never more than the budget."""
        guess = max(self._deltas, round(self._characters / self._characters_per_token))
        return guess if self.budget is None else min(guess, self.budget)

    def finish(self, report: PonderReport) -> None:
        if report.thinking_tokens and self._characters:
            self._characters_per_token = self._characters / report.thinking_tokens


def known_budget(asked: Budget | None, model: Capabilities) -> int | None:
    """The budget that is known before the answer; None for no limit, and for auto."""
    if not model.thinks:
        return 0
    budget = model.default_budget if asked is None else UNLIMITED if asked == "auto" else asked
    limits = [budget, UNLIMITED if model.budget_ceiling is None else model.budget_ceiling]
    return min((limit for limit in limits if limit != UNLIMITED), default=None)


def summary(report: PonderReport, finish_reason: str | None) -> str:
    """One line: the thought's tokens and budget, why it ended, the tokens of probes and answer."""
    answer = f"answer {_tokens(report.answer_tokens)}"
    if finish_reason == "length":
        answer += ", cut at its limit"
    if report.deadline_met is False:
        answer += ", after its deadline"
    probes = [f"probes {_tokens(report.probe_tokens)}"] if report.probe_tokens else []
    return " · ".join([*_thought(report), *probes, answer])


def _thought(report: PonderReport) -> list[str]:
    info = CAUSES.get(report.end_cause, CauseInfo(f"ended by {report.end_cause}", "", "server"))
    used, budget = report.thinking_tokens, report.budget_effective
    if report.end_cause == "unread":
        return [f"thought {info.brief}"]
    if info.ended_by is None or budget == 0:
        return ["no thought"]
    if report.end_cause in ("budget", "length"):
        return [f"thought {used}/{_tokens(budget)}", f"cut at {_cut_at(report)}"]
    if report.budget_source in ("context", "max_completion_tokens"):
        return [f"thought {_tokens(used)}", info.brief]
    left = budget - used if info.ended_by == "model" else 0
    return [
        f"thought {used}/{_tokens(budget)}",
        info.brief + (f", {left} to spare" if left else ""),
    ]


def _cut_at(report: PonderReport) -> str:
    return _CUT_AT.get(report.budget_source, report.budget_source)


def _tokens(count: int) -> str:
    return f"{count} token" if count == 1 else f"{count} tokens"
