"""The functions that an answer may call, in any dialect."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

from ponder.engine.protocol import Tool
from ponder.protocol.chat import ToolUse
from ponder.protocol.errors import invalid_request, quoted


def described(tool: Tool, *, empty: bool = False) -> dict[str, Any]:
    """A tool as chat templates take it; `empty` stands for a description that it lacks."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None or empty:
        function["description"] = tool.description or ""
    parameters = dict(tool.parameters)
    if "properties" not in parameters:  # which some templates read unasked
        parameters = {"type": "object", **parameters, "properties": {}}
    return {"type": "function", "function": {**function, "parameters": parameters}}


def tool_use(
    tools: Sequence[Tool],
    choice: Literal["auto", "none", "required", "named"],
    *,
    named: Collection[str] | None = None,
    parallel: bool = True,
) -> ToolUse | None:
    """The tools that may be called, and whether one must be; None without any.

    `named` are the names in the request's choice, if it has any: the model sees no other tools.
    Raises 400 for a name without a tool, a name of two tools, and a required call without tools.
    """
    known: set[str] = set()
    for at, tool in enumerate(tools):
        if tool.name in known:
            raise invalid_request(
                f"two `tools` are called {quoted(tool.name)}: rename one", f"tools.{at}"
            )
        known.add(tool.name)
    for name in named or ():
        if name not in known:
            raise invalid_request(
                f"`tool_choice` names {quoted(name)}, which is none of `tools`: name one of them",
                "tool_choice",
            )
    if not tools:
        if choice in ("required", "named"):
            raise invalid_request(
                "`tool_choice` asks for a call and there are no `tools`: send some", "tool_choice"
            )
        return None
    told = [tool for tool in tools if named is None or tool.name in named]
    return ToolUse(tools=told, choice=choice, parallel=parallel)
