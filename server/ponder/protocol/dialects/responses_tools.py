"""The tools of `/v1/responses`, which become functions that the model can call."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, StrictBool, model_validator

from ponder.engine.protocol import Tool
from ponder.protocol.chat import ToolUse
from ponder.protocol.dialects.responses_items import Lenient, flat
from ponder.protocol.errors import invalid_request
from ponder.protocol.fields import Name, or_say
from ponder.protocol.functions import MOST_TOOLS
from ponder.protocol.tools import tool_use

CALLED = ("function", "custom", "namespace")
"""The types of tools that a model can call; only OpenAI runs tools of other types."""

logger = logging.getLogger(__name__)

_HOSTED = {
    *("apply_patch", "code_interpreter", "computer", "computer_use_preview", "file_search"),
    *("image_generation", "local_shell", "mcp", "shell", "tool_search", "web_search"),
}
_CHOICE = or_say(
    "must be auto, none or required, or of type function, custom or allowed_tools; this server "
    "runs no tools itself"
)


class ToolSpec(Lenient):
    """A function, a custom tool, or a namespace of these."""

    model_config = ConfigDict(extra="allow")  # the response repeats all fields

    type: Name
    name: Name | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: StrictBool | None = None
    format: dict[str, Any] | None = None
    tools: Annotated[list[ToolSpec], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.type in CALLED:
            self.check_has("name")
        if self.type == "namespace":
            self.check_has("tools")
            if any(tool.type == "namespace" for tool in self.tools or ()):
                raise ValueError("a namespace holds no other: send its tools beside it")
        return self


Tools = Annotated[list[ToolSpec], Field(max_length=MOST_TOOLS, fail_fast=True)]


class ToolName(Lenient):
    type: Name
    name: Name | None = None
    namespace: Name | None = None

    @property
    def called(self) -> str | None:
        return None if self.name is None else flat(self.name, self.namespace)


class ChosenTool(ToolName):
    """The choice; the words `auto`, `none` and `required` stand for objects of that type."""

    type: Annotated[
        Literal["auto", "none", "required", "function", "custom", "allowed_tools"], _CHOICE
    ]
    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[ToolName], Field(max_length=MOST_TOOLS, fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.type in ("function", "custom"):
            self.check_has("name")
        if self.type == "allowed_tools":
            self.check_has("tools")
        return self

    @property
    def said(self) -> Any:
        """The choice in the form of the request."""
        alone = self.name is None and self.tools is None
        return self.type if alone else self.model_dump(exclude_unset=True)


def _choice(given: Any) -> Any:
    return {"type": given} if isinstance(given, str) else given


Choice = Annotated[
    ChosenTool,
    BeforeValidator(
        _choice, json_schema_input_type=Literal["auto", "none", "required"] | ChosenTool
    ),
]


@dataclass(frozen=True, slots=True)
class Callee:
    """The client's name and kind of a function, which may differ from the model's.

    A `custom` tool takes a text; the model calls a function whose only argument is that text.
    """

    name: str
    namespace: str | None = None
    custom: bool = False


def read_tools(
    specs: Sequence[ToolSpec], choice: ChosenTool | None, parallel: bool
) -> tuple[ToolUse | None, Mapping[str, Callee]]:
    """The tools that may be called, and the client's names by the model's names. Raises 400.

    Tools that only OpenAI runs are dropped: clients send them even if they are not needed.
    """
    known = list(_spread(specs))
    if dropped := {spec.type for spec, _ in known} - {"function", "custom"}:
        logger.info("dropped tools that this server cannot run: %s", _loggable(dropped))
    tools, callees = [], {}
    for spec, namespace in known:
        if spec.type in ("function", "custom"):
            custom, name = spec.type == "custom", spec.name or ""
            callees[flat(name, namespace)] = Callee(name, namespace, custom)
            tools.append(
                Tool(
                    name=flat(name, namespace),
                    description=spec.description,
                    parameters=_of_text(spec) if custom else spec.parameters or {},
                    strict=bool(spec.strict),
                )
            )
    if choice is None or choice.type in ("auto", "none", "required"):
        kind = "auto" if choice is None else choice.type
        return tool_use(tools, kind, parallel=parallel), callees  # type: ignore[arg-type]
    if choice.type != "allowed_tools":
        named = [choice.called or ""]
        return tool_use(tools, "named", named=named, parallel=parallel), callees
    named = [
        tool.called or "" for tool in choice.tools or () if tool.type in ("function", "custom")
    ]
    if not named:
        raise invalid_request(
            "`tool_choice` allows no function and no custom tool: name one, or send none instead",
            "tool_choice",
        )
    return tool_use(tools, choice.mode, named=named, parallel=parallel), callees


def _spread(specs: Iterable[ToolSpec]) -> Iterator[tuple[ToolSpec, str | None]]:
    """Every tool, with its namespace."""
    for spec in specs:
        if spec.type == "namespace":
            yield from ((tool, spec.name) for tool in spec.tools or ())
        else:
            yield spec, None


def _loggable(types: Iterable[str]) -> str:
    """Types for the log, which holds no text of a client's: unknown types become "unknown"."""
    return ", ".join(sorted({kind if kind in _HOSTED else "unknown" for kind in types}))


def _of_text(spec: ToolSpec) -> Mapping[str, Any]:
    """The parameters of the function that stands for a custom tool."""
    text = {"type": "string"}
    rules = (spec.format or {}).get("definition")
    if isinstance(rules, str):
        text["description"] = f"A text that this grammar takes:\n{rules}"
    return {
        "type": "object",
        "properties": {"input": text},
        "required": ["input"],
        "additionalProperties": False,
    }
