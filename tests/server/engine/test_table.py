"""Engines by name."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from ponder.engine.protocol import EngineRequest, EngineSetupError, Load, Sampling
from ponder.engine.scripted import ByteVocabulary
from ponder.engine.table import ENGINES, load_engine

VOCABULARY = ByteVocabulary()


def load(*options: str) -> Load:
    return Load(
        name="tiny",
        directory=Path("tiny"),
        served_as="tiny",
        vocabulary=VOCABULARY,
        end_of_thought="</think>",
        options=options,
    )


def test_the_scripted_engine_says_its_options() -> None:
    async def said() -> list[int]:
        engine = load_engine("scripted", load("ab", "cd"))
        answers = []
        for name in "rst":
            request = EngineRequest([1], Sampling(max_tokens=9), name)
            answers += [t async for chunk in engine.generate(request) for t in chunk.token_ids]
        return answers

    assert asyncio.run(said()) == [*b"ab", 256, *b"cd", 256, *b"cd", 256]


def test_the_scripted_engine_goes_on_where_a_thought_was_closed() -> None:
    async def said(*prompts: str) -> list[str]:
        engine = load_engine("scripted", load("One.</think>1", "Two.</think>2"))
        answers = []
        for number, prompt in enumerate(prompts):
            rules = Sampling(max_tokens=99)
            request = EngineRequest(VOCABULARY.encode(prompt), rules, str(number))
            ids = [t async for chunk in engine.generate(request) for t in chunk.token_ids]
            answers.append(b"".join(map(VOCABULARY.token_bytes, ids)).decode())
        return answers

    prompts = ("A<think>", "B<think>", "A<think>On</think>", "B<think>Tw</think>", "C</think>")
    assert asyncio.run(said(*prompts)) == ["One.</think>1", "Two.</think>2", "1", "2", "2"]


def test_the_scripted_engine_is_told_what_to_say() -> None:
    with pytest.raises(EngineSetupError, match="give it a text"):
        load_engine("scripted", load())


def test_a_module_of_ones_own_is_an_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.py").write_text(
        "from ponder.engine.scripted import ScriptedEngine, say\n"
        "def load(load): return ScriptedEngine(say('mine', vocabulary=load.vocabulary),\n"
        "                                      load.vocabulary, max_model_len=77)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_engine("mine", load()).facts.max_model_len == 77


@pytest.mark.parametrize("name", ["nobody", "math"])
def test_a_module_that_is_no_engine_is_said(name: str) -> None:
    with pytest.raises(EngineSetupError, match=f"--engine {name}: .*takes {', '.join(ENGINES)}"):
        load_engine(name, load())


def test_an_engine_that_is_not_chosen_is_not_imported() -> None:
    program = (
        "import sys; import ponder.engine.table, ponder.engine.scripted;"
        "assert not {'vllm', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
