"""Twenty questions to a model that behaves, and to models that do not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.scripted import Script, ScriptedEngine, say
from ponder.engine.tokenizer import ModelFiles
from ponder.server.commands.trial import ask_all
from ponder.server.settings import BUNDLED_MODEL
from ponder.thought.format import CompiledFormat

THOUGHT = "I look at what is asked for. " * 5


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return Checkpoint.load(ModelFiles.find(BUNDLED_MODEL))


def model(checkpoint: Checkpoint, thought: str, answer: str) -> Script:
    """One that says `answer` where its thought is closed."""
    vocabulary = checkpoint.tokenizer
    (end,) = vocabulary.encode("</think>")

    def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
        yield from vocabulary.encode(answer if end in prompt else f"{thought}</think>{answer}")
        yield min(vocabulary.eos_token_ids)

    return script


def failures(checkpoint: Checkpoint, script: Script) -> Counter[str]:
    """What was said of the twenty replies, without the questions."""
    engine = ScriptedEngine(script, checkpoint.tokenizer, chunk_sizes=(16,))
    found = asyncio.run(ask_all(checkpoint, engine))
    return Counter(failure.rpartition("with budget ")[2].partition(": ")[2] for failure in found)


def test_a_model_that_behaves_has_no_failures(checkpoint: Checkpoint) -> None:
    assert not failures(checkpoint, model(checkpoint, THOUGHT, "\n\nIt is 13."))


def test_a_second_close_is_told_although_it_is_hidden(checkpoint: Checkpoint) -> None:
    """Only a thought that ends by itself can have one: else the engine masks the marker."""
    found = failures(checkpoint, model(checkpoint, THOUGHT, "It is </think>13."))
    assert found == {"the answer closes a thought again, which is hidden": 10}


def test_a_thought_that_is_opened_again_is_told(checkpoint: Checkpoint) -> None:
    found = failures(checkpoint, model(checkpoint, THOUGHT, "It is <think>No.</think>13."))
    assert found == {"the answer opens a thought again, which is hidden": 10}


def test_markers_of_several_tokens_are_told_under_every_budget(checkpoint: Checkpoint) -> None:
    """No engine masks them: also a thought of budget 0 is opened again."""
    form = replace(checkpoint.form, start="<muse>", end="</muse>", close_text="</muse>")
    compiled = CompiledFormat.of(form, "template", checkpoint.tokenizer)
    muse = replace(checkpoint, form=form, compiled=compiled)
    reopening = say(f"{THOUGHT}</muse>13<muse>No.</muse>.", vocabulary=checkpoint.tokenizer)
    found = failures(muse, reopening)
    assert found["the answer opens a thought again, which is hidden"] == 20
    assert not [failure for failure in found if "shows" in failure]


@pytest.mark.parametrize("marker", ["</think>", "<thought>", "[THINK]"])
def test_a_marker_that_shows_is_a_failure(checkpoint: Checkpoint, marker: str) -> None:
    """A single-token marker spelt out in other tokens is text, and so is another model's."""
    vocabulary = checkpoint.tokenizer
    spelt = [t for character in marker for t in vocabulary.encode(character)]
    told = vocabulary.encode("It is ")

    def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
        yield from () if vocabulary.encode("</think>")[0] in prompt else thought
        yield from (*told, *spelt, *vocabulary.encode("13."), *vocabulary.eos_token_ids)

    thought = vocabulary.encode(f"{THOUGHT}</think>\n\n")
    (failure,) = failures(checkpoint, script)
    assert failure.startswith("the answer shows ")
    assert failure.strip("'").rpartition("'")[2] in marker


def test_an_empty_answer_is_a_failure(checkpoint: Checkpoint) -> None:
    def script(_prompt: Sequence[int], _number: int) -> Iterator[int]:
        blank = checkpoint.tokenizer.encode("\n")
        while True:
            yield from blank

    found = failures(checkpoint, script)
    assert found.total() == 20
    assert all("the model produced no answer" in failure for failure in found)


def test_a_model_that_never_thinks_is_told(checkpoint: Checkpoint) -> None:
    engine = ScriptedEngine(model(checkpoint, "", "\n\nIt is 13."), checkpoint.tokenizer)
    (failure,) = asyncio.run(ask_all(checkpoint, engine))
    assert failure == "the model never thought: its markers may be wrong"
