"""Measures a reasoner: asks every problem under every condition, many times.

All conditions of a problem share its seeds, and all budgets that cut a thought share that thought:
a small budget sees the beginning of the thought that a larger budget sees whole. So conditions are
compared on the same problems, and budgets on the same thoughts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

from ponder.tasks.problems import Problem
from ponder.tasks.workers import VerifierPool
from ponder.thought.budget import UNLIMITED
from ponder.thought.curve import free_last

from .protocol import PLAIN, Ask, Hint, Mode, Responder, ResponderError, Subject, Wording

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, slots=True)
class Condition:
    """How a problem is asked.

    `natural` thinks freely; `efficient` has a hint to use minimal tokens; `hinted` has a hint of
    `budget`, without a cut; `truncated` is cut at `budget`, -1 for no cut; `served` has the hint
    and the cut of a server under `budget`.
    """

    mode: Mode
    budget: int | None = None

    @property
    def name(self) -> str:
        if self.budget is None:
            return self.mode
        if self.mode == "hinted":
            return f"hint {self.budget}"
        budget = "free" if self.budget == UNLIMITED else str(self.budget)
        return f"served {budget}" if self.mode == "served" else budget

    @property
    def hint(self) -> Hint:
        if self.mode == "efficient":
            return "minimal"
        if self.mode == "served":
            return "served"
        return self.budget if self.mode == "hinted" else None

    @property
    def cut(self) -> int:
        """Thinking tokens at which the thought is cut; -1 for no cut."""
        if self.mode not in ("truncated", "served") or self.budget is None:
            return UNLIMITED
        return self.budget


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one problem under one condition. Numbers of tokens are None if unreported."""

    problem: Problem
    condition: Condition
    correct: bool
    thinking_tokens: int | None
    end_cause: str
    completion_tokens: int | None = None
    answer_tokens: int | None = None
    probe_tokens: int | None = None


def conditions_of(
    modes: Sequence[Mode], budgets: Sequence[int], subject: Subject
) -> list[Condition]:
    """The conditions to be measured, in the order of `MODES`, without repeats.

    Raises `ResponderError` for a mode that `subject` cannot be measured in.
    """
    found: list[Condition] = []
    for mode in MODES:
        if mode not in modes:
            continue
        if mode in subject.lacks:
            possible = [other for other in MODES if other not in subject.lacks]
            raise ResponderError(
                f"the mode {mode} cannot be measured on {subject.model}: it lacks "
                f"{subject.lacks[mode]}; possible are {', '.join(possible)}"
            )
        if mode in ("truncated", "served"):
            found += [Condition(mode, budget) for budget in sorted(set(budgets), key=free_last)]
        elif mode == "hinted":
            found += [Condition(mode, budget) for budget in sorted({*subject.trained_budgets})]
        else:
            found.append(Condition(mode))
    return found


async def evaluate(
    responder: Responder,
    problems: Sequence[Problem],
    *,
    pool: VerifierPool,
    conditions: Sequence[Condition],
    samples: int,
    seed: int,
    advance: Callable[[int], object],
    wording: Wording = PLAIN,
) -> list[Sample]:
    """Ask every problem `samples` times under every condition, in the chat that `wording` makes.

    Calls `advance` with the number of new answers whenever some have come: in all
    `distinct(conditions)` for each sample of a problem. `pool` judges all answers at the end.
    Raises what the responder and the pool do.
    """
    hints = dict.fromkeys(condition.hint for condition in conditions)
    cuts = {hint: _cuts(conditions, hint) for hint in hints}
    asked = [
        (problem, _ask(problem, sample_seed(seed, problem, number), cuts[hint], hint, wording))
        for hint in hints
        for problem in problems
        for number in range(samples)
    ]
    replies = await responder.answer([ask for _, ask in asked], advance)

    answers = [
        (problem, condition, given[ask.budgets.index(condition.cut)])
        for condition in conditions
        for (problem, ask), given in zip(asked, replies, strict=True)
        if ask.hint == condition.hint
    ]
    verdicts = pool.judge([(problem, reply.text) for problem, _, reply in answers])
    return [
        Sample(
            problem,
            condition,
            verdict.correct,
            reply.thinking_tokens,
            reply.end_cause,
            reply.completion_tokens,
            reply.answer_tokens,
            reply.probe_tokens,
        )
        for (problem, condition, reply), verdict in zip(answers, verdicts, strict=True)
    ]


def distinct(conditions: Sequence[Condition]) -> int:
    """Answers per problem and sample: a natural thought and one cut at -1 are the same."""
    return len({(condition.hint, condition.cut) for condition in conditions})


def sample_seed(seed: int, problem: Problem, number: int) -> int:
    """A seed of 31 bits for one sample of one problem, the same under every condition."""
    digest = hashlib.sha256(f"{seed}/{problem.id}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def _ask(
    problem: Problem, seed: int, budgets: tuple[int, ...], hint: Hint, wording: Wording
) -> Ask:
    return Ask(problem.question, seed, budgets, hint, problem.tools, wording)


def _cuts(conditions: Sequence[Condition], hint: Hint) -> tuple[int, ...]:
    return tuple(sorted({c.cut for c in conditions if c.hint == hint}, key=free_last))
