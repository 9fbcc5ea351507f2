"""What rendering tells of a chat template, on templates made for one question each."""

from __future__ import annotations

import pytest

from ponder.thought.families import MARKERS, TAGS
from server.checkpoint.conftest import Load

TURNS = "{%- for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor -%}"
EFFORT = (
    "{%- set e = reasoning_effort if reasoning_effort is defined else 'high' -%}"
    "{%- if e not in ['low', 'high'] %}{{ raise_exception('low or high') }}{% endif -%}"
)


def template(*adds: str, before: str = "") -> str:
    """One that adds this for the assistant's turn."""
    return f"{before}{TURNS}{{% if add_generation_prompt %}}[assistant]{''.join(adds)}{{% endif %}}"


IF = "{% if enable_thinking is defined and enable_thinking %}"
UNLESS = "{% if enable_thinking is not defined or enable_thinking %}"


@pytest.mark.parametrize(
    ("text", "own", "on", "off"),
    [
        (template("<think>\n"), "open", {}, None),
        (
            template(UNLESS, "<think>{% else %}<think></think>{% endif %}"),
            "open",
            {"enable_thinking": True},
            {"enable_thinking": False},
        ),
        (
            template(IF, "<think>{% else %}</think>{% endif %}"),
            "closed",
            {"enable_thinking": True},
            {"enable_thinking": False},
        ),
        (
            template(
                "{% if thinking is defined and thinking %}<think>{% else %}</think>{% endif %}"
            ),
            "closed",
            {"thinking": True},
            {"thinking": False},
        ),
        (
            template(
                "{% if reasoning_effort is defined and reasoning_effort == 'high' %}<think>"
                "{% else %}<think></think>{% endif %}"
            ),
            "closed",
            {"reasoning_effort": "high"},
            {"reasoning_effort": "no_think"},
        ),
        (
            template(UNLESS, "<think>{% else %}{{ raise_exception('always') }}{% endif %}"),
            "open",
            {"enable_thinking": True},
            None,
        ),
    ],
    ids=["opens", "on by default", "off by default", "thinking", "an effort", "refuses"],
)
def test_switches_are_found_by_trying_them(
    load: Load, text: str, own: str, on: dict[str, object], off: dict[str, object] | None
) -> None:
    traits = load(text).traits
    assert (traits.own, traits.on, traits.off) == (own, on, off)


def test_efforts_are_the_nearest_that_the_template_takes(load: Load) -> None:
    traits = load(template("<think>{{ e }}</think><think>", before=EFFORT)).traits
    assert traits.effort == "reasoning_effort"
    assert traits.efforts == {
        "minimal": "low",
        "low": "low",
        "medium": "low",
        "high": "high",
        "xhigh": "high",
        "max": "high",
    }


@pytest.mark.parametrize(
    ("before", "efforts"),
    [
        (
            "{% if reasoning_effort == 'max' %}All of it.{% endif %}",
            "minimal low medium high max max",
        ),
        (
            "{% if reasoning_effort in ['high', 'max'] %}{{ reasoning_effort }}.{% endif %}",
            "minimal low medium high max max",
        ),
        (
            "Effort: {{ 'High' if reasoning_effort == 'high' else 'Max' }}",
            "high high high high max max",
        ),
        (
            "Effort: {{ (reasoning_effort if reasoning_effort in ['low', 'high'] else 'max') }}",
            "low low low high max max",
        ),
        (
            "{% if reasoning_effort in ['low', 'high'] %}{{ reasoning_effort }}.{% endif %}",
            "low low medium high high high",
        ),
        ("Strength: {{ reasoning_effort }}.", "minimal low medium high xhigh max"),
    ],
)
def test_an_effort_that_a_template_ignores_is_the_nearest_that_it_does_not(
    load: Load, before: str, efforts: str
) -> None:
    traits = load(template("<think>", before=before)).traits
    assert " ".join(traits.efforts.values()) == efforts


def test_an_effort_that_closes_the_thought_stands_for_no_other(load: Load) -> None:
    closes = "{% if reasoning_effort == 'low' %}<think></think>{% else %}<think>{% endif %}"
    checkpoint = load(template(closes))
    assert list(checkpoint.traits.efforts.items())[1:3] == [("low", "low"), ("medium", "medium")]


def test_the_strength_of_reasoning_is_an_effort(load: Load) -> None:
    checkpoint = load(template("<think>", before="{{ reasoning_strength }}"))
    assert checkpoint.traits.effort == "reasoning_strength"


@pytest.mark.parametrize("value", ["enabled", "disabled", "adaptive"])
def test_a_switch_may_leave_it_to_the_model(load: Load, value: str) -> None:
    text = (
        "{% if thinking_mode == 'disabled' %}</think>{% elif thinking_mode == 'enabled' %}<think>"
    )
    traits = load(template(text, "{% endif %}")).traits
    assert value in traits.switches["thinking_mode"]


def test_a_template_that_tells_the_budget_is_found(load: Load) -> None:
    told = "{% if thinking_budget is defined %}Within {{ thinking_budget }}.{% endif %}"
    assert load(template("<think>", before=told)).traits.tells == "thinking_budget"
    assert load(template("<think>")).traits.tells is None


def test_a_template_that_only_strips_thoughts_does_not_think(load: Load) -> None:
    strips = "{{ (messages[0].content | string).split('</think>')[-1] }}"
    checkpoint = load(template(before=strips))
    assert (checkpoint.form, checkpoint.unread) == (None, None)


def test_an_earlier_turn_with_its_thought_shows_a_model_that_thinks(load: Load) -> None:
    turns = (
        "{%- for m in messages %}"
        "{% if m.thinking is defined %}<think>{{ m.thinking }}</think>{% endif %}"
        "{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    checkpoint = load(turns)
    assert checkpoint.form == TAGS
    assert checkpoint.traits.own == "model"


def test_a_comment_in_a_template_shows_nothing(load: Load) -> None:
    checkpoint = load(template(before="{#- without reasoning_content\n and <think_fast> -#}"))
    assert (checkpoint.form, checkpoint.unread) == (None, None)


@pytest.mark.parametrize("marker", ["<thought>", "<think_fast>", *MARKERS])
def test_a_marker_that_no_row_knows_is_told(load: Load, marker: str) -> None:
    checkpoint = load(template(marker))
    assert checkpoint.form is None
    assert checkpoint.unread is not None
    assert marker.startswith(checkpoint.unread)
