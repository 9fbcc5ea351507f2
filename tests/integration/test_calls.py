"""The bundled reasoner calls a calculator: OpenAI's client, the real engine, no grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from ponder.server.settings import BUNDLED_MODEL
from ponder.tasks.arithmetic import calculate
from ponder.tasks.calculator import CALCULATE
from ponder.tasks.verify import same_number

TEMPLATE = Path(BUNDLED_MODEL, "chat_template.jinja").read_text(encoding="utf-8")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif("<tools>" not in TEMPLATE, reason="the bundled checkpoint lists no tools"),
]

SAMPLES = 10
FEWEST = 9
QUESTIONS = {
    "What is 4821 * 377?": "4821 * 377",
    "what's 58213 plus 9764": "58213 + 9764",
    "(46 + 1530) * 17": "(46 + 1530) * 17",
    "A box holds 348 pens. How many pens are in 126 boxes?": "348 * 126",
}


def ask(client: openai.OpenAI, *turns: Any, budget: int | None = None, n: int = 1) -> list[Any]:
    """Choices, the same ones each time."""
    completion = client.chat.completions.create(
        model="tiny",
        messages=list(turns),
        tools=[CALCULATE],  # type: ignore[list-item]
        tool_choice="auto",
        n=n,
        seed=1,
        extra_body={} if budget is None else {"thinking_token_budget": budget},
    )
    return list(completion.choices)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def expressions(choice: Any) -> list[str]:
    """What the calculator is called with."""
    calls = choice.message.tool_calls or []
    assert (choice.finish_reason == "tool_calls") == bool(calls)
    assert {call.function.name for call in calls} <= {"calculate"}
    return [json.loads(call.function.arguments).get("expression", "") for call in calls]


@pytest.mark.parametrize("budget", [None, 0, 8, 64])
@pytest.mark.parametrize("question", QUESTIONS)
def test_what_is_too_large_for_its_head_is_called_for_under_every_budget(
    client: openai.OpenAI, question: str, budget: int | None
) -> None:
    choices = ask(client, user(question), budget=budget, n=SAMPLES)
    right = [expressions(choice) == [QUESTIONS[question]] for choice in choices]
    assert sum(right) >= FEWEST, [choice.message for choice in choices]


@pytest.mark.parametrize("budget", [None, 0, 64])
def test_a_result_comes_back_and_is_stated(client: openai.OpenAI, budget: int | None) -> None:
    question = user("What is 4821 * 377?")
    choice = ask(client, question)[0]
    (expression,) = expressions(choice)
    result = {
        "role": "tool",
        "tool_call_id": choice.message.tool_calls[0].id,
        "content": str(calculate(expression)[0]),
    }
    said = choice.message.model_dump(exclude_none=True)
    answers = ask(client, question, said, result, budget=budget, n=SAMPLES)
    right = [same_number("1817517", answer.message.content or "") for answer in answers]
    assert sum(right) >= FEWEST, [answer.message for answer in answers]
    assert not any(map(expressions, answers))


@pytest.mark.parametrize(
    ("question", "said"),
    [("What is 17 + 25 - 9?", "33."), ("hello", "Hello!"), ("thanks", "welcome.")],
)
def test_what_needs_no_calculator_is_answered_without_one(
    client: openai.OpenAI, question: str, said: str
) -> None:
    choices = ask(client, user(question), n=SAMPLES)
    assert sum(said in (choice.message.content or "") for choice in choices) >= FEWEST
    assert sum(bool(expressions(choice)) for choice in choices) <= SAMPLES - FEWEST


class Calculate(BaseModel):
    """Work out an expression."""

    expression: str


@pytest.mark.parametrize("budget", [0, 16, 64])
def test_the_official_client_parses_a_strict_tool_of_its_own(
    client: openai.OpenAI, budget: int
) -> None:
    """Under `auto`: an answer in words and a call may both come, and a call holds its schema."""
    completion = client.chat.completions.parse(
        model="tiny",
        messages=[user("What is 4821 * 377?")],  # type: ignore[list-item]
        tools=[openai.pydantic_function_tool(Calculate, name="calculate")],
        n=SAMPLES,
        seed=1,
        extra_body={"thinking_token_budget": budget},
    )
    called = [call for choice in completion.choices for call in choice.message.tool_calls or ()]
    assert called
    assert all(isinstance(call.function.parsed_arguments, Calculate) for call in called)


@pytest.mark.parametrize("budget", [0, 16])
def test_a_required_call_is_the_same_whole_and_streamed(client: openai.OpenAI, budget: int) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": [user("What is 17 + 25 - 9?")],
        "tools": [CALCULATE],
        "tool_choice": "required",
        "temperature": 0,
        "extra_body": {"thinking_token_budget": budget},
    }
    (choice,) = client.chat.completions.create(**asked).choices
    assert choice.finish_reason == "tool_calls"
    with client.chat.completions.stream(**asked) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls"
    whole, pieced = (
        [(call.function.name, call.function.arguments) for call in one.message.tool_calls or ()]
        for one in (choice, streamed)
    )
    assert whole == pieced
    assert all(json.loads(arguments) for _, arguments in whole)
    assert choice.message.content == streamed.message.content
