"""Guesses what an unknown field was meant to be, and names the right field as the remedy."""

from __future__ import annotations

import re

_BUDGET = re.compile(r"budget|think|thought|reason|effort", re.IGNORECASE)
_LIMIT = re.compile(
    r"(max|num|limit|n_).*(token|new|output|answer|len|predict|completion)", re.IGNORECASE
)
_FORMAT = re.compile(
    r"(response_?)?format|structured_?outputs?|output_(format|config|schema)|text|grammar|"
    r"guided_\w+|(json|response)_?schema",
    re.IGNORECASE,
)
_NESTED = {"extra_body", "extra_query", "extra_headers", "parameters", "generation_config"}


def remedy(name: str) -> str:
    """What to do about an unknown field of this name.

    >>> remedy("max_new_tokens")
    'the limit of an answer is `max_completion_tokens`: send that'
    >>> remedy("thinkingBudget")
    'a budget is called thinking_token_budget: send that'
    >>> remedy("responseFormat")
    'the format of an answer is `format`: send that'
    >>> remedy("colour")
    'leave it out'
    """
    if name in _NESTED:
        return "its entries belong at the top of the body: send them there"
    if _BUDGET.search(name):
        return "a budget is called thinking_token_budget: send that"
    if _LIMIT.match(name):
        return "the limit of an answer is `max_completion_tokens`: send that"
    if _FORMAT.fullmatch(name):
        return "the format of an answer is `format`: send that"
    return "leave it out"
