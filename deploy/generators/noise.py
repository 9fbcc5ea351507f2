"""Generates the reference of fields that change nothing from the classes that check them."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from ponder.protocol.messages import Said
from ponder.protocol.noise import ENDPOINTS, SYSTEMS

HEAD = """# Fields that change nothing

Ponder refuses a request with a field that would change the answer and that it cannot honour. It
ignores the fields below with the values listed, because they change nothing; any other value is an
error that says what to do. The tables down to Ollama's `options` hold for `/v1/chat/completions`,
`/v1/completions` and `/v1/responses`; of these, only vLLM's holds for `/v1/messages`. The last two
tables each hold for the endpoint that they name. A value that a request to vLLM has by default is
never an error. Null is the same as leaving a field out. In `metadata`, an entry `task` may choose
[a budget curve](howto/calibrating.md); the rest changes nothing.

An unknown field is an error, too. If it looks like a budget, a limit or a format, the error names
the right field.

Written by `deploy/generate.py` out of the classes that check a request.
"""
MESSAGES = """
## Messages and their parts

Ponder drops unknown keys of messages, which clients keep for themselves, such as
`provider_specific_fields`, `cache_control` or `id`. It refuses these keys if they have a value,
because they would change the answer:
{loud}.

The thought of an earlier assistant turn is the first one present of `reasoning`,
`reasoning_content`, `thinking`, parts of type `thinking` or `reasoning`, `thinking_blocks` and
`reasoning_details`.
"""

WORDS = {
    "null": "nothing: any value is an error",
    "string": "a text",
    "boolean": "true or false",
    "object": "names and texts",
    "integer": "a number from 1",
}


def render() -> str:
    """The page."""
    tables = "".join(table(system) for system in (*SYSTEMS, *ENDPOINTS))
    loud = ", ".join(f"`{name}`" for name in (*Said.model_fields, "audio"))
    return HEAD + tables + MESSAGES.format(loud=loud)


def table(system: type[BaseModel]) -> str:
    fields = system.model_json_schema()["properties"]
    rows = "".join(f"| `{name}` | {taken(schema)} |\n" for name, schema in fields.items())
    return f"\n## {system.__doc__}\n\n| field | ignored values |\n|---|---|\n{rows}"


def taken(schema: dict[str, Any]) -> str:
    """The values that Ponder ignores in a field, beside null, in words."""
    kind = schema.get("anyOf", [schema])[0]
    if kind.keys() <= {"title", "default"}:
        return "anything"
    if "$ref" in kind:
        return "the fields below"
    if "const" in kind or "enum" in kind:
        values = kind.get("enum", [kind.get("const")])
    elif "maximum" in kind and kind["maximum"] == kind["minimum"]:
        values = [kind["maximum"]]
    elif kind.get("maxItems") == 0 or kind.get("maxProperties") == 0:
        values = [[] if kind["type"] == "array" else {}]
    elif kind.get("additionalProperties") is True:
        return "names and values"
    elif kind["type"] == "array":
        values = [[kind["items"]["const"]]]
    else:
        return WORDS[kind["type"]]
    return ", ".join(f"`{json.dumps(value)}`" for value in values)
