"""Every system's name for a thinking budget, read into one `Ask`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ponder.protocol.errors import ApiError, quoted
from ponder.protocol.fields import BUDGETS, MOST_TOKENS, BudgetFields
from ponder.thought.budget import EFFORT_TOKENS, UNLIMITED, Ask

_SWITCH = "chat_template_kwargs.enable_thinking"


def read_ask(
    request: BudgetFields, max_completion_tokens: int | None, switch: bool | None = None
) -> Ask:
    """What the request says of its budget; `switch` is the chat template's, where it is set.

    Raises 400 `invalid_budget`, `conflicting_budgets`.
    """
    given = dict(_numbers(request))
    if switch is False:
        given[_SWITCH] = 0
    number = _agreed({name: _number(name, value) for name, value in given.items()})
    word, effort = _effort(request)
    budget = effort if number is None else number
    switches = [*_switched_on(request), *([_SWITCH] if switch else [])]
    if switches and budget == 0:
        raise ApiError(
            400,
            "conflicting_budgets",
            f"{switches[0]} asks for a thought and the budget is 0: leave one of them out",
            param=switches[0],
        )
    ponder = request.ponder
    return Ask(
        budget=budget,
        thinks=bool(switches),
        source="effort" if number is None and effort is not None else "request",
        effort=word,
        max_completion_tokens=max_completion_tokens,
        min_thinking_tokens=ponder.min_thinking_tokens,
        min_answer_tokens=ponder.min_answer_tokens,
        max_answer_tokens=ponder.max_answer_tokens,
        grace_tokens=ponder.grace_tokens,
        spelled=next(iter([*given, *_efforts(request), *switches]), BUDGETS[0]),
    )


def _numbers(request: BudgetFields) -> Iterator[tuple[str, Any]]:
    """Every place where a number was given, with its name."""
    candidates: list[tuple[str, Any]] = [(name, getattr(request, name)) for name in BUDGETS]
    if request.enable_thinking is False:
        candidates.append(("enable_thinking", 0))
    if request.thinking is not None:
        candidates.append(("thinking.budget_tokens", request.thinking.budget_tokens))
        if request.thinking.type == "disabled":
            candidates.append(("thinking.type", 0))
    if request.reasoning is not None:
        candidates.append(("reasoning.max_tokens", request.reasoning.max_tokens))
        if request.reasoning.enabled is False:
            candidates.append(("reasoning.enabled", 0))
    if request.nvext is not None:
        candidates.append(("nvext.max_thinking_tokens", request.nvext.max_thinking_tokens))
    return ((name, value) for name, value in candidates if value is not None)


def _switched_on(request: BudgetFields) -> Iterator[str]:
    """Where a thought was asked for without a number."""
    if request.enable_thinking:
        yield "enable_thinking"
    if request.thinking is not None and request.thinking.type == "enabled":
        yield "thinking.type"
    if request.reasoning is not None and request.reasoning.enabled:
        yield "reasoning.enabled"


def _number(name: str, value: Any) -> int:
    if value == "auto":
        raise ApiError(
            400,
            "invalid_budget",
            f'{name} "auto" needs a calibrated budget curve, which no checkpoint has yet: send a '
            f"number of tokens or a reasoning_effort",
            param=name,
        )
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or not UNLIMITED <= value <= MOST_TOKENS:
        raise ApiError(
            400,
            "invalid_budget",
            f"{name} must be a number of tokens ≥ 0, or -1 for no limit, not {quoted(value)}",
            param=name,
        )
    return int(value)


def _agreed(numbers: dict[str, int]) -> int | None:
    if len(set(numbers.values())) > 1:
        given = ", ".join(f"{name} = {value}" for name, value in numbers.items())
        raise ApiError(
            400,
            "conflicting_budgets",
            f"the budgets disagree ({given}): send one of them",
            param=next(iter(numbers)),
        )
    return next(iter(numbers.values()), None)


def _efforts(request: BudgetFields) -> dict[str, str]:
    efforts = {"reasoning_effort": request.reasoning_effort}
    if request.reasoning is not None:
        efforts["reasoning.effort"] = request.reasoning.effort
    return {name: effort for name, effort in efforts.items() if effort is not None}


def _effort(request: BudgetFields) -> tuple[str | None, int | None]:
    """The effort's word, and its tokens."""
    tokens, word = {}, None
    for name, effort in _efforts(request).items():
        if effort not in EFFORT_TOKENS:
            raise ApiError(
                400,
                "invalid_budget",
                f"{name} must be one of {', '.join(EFFORT_TOKENS)}, not {quoted(effort)}",
                param=name,
            )
        tokens[name], word = EFFORT_TOKENS[effort], effort
    return word, _agreed(tokens)
