"""`python -m tests.bench.loops`: how many thoughts that end by themselves, and right, would have
been closed as loops, and how many of these would have been answered wrong: the false alarms.

Models think about small problems without a budget and without the loop exit. Each thought that ends
by itself with a right answer is then read as the exit reads it; one that it would have closed is
asked again with the exit. Finished samples are kept in the file that is written: a run that was
interrupted goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

from ponder.checkpoint.chat import Prompt
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.protocol import Chunk, Engine, Load, Sampling
from ponder.engine.table import load_engine
from ponder.engine.tokenizer import ModelFiles
from ponder.evaluation.intervals import wilson
from ponder.tasks.problems import Problem, Task
from ponder.tasks.sources import find_tasks
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import UNLIMITED, Ask, Limits
from ponder.thought.drive import drive
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.exits.loop import AFTER, COVERED, Loop
from ponder.thought.outcome import Outcome
from ponder.thought.thought import Event, Thought

from . import machine
from .errors import BenchError, ended
from .scenario import BUNDLED, ROOT

TEMPERATURES = (0.0, 0.6, 1.0)
THOUGHTS = 2000
"""Thoughts that end by themselves and right, of each model at each temperature."""
MOST = 1 / 1000
"""Share of false alarms."""
_BATCH = 256
_CHUNK_TOKENS = 32
_SAMPLES = 8 * THOUGHTS  # a model that is right less often is none to ask


@dataclass(slots=True)
class Found:
    """Thoughts of one model at one temperature: sampled, and of them ended by themselves and right.

    Of these `reached` had the 256 tokens from which the exit looks; `closed` it would have closed,
    and `earlier` as many if it looked from the first 64 tokens on. Of the closed, `harmed` are
    false alarms: answered wrong when they are closed. All together are `saved` tokens shorter.
    """

    model: str
    temperature: float
    sampled: int = 0
    right: int = 0
    tokens: int = 0
    reached: int = 0
    closed: int = 0
    earlier: int = 0
    harmed: int = 0
    saved: int = 0

    def add(self, thought: Sequence[int]) -> None:
        self.right += 1
        self.tokens += len(thought)
        self.reached += len(thought) >= AFTER


class Sampler:
    """A model on vLLM, thinking as it is served, but for the loop exit."""

    def __init__(self, model: Path) -> None:
        self._checkpoint = Checkpoint.load(ModelFiles.find(str(model)))
        load = Load(
            name=str(model),
            directory=model,
            served_as=model.name,
            vocabulary=self._checkpoint.tokenizer,
        )
        self._engine: Engine = load_engine("vllm", load)

    def close(self) -> None:
        self._engine.shutdown()

    async def sample(self, found: Found, problems: Sequence[tuple[Task, Problem]]) -> None:
        """Think once about each problem, all side by side."""
        one = partial(self._one, found)
        async with asyncio.TaskGroup() as group:
            for number, (task, problem) in enumerate(problems, found.sampled):
                group.create_task(one(number, task, problem))
        found.sampled += len(problems)

    async def _one(self, found: Found, number: int, task: Task, problem: Problem) -> None:
        checkpoint = self._checkpoint
        prompt = checkpoint.prompt(
            [{"role": "user", "content": problem.question}],
            Ask(budget=UNLIMITED),
            Limits(max_model_len=self._engine.facts.max_model_len),
        )
        sampling = Sampling(
            max_tokens=1, temperature=found.temperature, seed=number, chunk_tokens=_CHUNK_TOKENS
        )
        thought = checkpoint.thought(prompt, sampling)
        outcome, right = await self._right(thought, f"loops-{number}", task, problem)
        if outcome.end_cause != "natural" or not right:
            return
        found.add(thought.thinking_ids)
        found.earlier += self._closes(prompt, thought.thinking_ids, COVERED)
        if self._closes(prompt, thought.thinking_ids, AFTER):
            found.closed += 1
            closed = checkpoint.thought(prompt, sampling, exits=[Loop()])
            _, right = await self._right(closed, f"loops-{number}-closed", task, problem)
            found.harmed += not right
            found.saved += len(thought.thinking_ids) - len(closed.thinking_ids)

    def _closes(self, prompt: Prompt, ids: Sequence[int], after: int) -> bool:
        """Whether the exit, looking from `after` tokens on, would have closed this thought."""
        thought = self._checkpoint.thought(prompt, Sampling(max_tokens=1), exits=[Loop(after)])
        thought.start(0.0)
        if prompt.form is not None and prompt.form.opened_by == "model":
            thought.feed(Chunk(self._checkpoint.tokenizer.encode(prompt.form.start.seen)), 0.0)
        thought.feed(Chunk(ids), 0.0)
        return thought.outcome.thought_ended_at is not None

    async def _right(
        self, thought: Thought, name: str, task: Task, problem: Problem
    ) -> tuple[Outcome, bool]:
        """How a thought ends, and whether it is answered right."""
        answer: list[Event] = []
        try:
            await drive(thought, self._engine, name, answer.append)
        except NoAnswerProduced:
            return thought.outcome, False
        said = "".join(event.text for event in answer if isinstance(event, AnswerDelta))
        return thought.outcome, task.verify(problem, said)


def problems(tasks: Sequence[Task], count: int, start: int) -> list[tuple[Task, Problem]]:
    """Problems `start` to `start + count` of an endless row that is always the same."""
    drawn = []
    for number in range(start, start + count):
        rng = Random(f"loops/{number}")
        task = tasks[number % len(tasks)]
        drawn.append((task, task.sample(rng, rng.choice(task.difficulties))))
    return drawn


async def measure(options: argparse.Namespace) -> None:
    """Sample what is missing, a batch at a time, and write after each."""
    tasks = find_tasks(options.tasks)
    kept = json.loads(options.out.read_text())["thoughts"] if options.out.exists() else []
    founds = [Found(**entry) for entry in kept]
    for model in options.models:
        sampler = None
        try:
            for temperature in TEMPERATURES:
                found = _of(founds, model, temperature)
                while found.right < options.thoughts:
                    if found.sampled >= _SAMPLES:
                        raise BenchError(f"{model.name} is right too rarely: {found}")
                    sampler = sampler or Sampler(model)
                    await sampler.sample(found, problems(tasks, _BATCH, found.sampled))
                    _write(options.out, founds)
                print(_line(found), flush=True)
        finally:
            if sampler is not None:
                sampler.close()
    _check(founds)


def _of(founds: list[Found], model: Path, temperature: float) -> Found:
    for found in founds:
        if (found.model, found.temperature) == (model.name, temperature):
            return found
    founds.append(Found(model.name, temperature))
    return founds[-1]


def _write(out: Path, founds: Sequence[Found]) -> None:
    about = {"command": "python -m tests.bench.loops", "machine": machine.describe()}
    text = json.dumps({**about, "thoughts": [asdict(found) for found in founds]}, indent=1)
    part = out.with_suffix(".part")
    part.write_text(text + "\n")
    part.replace(out)


def _line(found: Found) -> str:
    return (
        f"{found.model:12} T {found.temperature:g}: {found.right} thoughts of "
        f"{found.tokens / found.right:.0f} tokens, {found.reached} with {AFTER} or more; "
        f"closed {found.closed}, {found.harmed} of them wrong and {found.saved} tokens shorter; "
        f"closed {found.earlier} if it looked from {COVERED} tokens on"
    )


def _check(founds: Sequence[Found]) -> None:
    """Raise `BenchError` unless fewer than one right thought in 1,000 would be answered wrong."""
    right, harmed = (sum(getattr(one, name) for one in founds) for name in ("right", "harmed"))
    share = wilson(harmed / right, right)
    print(
        f"all: {harmed} of {right} answered wrong because they were closed, "
        f"{share.mean:.3%} [{share.low:.3%}, {share.high:.3%}]"
    )
    if harmed >= MOST * right:
        raise BenchError(f"{harmed} false alarms in {right} thoughts: one in 1,000 is too many")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.loops", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("models", type=Path, nargs="*", default=[BUNDLED], help="model directories")
    parser.add_argument("--tasks", nargs="+", default=["tiny"], help="as `ponder eval` names them")
    parser.add_argument("--thoughts", type=int, default=THOUGHTS)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmark-loops.json")
    options = parser.parse_args()
    return ended(lambda: asyncio.run(measure(options)))


if __name__ == "__main__":
    sys.exit(main())
