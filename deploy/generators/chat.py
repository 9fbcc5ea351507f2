"""Generates docs/chat.md from the options of `ponder chat` and the commands inside it."""

from __future__ import annotations

import json
from typing import Any

from generators.settings import typed

from ponder.cli.chat import Options
from ponder.cli.slash import COMMANDS, TYPING

HEAD = """# ponder chat

`ponder chat` talks to a Ponder server in the terminal:

```console
$ ponder chat                                        # a conversation
$ ponder chat --budget 64 "What is 38 + 45 - 17?"    # one answer
$ cat report.txt | ponder chat "Summarise:" > summary.txt
```

The thought is dim, the answer bright, and a meter shows how much of the budget is used. In a pipe
the answer goes to standard output and the thought to standard error. The exit status is 1 if the
only question got no answer, and 2 for a mistake in the arguments.

Written by `deploy/generate.py` out of the command's options.

| option | type | meaning |
|---|---|---|
"""
INSIDE = """
## In a conversation

| typed | does |
|---|---|
"""


def render() -> str:
    """The page. Raises `KeyError` for an option without a description."""
    options = Options.model_json_schema()["properties"]
    rows = [row(name, schema) for name, schema in options.items()]
    rows.sort(key=lambda found: not found.startswith("| `PROMPT`"))
    commands = [f"| `{f'{name} {value}'.strip()}` | {text} |\n"
                for name, (value, text) in COMMANDS.items()]  # fmt: skip
    keys = [f"| `{name}` | {text} |\n" for name, text in TYPING.items()]
    return HEAD + "".join(rows) + INSIDE + "".join(commands + keys)


def row(name: str, schema: dict[str, Any]) -> str:
    kind = typed(schema)
    flag = f"`--{name.replace('_', '-')}`"
    if name == "prompt":
        flag = "`PROMPT`"
    elif kind == "boolean":
        flag += f", `--no-{name}`"
    meaning = schema["description"]
    if schema.get("default") is not None:
        meaning += f" (default: {json.dumps(schema['default']).replace('true', 'yes')})"
    return f"| {flag} | {kind} | {meaning} |\n"
