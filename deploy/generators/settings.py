"""Generates the reference of all settings from the settings class."""

from __future__ import annotations

import json
from typing import Any

from ponder.server.settings import BUNDLED_MODEL, Settings

HEAD = """# Settings

The settings of `ponder serve`, as flags or in the environment; a flag wins. The server checks the
values at its start, and an unknown flag is an error. For a list, repeat the flag; in the
environment write JSON (`'["one", "two"]'`), or commas between API keys. A variable without a value
is not set, but an empty `PONDER_API_KEY` is refused: it would let everybody in. A variable whose
name nearly is a setting's gets a warning at the start.

Written by `deploy/generate.py` out of the settings class.

| flag | environment | type | default | meaning |
|---|---|---|---|---|
"""
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
FLAGS = {"model": "`MODEL`", "engine_options": "what follows `--`"}


def typed(schema: dict[str, Any]) -> str:
    """A setting's type: `integer ≥ 0`, `list of secrets`. None is left to the default's column."""
    if "anyOf" in schema:
        return " or ".join(typed(part) for part in schema["anyOf"] if part["type"] != "null")
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema["type"] == "array":
        return f"list of {typed(schema['items'])}s"
    if "enum" in schema:
        return " or ".join(f"`{choice}`" for choice in schema["enum"])
    name = "secret" if schema.get("format") == "password" else schema["type"]
    limits = [f"{sign} {schema[bound]:g}" for bound, sign in BOUNDS.items() if bound in schema]
    return " ".join([name, ", ".join(limits)]).rstrip()


def default(schema: dict[str, Any]) -> str:
    if "default" not in schema:
        return "computed"
    value = schema["default"]
    if value is None or value == []:
        return "none"
    if value == BUNDLED_MODEL:
        return "the bundled checkpoint"
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def row(name: str, schema: dict[str, Any]) -> str:
    flag = FLAGS.get(name) or f"`--{name.replace('_', '-')}`"
    environment = f"`PONDER_{name.upper()}`"
    cells = [flag, environment, typed(schema), default(schema), schema["description"]]
    return f"| {' | '.join(cells)} |\n"


def render() -> str:
    """The page. Raises `KeyError` for a setting without a description."""
    properties = Settings.model_json_schema()["properties"]
    return HEAD + "".join(row(name, schema) for name, schema in properties.items())
