"""Tools, calls and formats as OpenAI's chats write them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StrictBool, model_validator

from ponder.engine.protocol import Grammar, Tool
from ponder.protocol import grammars
from ponder.protocol.chat import ToolUse
from ponder.protocol.fields import Lenient, Name, Off, Strict, or_say
from ponder.protocol.tools import tool_use

MOST_TOOLS = 1024
FunctionName = Annotated[str, Field(min_length=1, max_length=256)]
_FUNCTION = or_say("this server knows tools of type function alone; send one of those")


NO_FUNCTIONS = or_say("this is OpenAI's old name; send tools, tool_choice and tool_calls")


_ONE_BLANK = or_say("JSON has at most one blank between its parts here; leave it out")
_SCHEMA_SAYS = or_say("a schema says it itself, by additionalProperties: false; leave it out")
RENAMED = or_say("vLLM renamed this; send structured_outputs with json, regex, choice or grammar")


class Function(Strict):
    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: StrictBool = False


class FunctionTool(Strict):
    """A function that the answer may call."""

    type: Annotated[Literal["function"], _FUNCTION] = "function"
    function: Function
    cache_control: Any = None

    @property
    def tool(self) -> Tool:
        function = self.function
        return Tool(
            name=function.name,
            description=function.description,
            parameters=function.parameters,
            strict=function.strict,
        )


Tools = Annotated[list[FunctionTool], Field(max_length=MOST_TOOLS, fail_fast=True)]


class Named(Strict):
    name: FunctionName


class ChosenFunction(Strict):
    type: Annotated[Literal["function"], _FUNCTION] = "function"
    function: Named


class AllowedTools(Strict):
    mode: Literal["auto", "required"] = "auto"
    tools: Annotated[list[ChosenFunction], Field(min_length=1, max_length=MOST_TOOLS)]


class ToolChoice(Strict):
    """The object form: one function that must be called, or several that may be."""

    type: Literal["function", "allowed_tools"]
    function: Named | None = None
    allowed_tools: AllowedTools | None = None

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if getattr(self, self.type) is None:
            raise ValueError(f"type {self.type} needs {self.type}: add it")
        return self


Choice = Annotated[
    Literal["none", "auto", "required"] | ToolChoice,
    or_say("must be auto, none, required, or an object that names one or several of the tools"),
]


def read_tools(
    tools: list[FunctionTool] | None,
    choice: Choice | None,
    parallel: bool | None,
) -> ToolUse | None:
    """The tools of a request. Raises `ApiError` for a choice that names no tool."""
    known = [tool.tool for tool in tools or ()]
    several = parallel is not False
    if not isinstance(choice, ToolChoice):
        return tool_use(known, choice or "auto", parallel=several)
    if choice.allowed_tools is not None:
        named = [tool.function.name for tool in choice.allowed_tools.tools]
        return tool_use(known, choice.allowed_tools.mode, named=named, parallel=several)
    assert choice.function is not None
    return tool_use(known, "named", named=[choice.function.name], parallel=several)


class CalledFunction(Lenient):
    name: FunctionName
    arguments: str | dict[str, Any] = ""


class Call(Lenient):
    """A call in an earlier assistant turn."""

    id: Name = ""
    type: Annotated[Literal["function"], _FUNCTION] = "function"
    function: CalledFunction

    @property
    def arguments(self) -> str:
        given = self.function.arguments
        return given if isinstance(given, str) else json.dumps(given)


class JsonSchema(Strict):
    name: Name | None = None
    description: str | None = None
    schema_: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: StrictBool | None = None


class ResponseFormat(Strict):
    """`json_schema` is enforced whatever its `strict` says."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _says_which(self) -> Self:
        if self.type == "json_schema" and self.json_schema is None:
            raise ValueError("type json_schema needs json_schema: add it")
        return self

    @property
    def grammar(self) -> Grammar | None:
        if self.type == "text":
            return None
        if self.json_schema is None:
            return grammars.json_object()
        return grammars.json_schema(self.json_schema.schema_)


_RULES = ("json_", "regex", "choice", "grammar_", "json_object", "structural_tag")


class StructuredOutputs(Strict):
    """vLLM's field: one rule that the answer follows."""

    json_: dict[str, Any] | str | None = Field(None, alias="json")
    regex: Annotated[str, Field(min_length=1)] | None = None
    choice: Annotated[list[str], Field(min_length=1, max_length=1024)] | None = None
    grammar_: Annotated[str, Field(min_length=1)] | None = Field(None, alias="grammar")
    json_object: StrictBool | None = None
    structural_tag: dict[str, Any] | str | None = None
    disable_any_whitespace: Annotated[Off, _ONE_BLANK] = None
    disable_additional_properties: Annotated[Off, _SCHEMA_SAYS] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if sum(getattr(self, rule) not in (None, False) for rule in _RULES) != 1:
            raise ValueError("structured_outputs takes one rule: send it alone")
        for given in (self.json_, self.structural_tag):
            if given is not None:
                read_json(given)
        return self

    @property
    def grammar(self) -> Grammar:
        if self.json_object:
            return grammars.json_object()
        if self.regex is not None:
            return Grammar("regex", self.regex)
        if self.choice is not None:
            return Grammar("choice", json.dumps(self.choice))
        if self.grammar_ is not None:
            return Grammar("grammar", self.grammar_)
        given = self.json_ if self.structural_tag is None else self.structural_tag
        rule = read_json(given)
        if self.structural_tag is None:
            return grammars.json_schema(rule)
        return Grammar("structural_tag", json.dumps(rule))


def read_json(given: Mapping[str, Any] | str | None) -> Mapping[str, Any]:
    """The object in `given`, which may be its JSON text. Raises `ValueError`."""
    try:
        read = json.loads(given) if isinstance(given, str) else given
    except RecursionError:
        raise ValueError("the rule must be a JSON object: this one is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"the rule must be a JSON object: {error}") from None
    if not isinstance(read, Mapping):
        raise ValueError("the rule must be a JSON object")
    return read
