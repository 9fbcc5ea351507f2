"""The family that docs/extending gives to copy: a row is all that a thought needs of it."""

from __future__ import annotations

import asyncio

import pytest
from family import MUSE

from ponder.engine.protocol import Sampling
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.thought import families
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Plan
from ponder.thought.drive import drive
from ponder.thought.families import recognise
from ponder.thought.format import CompiledFormat
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Event, Thought

TEMPLATE = "{{ messages[0].content }}<assistant>{% if muse %}<muse>{% else %}<muse></muse>"
VOCABULARY = ByteVocabulary(single_token_markers=False)


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (MUSE, *families.FAMILIES))


@pytest.mark.parametrize(
    ("budget", "cause", "thought"), [(100, "natural", "I add."), (4, "budget", "I ad")]
)
def test_its_thoughts_end_and_are_closed_as_the_row_says(
    budget: int, cause: str, thought: str
) -> None:
    row = recognise(TEMPLATE)
    assert row is MUSE
    form = row.format

    def render(messages: object, arguments: object) -> str:
        return f"hello<assistant>{'<muse>' if arguments == form.think else '<muse></muse>'}"

    compiled = CompiledFormat.of(form, "template", VOCABULARY)
    life = Thought(
        VOCABULARY,
        compiled,
        prompt=VOCABULARY.encode(render([], form.think)),
        plan=Plan(requested=budget, budget=budget, source="request", allowance=300, reserve=9),
        sampling=Sampling(max_tokens=0),
        rules=AnswerRules(),
    )
    engine = ScriptedEngine(
        say("I add.</muse>\nIt is 42.", "It is 42.", vocabulary=VOCABULARY), VOCABULARY
    )
    events: list[Event] = []
    outcome = asyncio.run(drive(life, engine, "r", events.append))
    said = {
        answer: "".join(e.text for e in events if isinstance(e, AnswerDelta) is answer)
        for answer in (False, True)
    }
    assert (outcome.end_cause, said[False], said[True]) == (cause, thought, "It is 42.")
