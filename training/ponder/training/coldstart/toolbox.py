"""The tools that written conversations list: a calculator under many names, and other tools.

About half of the calculators are spelled as in the task. The others vary in name, parameter,
description and spelling of their schemas, so that the model learns to copy a call's names from the
list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from ponder.tasks.calculator import CALCULATE

from .smalltalk import invented

_NAMES = (
    *("calculate", "calculator", "calc", "compute", "evaluate", "eval_expression"),
    *("arithmetic", "math", "do_math", "run_calculator", "evaluate_expression"),
)
_PARAMETERS = ("expression", "expr", "formula", "input", "query", "calculation", "problem", "text")
_DESCRIPTIONS = (
    "Evaluate an arithmetic expression.",
    "Evaluates an arithmetic expression",
    "Calculate the value of an expression.",
    "A calculator for arithmetic.",
    "Compute a math expression and return the result.",
    "Does arithmetic: + - * / and brackets.",
    "Evaluate a mathematical expression, such as 2 + 3 * 4.",
    "Use this for calculations with large numbers.",
)
_OF_PARAMETERS = ("The expression.", "An arithmetic expression, e.g. 12 * 34", "What to calculate")
_OTHERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("get_weather", "Get the weather in a city.", ("city",)),
    ("get_current_weather", "Current weather of a place", ("location", "unit")),
    ("search", "Search the web.", ("query",)),
    ("web_search", "Search the internet for a text", ("query",)),
    ("read_file", "Read a file.", ("path",)),
    ("write_file", "Write text to a file.", ("path", "content")),
    ("run", "Run a command in a shell.", ("command",)),
    ("get_time", "The time in a time zone.", ("timezone",)),
    ("send_email", "Send an email.", ("to", "subject", "body")),
    ("translate", "Translate a text.", ("text", "language")),
    ("list_files", "List the files of a folder.", ()),
    ("add_note", "Keep a note for later.", ("note",)),
    ("get_stock_price", "The price of a stock", ("symbol",)),
)
# Numbers of other tools beside a calculator, each as likely as it is frequent here.
_BESIDE = (0, 0, 0, 0, 1, 2)


@dataclass(frozen=True, slots=True)
class Toolbox:
    """Tools as chat templates take them; `name` and `parameter` are the calculator's, if any."""

    tools: Sequence[Mapping[str, Any]]
    name: str = ""
    parameter: str = ""


def with_calculator(rng: Random) -> Toolbox:
    """A calculator, half of the time spelled as in the task, and up to two other tools."""
    function = CALCULATE["function"]
    name, (parameter,) = function["name"], function["parameters"]["properties"]
    if rng.random() < 0.5:
        description = function["description"]
    else:
        known = rng.random() < 0.8
        name = rng.choice(_NAMES) if known else _word(rng)
        parameter = rng.choice(_PARAMETERS) if rng.random() < 0.8 else _word(rng)
        described = not known or rng.random() < 0.9
        description = rng.choice(_DESCRIPTIONS) if described else ""
    calculator = _tool(rng, name, description, (parameter,), _OF_PARAMETERS)
    tools = [calculator, *_others(rng, rng.choice(_BESIDE))]
    rng.shuffle(tools)
    return Toolbox(tools, name, parameter)


def without_calculator(rng: Random) -> Toolbox:
    return Toolbox(_others(rng, rng.randint(1, 2)))


def _others(rng: Random, n: int) -> list[Mapping[str, Any]]:
    return [_tool(rng, *other, ()) for other in rng.sample(_OTHERS, n)]


def _word(rng: Random) -> str:
    return invented(rng).split()[0].lower()


def _tool(
    rng: Random,
    name: str,
    description: str,
    parameters: Sequence[str],
    of_parameters: Sequence[str],
) -> Mapping[str, Any]:
    """A tool as clients spell it: keys in several orders, some left out."""
    detailed, styled = bool(of_parameters) and rng.random() < 0.15, rng.random()
    properties: dict[str, Any] = {}
    for parameter in parameters:
        properties[parameter] = {"type": "string"}
        if detailed:
            properties[parameter]["description"] = rng.choice(of_parameters)
        elif styled > 0.9:
            properties[parameter] = {"title": parameter.capitalize(), "type": "string"}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": list(parameters),
    }
    if styled > 0.7:
        schema["additionalProperties"] = False
    if styled > 0.8:
        schema = dict(sorted(schema.items()))
    function: dict[str, Any] = {"name": name, "description": description, "parameters": schema}
    if not description:
        del function["description"]
    if styled > 0.95:
        function["strict"] = True
    return {"type": "function", "function": function}
