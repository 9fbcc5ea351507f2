"""Conversations with tools, which teach when to call a calculator and how to use its result.

Where a calculator is listed, a question too large for mental arithmetic is answered by a call. The
reply repeats the calculator's result unchanged, even where it is wrong. All other questions are
answered as without tools.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from random import Random
from typing import Any

from ponder.tasks.calculator import CalculatorTask, written_call
from ponder.tasks.problems import Problem, Split, draw
from ponder.tasks.worked import Step, Worked

from . import smalltalk
from .objects import Object
from .openings import casual
from .thoughts import answer_text, reply_text
from .toolbox import Toolbox, with_calculator, without_calculator

FAMILY = "call"
_TASK = CalculatorTask()
# Shares of conversations with tools: a call is due, its result has come, only other tools are
# listed. In the rest a calculator is listed that the question does not need.
_CALL, _RESULT, _OTHERS = 0.42, 0.23, 0.1
_EARLIER = 0.12
_FAILED = 0.06
_FAILURES = ("Error: {}", '{{"error": "{}"}}', "{}")
_REASONS = ("invalid expression", "division by zero", "syntax error", "timeout", "not available")
_FAILED_REPLY = "The tool failed, so I cannot tell."
_RESULTS = ("{}",) * 6 + ('{{"result": {}}}', '{{"value": {}}}', "{expression} = {}", "Result: {}")

CALLING = """You may call tools:
<tools>
</tools>
A call is written as
<tool_call>
{"name": NAME, "arguments": {...}}
</tool_call>"""
"""The chat template's text about calls."""

Turn = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns and listed tools, and the reply that is due, with its solution; `object`: as JSON."""

    turns: Sequence[Turn]
    tools: Sequence[Mapping[str, Any]]
    worked: Worked
    object: Object | None = None

    def texts(self) -> Iterator[str]:
        """The texts of its turns and of its listed tools."""
        yield CALLING
        yield from map(json.dumps, self.tools)
        yield from (turn["content"] for turn in self.turns)
        yield self.worked.steps[0].text
        yield reply_text(self.worked.problem, self.worked.problem.answer)


def conversation(rng: Random, split: Split, other: Callable[[], Worked]) -> Conversation:
    """A conversation with tools; `other` draws a question that needs none."""
    sort = rng.random()
    if sort < _OTHERS:
        tools, worked = without_calculator(rng).tools, other()
        return Conversation([_user(worked.problem.question)], tools, worked)
    box = with_calculator(rng)
    turns = _earlier(rng, split, box, other) if rng.random() < _EARLIER else []
    if sort < _OTHERS + _CALL:
        problem = _question(rng, split)
        return Conversation([*turns, _user(problem.question)], box.tools, _due(problem, box))
    if sort < _OTHERS + _CALL + _RESULT:
        problem = _question(rng, split)
        turns += [_user(problem.question), _called(problem, box)]
        result, worked = _result(rng, problem, box)
        return Conversation([*turns, result], box.tools, worked)
    worked = _for_the_head(other)
    return Conversation([*turns, _user(worked.problem.question)], box.tools, worked)


def _question(rng: Random, split: Split) -> Problem:
    problem = draw(_TASK, rng, rng.choices(_TASK.difficulties, (0.55, 0.2, 0.15, 0.1))[0], split)
    return replace(problem, question=casual(rng, problem.question))


def _due(problem: Problem, box: Toolbox) -> Worked:
    """The question's solution, with the call as the reply."""
    arguments = json.dumps({box.parameter: problem.evidence})
    call = written_call(box.name, arguments)
    thought = f"This needs {box.name}: {problem.evidence}"
    return _worked(problem, thought, call)


def _result(rng: Random, problem: Problem, box: Toolbox) -> tuple[Turn, Worked]:
    """The turn with the calculator's result, and the reply to it."""
    if rng.random() < _FAILED:
        said = rng.choice(_FAILURES).format(rng.choice(_REASONS))
        thought, reply = f"{box.name} failed", _FAILED_REPLY
    else:
        value = _number(rng, Fraction(problem.answer))
        said = rng.choice(_RESULTS).format(value, expression=problem.evidence)
        thought, reply = f"{box.name} gives {value}", answer_text(value)
    return {"role": "tool", "content": said}, _worked(problem, thought, reply)


def _worked(problem: Problem, thought: str, reply: str) -> Worked:
    replied = replace(problem, family=FAMILY, answer=reply, verifier="exact")
    return Worked(replied, "", (Step(thought, reply),), ())


def _number(rng: Random, value: Fraction) -> str:
    """The value as calculators print it, at times a wrong one, so that the model must read it."""
    if rng.random() < 0.2:
        value = Fraction(rng.randrange(10 ** rng.randint(1, 8)), rng.choice((1, 1, 2, 4, 7)))
    if value.denominator > 1:
        return str(round(float(value), rng.choice((2, 3, 6))))
    return f"{value}.0" if rng.random() < 0.05 else str(value)


def _for_the_head(other: Callable[[], Worked]) -> Worked:
    """A question for which a calculator is useless or not needed."""
    while True:
        worked = other()
        talk = worked.problem.family == smalltalk.FAMILY
        if not (talk and any(letter.isdigit() for letter in worked.problem.question)):
            return worked


def _earlier(rng: Random, split: Split, box: Toolbox, other: Callable[[], Worked]) -> list[Turn]:
    """Earlier turns: a question that was answered, with or without a call."""
    if rng.random() < 0.4:
        problem = _for_the_head(other).problem
        return [_user(problem.question), _said(reply_text(problem, problem.answer))]
    problem = _question(rng, split)
    result, worked = _result(rng, problem, box)
    return [
        _user(problem.question),
        _called(problem, box),
        result,
        _said(worked.problem.answer),
    ]


def _called(problem: Problem, box: Toolbox) -> Turn:
    function = {"name": box.name, "arguments": {box.parameter: problem.evidence}}
    return {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}


def _user(text: str) -> Turn:
    return {"role": "user", "content": text}


def _said(text: str) -> Turn:
    return {"role": "assistant", "content": text}
