"""The reference of fields that change nothing, out of the classes that check them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from ponder.protocol.messages import Said
from ponder.protocol.noise import SYSTEMS

HEAD = """# Fields that change nothing

A request is refused where a field of it would change the answer and Ponder cannot honour it. What
changes nothing is taken: the fields below, whose other values are an error that says what to do.
They are those of `/v1/chat/completions` and `/v1/completions`; null is the same as leaving a field
out. Of `metadata` an entry `task` may choose [a budget curve](howto/calibrating.md); the rest of it
changes nothing.

A field that nobody knows is an error, too. Where it looks like a budget or a limit, the error
names the right one.

Written by `deploy/generate.py` out of the classes that check a request.
"""
MESSAGES = """
## Messages and their parts

A key that is not known there is one that a client keeps for itself, such as
`provider_specific_fields`, `cache_control` or `id`: it is dropped. These would change the answer,
and so are refused where they say anything:
{loud}.

The thought of an earlier assistant turn is read from `reasoning`, `reasoning_content`, `thinking`,
parts of type `thinking` or `reasoning`, `thinking_blocks` or `reasoning_details`, the first that is
there.
"""

WORDS = {
    "null": "nothing: any value is an error",
    "string": "a text",
    "boolean": "true or false",
    "object": "names and texts",
}


def render() -> str:
    """The page."""
    tables = "".join(table(system) for system in SYSTEMS)
    loud = ", ".join(f"`{name}`" for name in (*Said.model_fields, "audio"))
    return HEAD + tables + MESSAGES.format(loud=loud)


def table(system: type[BaseModel]) -> str:
    fields = system.model_json_schema()["properties"]
    rows = "".join(f"| `{name}` | {taken(schema)} |\n" for name, schema in fields.items())
    return f"\n## {system.__doc__}\n\n| field | taken |\n|---|---|\n{rows}"


def taken(schema: dict[str, Any]) -> str:
    """The values that a field takes beside null, in words."""
    kind = schema.get("anyOf", [schema])[0]
    if kind.keys() <= {"title", "default"}:
        return "anything"
    if "$ref" in kind:
        return "the fields below"
    if "const" in kind or "enum" in kind:
        values = kind.get("enum", [kind.get("const")])
    elif "maximum" in kind:
        values = [kind["maximum"]]
    elif kind.get("maxItems") == 0 or kind.get("maxProperties") == 0:
        values = [[] if kind["type"] == "array" else {}]
    elif kind["type"] == "array":
        values = [[kind["items"]["const"]]]
    else:
        return WORDS[kind["type"]]
    return ", ".join(f"`{json.dumps(value)}`" for value in values)
