"""Reads every system's name for a thinking budget into one `Ask`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from ponder.protocol.errors import ApiError, quoted
from ponder.protocol.fields import MOST_TOKENS, whole
from ponder.protocol.spellings import BUDGETS, BudgetFields
from ponder.thought.budget import AUTO, EFFORT_TOKENS, UNLIMITED, Ask

_SWITCH = "chat_template_kwargs.enable_thinking"


def read_ask(
    request: BudgetFields, max_completion_tokens: int | None, switch: bool | None = None
) -> Ask:
    """The request's budget; `switch` is the value of the template's switch, if the request sets it.

    Raises 400 `invalid_budget`, `conflicting_budgets`.
    """
    given = dict(_numbers(request))
    if switch is False:
        given[_SWITCH] = 0
    number = _agreed({name: _number(name, value) for name, value in given.items()})
    word, effort = _effort(request)
    budget = effort if number is None else number
    switches = [name for name, wanted in _switches(request).items() if wanted]
    switches += [_SWITCH] if switch else []
    if switches and budget == 0:
        raise ApiError(
            400,
            "conflicting_budgets",
            f"{switches[0]} asks for a thought and the budget is 0: leave one of them out",
            param=switches[0],
        )
    ponder = request.ponder
    source: Literal["request", "effort", "auto"] = "request"
    if budget == AUTO:
        source = "auto"
    elif number is None and effort is not None:
        source = "effort"
    return Ask(
        budget=budget,
        thinks=bool(switches),
        source=source,
        effort=word,
        max_completion_tokens=max_completion_tokens,
        min_thinking_tokens=ponder.min_thinking_tokens,
        min_answer_tokens=ponder.min_answer_tokens,
        max_answer_tokens=ponder.max_answer_tokens,
        grace_tokens=ponder.grace_tokens,
        thoughts=ponder.strategy.n if ponder.strategy else 1,
        spelled=next(iter([*given, *_efforts(request), *switches]), BUDGETS[0]),
    )


def _numbers(request: BudgetFields) -> Iterator[tuple[str, Any]]:
    """The name and the value of every number that was given."""
    candidates: list[tuple[str, Any]] = [(name, getattr(request, name)) for name in BUDGETS]
    if request.thinking:
        candidates.append(("thinking.budget_tokens", request.thinking.budget_tokens))
    if request.reasoning:
        candidates.append(("reasoning.max_tokens", request.reasoning.max_tokens))
    if request.nvext:
        candidates.append(("nvext.max_thinking_tokens", request.nvext.max_thinking_tokens))
    if request.google:
        config = request.google.thinking_config
        candidates.append(("google.thinking_config.thinking_budget", config.thinking_budget))
    if request.custom_params:
        candidates.append(("custom_params.thinking_budget", request.custom_params.thinking_budget))
    if strategy := request.ponder.strategy:
        candidates.append(("ponder.strategy.token_budget", strategy.token_budget))
    candidates += ((name, 0) for name, wanted in _switches(request).items() if not wanted)
    return ((name, value) for name, value in candidates if value is not None)


def _switches(request: BudgetFields) -> dict[str, bool]:
    """The switches that the request sets: True asks for a thought, False for none."""
    thinking = request.thinking.type if request.thinking else None
    switches = {
        "enable_thinking": request.enable_thinking,
        "think": request.think if isinstance(request.think, bool) else None,
        "thinking.type": {"enabled": True, "disabled": False}.get(thinking or ""),
        "reasoning.enabled": request.reasoning.enabled if request.reasoning else None,
    }
    return {name: wanted for name, wanted in switches.items() if wanted is not None}


def _number(name: str, value: Any) -> int:
    if value == "auto":
        return AUTO
    value = whole(value)
    number = isinstance(value, int) and not isinstance(value, bool)
    if not number or not UNLIMITED <= value <= MOST_TOKENS:
        raise ApiError(
            400,
            "invalid_budget",
            f'{name} must be a number of tokens ≥ 0, -1 for no limit, or "auto", not '
            f"{quoted(value)}",
            param=name,
        )
    return int(value)


def _agreed(numbers: dict[str, int]) -> int | None:
    if len(set(numbers.values())) > 1:
        given = ", ".join(
            f"{name} = {'auto' if value == AUTO else value}" for name, value in numbers.items()
        )
        raise ApiError(
            400,
            "conflicting_budgets",
            f"the budgets disagree ({given}): send one of them",
            param=next(iter(numbers)),
        )
    return next(iter(numbers.values()), None)


def _efforts(request: BudgetFields) -> dict[str, str]:
    config = request.google.thinking_config if request.google else None
    efforts = {
        "reasoning_effort": request.reasoning_effort,
        "reasoning.effort": request.reasoning.effort if request.reasoning else None,
        "think": None if isinstance(request.think, bool) else request.think,
        "google.thinking_config.thinking_level": config.thinking_level if config else None,
    }
    return {name: effort for name, effort in efforts.items() if effort is not None}


def _effort(request: BudgetFields) -> tuple[str | None, int | None]:
    """The effort's word and its tokens by default; a model's curve may have other numbers."""
    tokens, word = {}, None
    known = {**EFFORT_TOKENS, "auto": AUTO}
    for name, effort in _efforts(request).items():
        if effort not in known:
            raise ApiError(
                400,
                "invalid_budget",
                f"{name} must be one of {', '.join(known)}, not {quoted(effort)}",
                param=name,
            )
        tokens[name], word = known[effort], effort
    return word, _agreed(tokens)
