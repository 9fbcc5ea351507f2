"""Generates the reference of the `ponder` block of replies from the classes that make it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from ponder.protocol.response import (
    InterimReport,
    PonderReport,
    ShadowReport,
    StrategyAnswer,
    StrategyReport,
)
from ponder.thought.budget import Source
from ponder.thought.exits.causes import CAUSES

WORDS = Path(__file__).with_suffix(".md")
PARTS: dict[type[BaseModel], str] = {
    PonderReport: "The block",
    ShadowReport: "`shadow`",
    StrategyReport: "`strategy`",
    StrategyAnswer: "`strategy.answers`",
    InterimReport: "Interim answers",
}
"""The classes, and their headings."""
SOURCES: dict[str, str] = {
    "request": "the request, by a number",
    "effort": "the request, by an effort",
    "auto": "the [calibrated curve](howto/calibrating.md#auto), by which `auto` chose",
    "default": "the server's `--default-budget`, or a model that does not think",
    "ceiling": "the server's `--budget-ceiling`",
    "load": "[load shedding](howto/ending-thoughts.md#by-how-much-there-is-to-do)",
    "pool": "a [pool](howto/ending-thoughts.md#by-what-a-pool-has-left) that had less left",
    "max_completion_tokens": "`max_completion_tokens`, less the close and the answer's reserve",
    "context": "the model's context, less the prompt, the close and the answer's reserve",
    "template": "the chat template, which closed the thought",
    "unread": "a model whose thoughts Ponder [cannot read](models.md)",
}
VALUES = ("end_cause", "budget_source")
"""Fields whose values have tables of their own."""
MORE = {
    InterimReport: "A stream of chats has it in `ponder` of a chunk without choices, where the "
    "request [asks for it](howto/ending-thoughts.md#showing-interim-answers).",
    ShadowReport: "The server [draws](howto/ending-thoughts.md#counting-exits-that-were-wrong) the "
    "conversations.",
    StrategyReport: "[More](howto/strategies.md#what-comes-back).",
}


def typed(schema: dict[str, Any]) -> str:
    """A field's type; names of which a newer server may send others are strings."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(typed(part) for part in schema["anyOf"]))
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return next(
            f"[{heading}](#{heading.strip('`').replace('.', '')})"
            for model, heading in PARTS.items()
            if schema["$ref"].endswith(f"/{model.__name__}")
        )
    if schema["type"] == "array":
        return f"list of {typed(schema['items'])}"
    return str(schema["type"])


def table(model: type[BaseModel]) -> str:
    """The fields of a model. Raises `KeyError` for one without a description."""
    text = "| field | type | is |\n|---|---|---|\n"
    for name, schema in model.model_json_schema()["properties"].items():
        if "const" not in schema:
            more = f" ([values](#{name}))" if name in VALUES else ""
            text += f"| `{name}` | {typed(schema)} | {schema['description']}{more} |\n"
    return text


def words(model: type[BaseModel]) -> str:
    said = " ".join((inspect.getdoc(model) or "").split())
    return f"{said} {MORE.get(model, '')}".rstrip()


def render() -> str:
    """The page. Raises `KeyError` for a source of budgets without words."""
    first, *others = (
        f"\n## {heading}\n\n{words(model)}\n\n{table(model)}" for model, heading in PARTS.items()
    )
    text = WORDS.read_text(encoding="utf-8") + first
    text += "\n## `end_cause`\n\n| cause | the thought … |\n|---|---|\n"
    text += "".join(f"| `{cause}` | {info.means} |\n" for cause, info in CAUSES.items())
    text += "\n## `budget_source`\n\n| source | what set `budget_effective` |\n|---|---|\n"
    text += "".join(f"| `{source}` | {SOURCES[source]} |\n" for source in get_args(Source))
    return text + "".join(others)
