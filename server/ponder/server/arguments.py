"""Reads the arguments that a request gives the chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.checkpoint.traits import BUDGET_NAME
from ponder.protocol.errors import ApiError, cut, invalid_request
from ponder.protocol.fields import MOST_TOKENS
from ponder.thought.budget import AUTO, UNLIMITED, Ask


def switched(
    checkpoint: Checkpoint, ask: Ask, given: Mapping[str, Any]
) -> tuple[Ask, Mapping[str, Any]]:
    """Read the template's own switches and budgets as part of what the request asks.

    Returns the ask and the remaining arguments. `thinking` and `thinking_budget` count as a
    switch and a budget unless the template reads them otherwise: clients use these names.
    Raises 400 where an argument and the budget, or two arguments, disagree.
    """
    traits, left = checkpoint.traits, dict(given)
    own = checkpoint.tokenizer.template_variables
    ours: Mapping[str, tuple[Any, ...]] = {} if "thinking" in own else {"thinking": (True, False)}
    switches = {**ours, **traits.switches}
    tells = traits.tells or (None if BUDGET_NAME in own else BUDGET_NAME)
    for name in given:
        field, value = f"template_arguments.{name}", given[name]
        if name in switches:
            if value not in switches[name]:
                said = " or ".join(map(json.dumps, switches[name]))
                raise invalid_request(f"`template_arguments`.{name} must be {said}", field)
            on, off, *_ = switches[name]
            if value not in (on, off):
                continue
            wish = replace(ask, thinks=True) if value == on else replace(ask, budget=0)
        elif name == tells:
            if value == "auto":
                wish = replace(ask, budget=AUTO, source="auto")
            elif type(value) is int and UNLIMITED <= value <= MOST_TOKENS:
                wish = replace(ask, budget=value)
            else:
                said = 'a number of tokens, -1 for no limit, or "auto"'
                raise invalid_request(f"`template_arguments`.{name} must be {said}", field)
        else:
            continue
        del left[name]
        if ask.budget not in (None, wish.budget) or (wish.thinks and wish.budget == 0):
            raise ApiError(
                400,
                "conflicting_budgets",
                f"`template_arguments`.{name} and the rest of the request disagree on its "
                f"thought: leave one of them out",
                field=field,
            )
        silent = ask.budget is None and not ask.thinks
        ask = replace(wish, spelled=field if silent else ask.spelled)
    return ask, left


def settable(checkpoint: Checkpoint, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raise 400 unless these are variables of the template that a request may set.

    Excluded are the switches of thinking, which `switched` reads, and arguments that
    apply_chat_template takes for itself: a template of the client's own would be code.
    """
    free = checkpoint.tokenizer.template_variables | {"enable_thinking"}
    for name in given:
        if name not in free:
            raise invalid_request(
                f"`template_arguments`.{cut(name)} is not for a request to set: this model's "
                f"template takes {', '.join(sorted(free))}; leave it out",
                f"template_arguments.{name}",
            )
    return given
