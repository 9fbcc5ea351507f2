"""Turns a request and the limits into one plan for a thought. Pure arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from ponder.thought.errors import (
    BudgetLeavesNoAnswer,
    ContextLengthExceeded,
    InvalidBudget,
    ReasoningUnsupported,
)

UNLIMITED = -1
AUTO = -2
"""Asks for the budget of the calibrated curve, which replaces it before `resolve`."""
Source = Literal[
    "request",
    "effort",
    "auto",
    "default",
    "ceiling",
    "load",
    "pool",
    "max_completion_tokens",
    "context",
    "template",
    "unread",
]

EFFORT_TOKENS = {
    "none": 0,
    "minimal": 128,
    "low": 1024,
    "medium": 2048,
    "high": 4096,
    "xhigh": 8192,
    "max": 16384,
}
"""Tokens per effort level for a model without a calibrated budget curve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the operator and the model allow. Tokens; `default` may be -1 for no limit.

    `pool` is what the request's pools lend each of its thoughts, None where there are none. Under
    load, a share of every budget is left: `asked_share` of a budget that the request names,
    `unasked_share` of any other.
    """

    max_model_len: int
    default: int = UNLIMITED
    ceiling: int | None = None
    pool: int | None = None
    unasked_share: float = 1.0
    asked_share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a request says about its budget, in any dialect. Tokens throughout.

    `budget` is None where the request is silent, -1 for no limit, `AUTO` for the curve's. `thinks`
    asks for a thought without a number: the operator's default holds unless it is 0. Unless the
    request `insists`, a model that cannot do as asked answers without a thought. `effort` is the
    word that `budget` was read from; `spelled` is the client's name of the field, for errors. A
    `formed` answer follows a grammar and cannot be shortened: more is reserved for it. Several
    `thoughts` may share the budget; all other numbers hold for each of them.
    """

    budget: int | None = None
    thinks: bool = False
    insists: bool = True
    source: Literal["request", "effort", "auto"] = "request"
    effort: str | None = None
    max_completion_tokens: int | None = None
    min_thinking_tokens: int = 0
    min_answer_tokens: int | None = None
    max_answer_tokens: int | None = None
    grace_tokens: int | None = None
    spelled: str = field(default="budget", compare=False)
    formed: bool = False
    thoughts: int = 1

    def wants_thought(self, limits: Limits) -> bool:
        """Whether the request asks for a thought or, where it is silent, the operator's default."""
        budget = limits.default if self.budget is None else self.budget
        return self.thinks or (budget != 0 and (self.budget is not None or budget != UNLIMITED))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The life of one thought, decided before it starts. Tokens throughout.

    `allowance` bounds thought + close + answer; `reserve` is the part of it that the thought
    may not touch; `grace` is the last part of the budget, in which a cut waits for a clean end.
    Where several thoughts share the budget, all other numbers hold for each of them.
    """

    requested: int | None
    budget: int
    source: Source
    allowance: int
    reserve: int
    grace: int = 0
    min_thinking: int = 0
    max_answer: int | None = None


def default_reserve(allowance: int, *, formed: bool = False) -> int:
    """Tokens kept for the answer when the request does not say: min(256, ⌈allowance / 4⌉).

    For one that follows a grammar, min(1024, ⌈allowance / 2⌉).
    """
    if formed:
        return min(1024, math.ceil(allowance / 2))
    return min(256, math.ceil(allowance / 4))


def default_grace(budget: int) -> int:
    """Tokens at the end of a budget in which a cut waits for a clean end: min(64, 10 %)."""
    return min(64, budget // 10)


def resolve(
    ask: Ask,
    limits: Limits,
    *,
    prompt_tokens: int,
    close_tokens: int,
    thinks: bool,
    closing_tokens: int = 0,
) -> Plan:
    """Plan a thought: its budget is the smallest of what was asked and what every limit leaves.

    `closing_tokens` follow the prompt where no thought is wanted, to close it; a cut appends
    `close_tokens`.

    Raises `ContextLengthExceeded`, `BudgetLeavesNoAnswer` (an explicit budget and an explicit
    reserve that cannot both be kept), `ReasoningUnsupported` (a positive budget asked of a model
    that does not think) and `InvalidBudget` (a minimum above the maximum). An effort and `auto` are
    no explicit numbers: they are clamped. The reserve is at least one token.
    """
    assert AUTO not in (ask.budget, limits.default)
    allowance, allowance_source = _allowance(ask, limits, prompt_tokens, closing_tokens)
    reserve = _reserve(ask, allowance, allowance_source)
    number = ask.budget if ask.source == "request" and ask.budget != UNLIMITED else None

    if not thinks:
        if ask.insists and (ask.thinks or ask.budget):
            off = " or set it to none" if ask.source == "effort" else " or set it to 0"
            raise ReasoningUnsupported(
                f"this model does not think: leave `budget` out{'' if ask.budget is None else off}",
                "budget",
            )
        return Plan(
            requested=ask.budget,
            budget=0,
            source=ask.source if ask.budget == 0 else "default",
            allowance=allowance,
            reserve=reserve,
            max_answer=ask.max_answer_tokens,
        )
    each = None if number is None else number // ask.thoughts
    said = f"{number}" if ask.thoughts == 1 else f"{number} / {ask.thoughts} thoughts"
    if each and ask.min_answer_tokens is not None and ask.max_completion_tokens is not None:
        needed = each + close_tokens + ask.min_answer_tokens
        if needed > ask.max_completion_tokens:
            raise BudgetLeavesNoAnswer(
                f"`budget` {said} + {close_tokens} closing tokens + "
                f"min_answer_tokens {ask.min_answer_tokens} need {needed} tokens, but "
                f"`max_completion_tokens` is {ask.max_completion_tokens}: raise it to {needed} or "
                f"lower the budget",
                "max_completion_tokens",
            )
    if each is not None and ask.min_thinking_tokens > each:
        raise InvalidBudget(
            f"min_thinking_tokens {ask.min_thinking_tokens} is above the budget {said}: "
            f"lower min_thinking_tokens or raise the budget",
            "min_thinking_tokens",
        )

    left = (allowance - close_tokens - reserve) * ask.thoughts
    budget, source = _effective(ask, limits, left, allowance_source)
    grace = default_grace(budget) if ask.grace_tokens is None else min(ask.grace_tokens, budget)
    return Plan(
        requested=ask.budget,
        budget=budget,
        source=source,
        allowance=allowance,
        reserve=reserve,
        grace=grace,
        min_thinking=min(ask.min_thinking_tokens, budget),
        max_answer=ask.max_answer_tokens,
    )


def no_room(max_model_len: int, tokens: str) -> ContextLengthExceeded:
    """The error for a prompt of `tokens`, which fills the context."""
    return ContextLengthExceeded(
        f"this model's context is {max_model_len} tokens and the prompt has {tokens}, which leaves "
        f"no room for an answer: shorten the `prompt`",
        "prompt",
    )


def _allowance(
    ask: Ask, limits: Limits, prompt_tokens: int, closing_tokens: int
) -> tuple[int, Literal["max_completion_tokens", "context"]]:
    """Tokens for thought + close + answer, and which limit sets them."""
    room = limits.max_model_len - prompt_tokens - closing_tokens
    if room < 1:
        closing = f" and {closing_tokens} more that close its thought" if closing_tokens else ""
        raise no_room(limits.max_model_len, f"{prompt_tokens}{closing}")
    if ask.max_completion_tokens is not None and ask.max_completion_tokens <= room:
        return ask.max_completion_tokens, "max_completion_tokens"
    return room, "context"


def _reserve(ask: Ask, allowance: int, source: str) -> int:
    if ask.min_answer_tokens is None:
        return default_reserve(allowance, formed=ask.formed)
    if ask.min_answer_tokens <= allowance:
        return max(1, ask.min_answer_tokens)
    if source == "context":
        raise ContextLengthExceeded(
            f"min_answer_tokens {ask.min_answer_tokens} does not fit in the {allowance} tokens "
            f"the prompt leaves of the context: shorten the `prompt` or lower min_answer_tokens",
            "min_answer_tokens",
        )
    raise BudgetLeavesNoAnswer(
        f"min_answer_tokens {ask.min_answer_tokens} is above `max_completion_tokens` "
        f"{allowance}: raise `max_completion_tokens` or lower min_answer_tokens",
        "min_answer_tokens",
    )


def _effective(
    ask: Ask, limits: Limits, left: int, left_source: Literal["max_completion_tokens", "context"]
) -> tuple[int, Source]:
    """The smallest candidate; on a tie, the one the user can see first in the request.

    The load then leaves its share of it, and a pool may have less.
    """
    candidates: list[tuple[int, Source]] = []
    if ask.budget is not None:
        if ask.budget != UNLIMITED:
            candidates.append((ask.budget, ask.source))
    elif limits.default != UNLIMITED and not (ask.thinks and limits.default == 0):
        candidates.append((limits.default, "default"))
    if limits.ceiling is not None:
        candidates.append((limits.ceiling, "ceiling"))
    candidates.append((max(0, left), left_source))
    budget, source = min(candidates, key=lambda candidate: candidate[0])
    asked = ask.budget is not None and ask.source != "auto"
    share = limits.asked_share if asked else limits.unasked_share
    candidates = [(budget, source), (math.ceil(budget * share), "load")]
    if limits.pool is not None:
        candidates.append((limits.pool, "pool"))
    return min(candidates, key=lambda candidate: candidate[0])
