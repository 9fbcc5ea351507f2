"""The benchmark of the loop exit's false alarms, on an engine that plays a script."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bench import loops
from bench.loops import Found, Sampler, problems
from ponder.engine.protocol import Load
from ponder.engine.scripted import ScriptedEngine, say
from ponder.server.settings import BUNDLED_MODEL
from ponder.tasks.sources import find_tasks
from ponder.thought.exits.loop import AFTER

((TASK, PROBLEM),) = problems(find_tasks(["sum"]), 1, 0)
LINE = " 12 + 30 = 42."


@pytest.mark.parametrize(
    ("thought", "answer", "found"),
    [
        ("So.", PROBLEM.answer, {"right": 1}),
        ("So.", "none", {"right": 0}),
        (LINE * 60, PROBLEM.answer, {"right": 1, "reached": 1, "closed": 1, "earlier": 1}),
        (LINE * 15, PROBLEM.answer, {"right": 1, "reached": 0, "closed": 0, "earlier": 1}),
    ],
)
def test_thoughts_that_end_right_are_read_as_the_exit_reads_them(
    monkeypatch: pytest.MonkeyPatch, thought: str, answer: str, found: dict[str, int]
) -> None:
    sizes: list[int] = []

    def load(_: str, load: Load) -> ScriptedEngine:
        tokenizer: Any = load.vocabulary
        sizes.append(len(tokenizer.encode(thought)))
        text = f"{thought}\n</think>\n\nThe answer is {answer}."
        return ScriptedEngine(say(text, vocabulary=tokenizer), tokenizer)

    monkeypatch.setattr(loops, "load_engine", load)
    sampler, seen = Sampler(Path(BUNDLED_MODEL)), Found("tiny", 1.0)
    asyncio.run(sampler.sample(seen, [(TASK, PROBLEM)]))
    sampler.close()
    assert (sizes[0] >= AFTER) == bool(found.get("reached"))
    assert seen.sampled == 1
    assert bool(seen.saved) == bool(seen.closed)
    assert {name: getattr(seen, name) for name in found} == found
    assert seen.tokens == (sizes[0] + 1) * seen.right or not seen.right
