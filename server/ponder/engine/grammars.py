"""Refuses grammars with rules that xgrammar would drop, without compiling them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ponder.engine.patterns import fault_of
from ponder.engine.protocol import Grammar, RequestRefusedError, Tool
from ponder.engine.schemas import unenforced


def check(grammar: Grammar) -> None:
    """Raise `RequestRefusedError` for a grammar with a rule that an answer could break."""
    try:
        fault = next(_faults(grammar), None)
    except RecursionError as error:
        raise RequestRefusedError("this cannot be enforced, it is nested too deeply") from error
    if fault is not None:
        raise RequestRefusedError(fault)


def holds(schema: Any) -> bool:
    """Whether a grammar enforces all of a JSON schema."""
    try:
        return unenforced(schema) is None
    except RecursionError:
        return False


def check_strict(tool: Tool) -> None:
    """Raise `RequestRefusedError` for a strict tool whose schema no grammar enforces."""
    try:
        fault = unenforced(dict(tool.parameters)) if tool.strict else None
    except RecursionError:
        fault = "its schema cannot be enforced, it is nested too deeply"
    if fault is not None:
        raise RequestRefusedError(
            f"the parameters of the strict tool {tool.name!r}: {fault}, or send the tool without "
            f"`strict`",
            "tools",
        )


def _faults(grammar: Grammar) -> Iterator[str]:
    if grammar.kind == "regex":
        yield from _pattern(grammar.rule)
    elif grammar.kind in ("json", "structural_tag"):
        try:
            rule = json.loads(grammar.rule)
        except ValueError as error:
            yield f"this cannot be enforced, it is not JSON: {error}"
            return
        yield from _parts({"schema": rule} if grammar.kind == "json" else rule)


def _parts(tag: Any) -> Iterator[str]:
    """The faults of the schemas and patterns in a structural tag."""
    if isinstance(tag, dict):
        if tag.get("type") == "regex" and isinstance(tag.get("pattern"), str):
            yield from _pattern(tag["pattern"])
        for name, value in tag.items():
            if name not in ("json_schema", "schema"):
                yield from _parts(value)
            elif (fault := unenforced(value)) is not None:
                yield fault
    elif isinstance(tag, list):
        for value in tag:
            yield from _parts(value)


def _pattern(pattern: str) -> Iterator[str]:
    if (fault := fault_of(pattern, quoted=False)) is not None:
        yield f"the pattern cannot be enforced because of {fault}: write it without"
