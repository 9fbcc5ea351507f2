"""Every system's name for a thinking budget, read into one `Ask`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ponder.protocol.errors import ApiError, quoted
from ponder.protocol.request import MOST_TOKENS, ChatCompletionRequest
from ponder.thought.budget import EFFORT_TOKENS, UNLIMITED, Ask


def read_ask(request: ChatCompletionRequest) -> Ask:
    """What the request says of its budget. Raises 400 `invalid_budget`, `conflicting_budgets`."""
    numbers = {name: _number(name, value) for name, value in _numbers(request)}
    number = _agreed(numbers)
    effort = _effort(request)
    budget = effort if number is None else number
    switches = list(_switched_on(request))
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
        max_completion_tokens=request.completion_limit,
        min_thinking_tokens=ponder.min_thinking_tokens,
        min_answer_tokens=ponder.min_answer_tokens,
        max_answer_tokens=ponder.max_answer_tokens,
        grace_tokens=ponder.grace_tokens,
    )


def _numbers(request: ChatCompletionRequest) -> Iterator[tuple[str, Any]]:
    """Every place where a number was given, with its name."""
    candidates: list[tuple[str, Any]] = [
        ("thinking_token_budget", request.thinking_token_budget),
        ("budget", request.budget),
        ("thinking_budget", request.thinking_budget),
    ]
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
    if (request.chat_template_kwargs or {}).get("enable_thinking") is False:
        candidates.append(("chat_template_kwargs.enable_thinking", 0))
    return ((name, value) for name, value in candidates if value is not None)


def _switched_on(request: ChatCompletionRequest) -> Iterator[str]:
    """Where a thought was asked for without a number."""
    if request.thinking is not None and request.thinking.type == "enabled":
        yield "thinking.type"
    if request.reasoning is not None and request.reasoning.enabled:
        yield "reasoning.enabled"
    if (request.chat_template_kwargs or {}).get("enable_thinking"):
        yield "chat_template_kwargs.enable_thinking"


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


def _effort(request: ChatCompletionRequest) -> int | None:
    efforts = {"reasoning_effort": request.reasoning_effort}
    if request.reasoning is not None:
        efforts["reasoning.effort"] = request.reasoning.effort
    tokens = {}
    for name, effort in efforts.items():
        if effort is None:
            continue
        if effort not in EFFORT_TOKENS:
            raise ApiError(
                400,
                "invalid_budget",
                f"{name} must be one of {', '.join(EFFORT_TOKENS)}, not {quoted(effort)}",
                param=name,
            )
        tokens[name] = EFFORT_TOKENS[effort]
    return _agreed(tokens)
