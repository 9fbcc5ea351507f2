"""A checkpoint that was trained on budget hints is told its budget, softly, in front of the cap."""

from __future__ import annotations

from functools import cache

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.checkpoint.chat import Prompt
from ponder.engine.tokenizer import ModelFiles
from ponder.protocol.dialects.chat import ChatCompletionRequest
from ponder.server.model import ServedModel
from ponder.server.settings import BUNDLED_MODEL, Settings
from ponder.thought.budget import Limits

from .conftest import Running, Serve

SAYS = "I will answer the question within {} tokens\n"


def told(running: Running, **fields: object) -> tuple[object, str]:
    """What the response says the model was told, and what the engine's prompt ends with."""
    choice = running.ask(**fields).choices[0]
    prompt = running.service.model.tokenizer.decode(running.engine.requests[-1][0])
    return choice.ponder["hint_budget"], prompt.partition("<think>\n")[2]


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({"budget": 39}, None),
        ({"budget": 40}, 40),
        ({"budget": 100}, 80),
        ({"budget": 4000}, 200),
        ({"reasoning_effort": "minimal"}, 80),
        ({"budget": 200, "max_completion_tokens": 120}, 80),
        ({"budget": 200, "max_completion_tokens": 40}, None),
        ({"budget": 100, "ponder": {"hint": False}}, None),
        ({"budget": -1, "ponder": {"hint": True}}, None),
        ({"budget": 0}, None),
        ({}, None),
    ],
)
def test_the_largest_trained_budget_within_the_request_is_told(
    serve: Serve, fields: dict[str, object], budget: int | None
) -> None:
    said, text = told(serve(), **fields)
    assert said == budget
    if fields.get("budget") != 0:
        assert text == ("" if budget is None else SAYS.format(budget))


def test_a_hint_is_the_prompts_and_the_cap_stays(serve: Serve) -> None:
    running = serve("I think and think. " * 20, "ok")
    plain = running.ask(budget=41, ponder={"hint": False})
    hinted = running.ask(budget=41)
    choice = hinted.choices[0]
    ids = running.service.model.tokenizer.encode(SAYS.format(40))
    assert hinted.usage.prompt_tokens == plain.usage.prompt_tokens + len(ids)
    assert hinted.usage.completion_tokens == plain.usage.completion_tokens
    assert choice.message == plain.choices[0].message
    report = choice.ponder
    assert (report["hint_budget"], report["budget_effective"]) == (40, 41)
    assert report["thinking_tokens"] <= 41


def test_the_operator_switches_hints_off_and_a_request_on(serve: Serve) -> None:
    running = serve(hint=False, default_budget=80)
    assert told(running) == (None, "")
    assert told(running, ponder={"hint": True}) == (80, SAYS.format(80))


TELLS = """\
{%- if thinking_budget is defined %}{{ thinking_budget }} tokens. {% endif -%}
{%- for message in messages -%}<|im_start|>{{ message.content }}{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant<think>\n{% endif -%}"""


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({"budget": 39}, 39),
        ({"budget": 39, "chat_template_kwargs": {"thinking_budget": 39}}, 39),
        ({"chat_template_kwargs": {"thinking_budget": 39}}, 39),
        ({"budget": 39, "ponder": {"hint": False}}, None),
        ({"budget": -1, "ponder": {"hint": True}}, None),
        ({"budget": 0}, None),
        ({}, None),
    ],
)
def test_what_the_template_told_the_model_is_reported(
    serve: Serve, fields: dict[str, object], budget: int | None
) -> None:
    """Beside a hint: 39 is below the least budget that the model was trained on."""
    running = serve(template=TELLS)
    (choice,) = running.ask(**fields).choices
    prompt = running.service.model.tokenizer.decode(running.engine.requests[-1][0])
    assert choice.ponder["hint_budget"] == budget
    assert prompt.startswith("" if budget is None else f"{budget} tokens. ")
    assert ("tokens. " in prompt) == (budget is not None)


def test_the_argument_that_tells_a_budget_is_shown(serve: Serve) -> None:
    card = serve(template=TELLS).client().models.list().data[0].ponder  # type: ignore[attr-defined]
    assert card["budget_argument"] == "thinking_budget"
    assert serve().client().models.list().data[0].ponder["budget_argument"] is None  # type: ignore[attr-defined]


def test_hints_are_shown_and_refused_where_there_are_none(serve: Serve) -> None:
    card = serve().client().models.list().data[0].ponder  # type: ignore[attr-defined]
    assert card["budget_hint"] == SAYS.replace("{}", "{budget}")
    with pytest.raises(openai.BadRequestError, match="trained on budget hints"):
        serve("ok", thinks=False).ask(ponder={"hint": True})


@cache
def bundled() -> ServedModel:
    return ServedModel.load(ModelFiles.find(BUNDLED_MODEL), Settings())


@given(
    asked=st.none() | st.integers(-1, 400),
    default=st.integers(-1, 400),
    ceiling=st.none() | st.integers(0, 400),
    limit=st.none() | st.integers(1, 400),
    context=st.integers(60, 500),
)
def test_a_hint_never_exceeds_the_budget_and_takes_nothing_but_room(
    asked: int | None,
    default: int,
    ceiling: int | None,
    limit: int | None,
    context: int,
) -> None:
    limits = Limits(max_model_len=context, default=default, ceiling=ceiling)

    def prompt(hint: bool) -> Prompt:
        request = ChatCompletionRequest.model_validate(
            {
                "messages": [{"role": "user", "content": "What is 1 + 2?"}],
                "thinking_token_budget": asked,
                "max_completion_tokens": limit,
                "ponder": {"hint": hint},
            }
        )
        (prompt,) = bundled().prompts(request.neutral({}), limits)
        return prompt

    plain, hinted = prompt(False), prompt(True)
    assert plain.hint is None
    if hinted.hint is None:
        assert hinted == plain
        return
    budget, ids = hinted.hint.budget, hinted.hint.ids
    wish = default if asked is None else asked
    assert budget <= hinted.plan.budget <= plain.plan.budget <= wish
    assert budget in (40, 80, 160, 200)
    assert hinted.token_ids == [*plain.token_ids, *ids]
    assert len(hinted.token_ids) + hinted.plan.allowance <= context
