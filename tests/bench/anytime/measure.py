"""Asking a model under every arm: caps by one thought that is cut at all of them, as calibration
does, exits by a server.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from ponder.evaluation.evaluate import Condition, evaluate, sample_seed
from ponder.evaluation.protocol import Ask, Responder
from ponder.evaluation.responders.http import HttpResponder
from ponder.evaluation.responders.local import LocalResponder
from ponder.tasks.problems import Problem, Task, at_most
from ponder.tasks.workers import VerifierPool

from ..errors import BenchError
from ..server import running
from .arms import FREE, Arm
from .rows import Half, Rows, rows

SPLITS: dict[Half, str] = {"choosing": "validation", "reporting": "test"}
AT_ONCE = 4
"""Requests with a deadline that are asked side by side; of all others 64 are."""
KNOWN = 0.1
"""Share of right answers, thinking freely, below which a task is left out: where hardly an answer
is right, no rule can differ from another.
"""
_BATCH = 64
"""Problems that are asked between two writes."""


@dataclass(frozen=True, slots=True)
class Asking:
    """Whom to ask what, how often; `problems` are mixed, so that every batch has all kinds."""

    model: Path
    problems: dict[Half, list[Problem]]
    seeds: int
    seed: int

    def settings(self) -> dict[str, Any]:
        """What makes two measurements the same; more problems and seeds are added to it."""
        weights = [
            hashlib.sha256(file.read_bytes()).hexdigest()[:16]
            for file in sorted([*self.model.glob("*.safetensors"), self.model / "ponder.json"])
        ]
        return {"weights": weights, "seed": self.seed}


def drawn(tasks: Sequence[Task], n: int, half: Half, seed: int) -> list[Problem]:
    """Up to `n` problems of each task, from the split of this half. Raises `BenchError`."""
    found: list[Problem] = []
    for task in tasks:
        mine = at_most([task], n, SPLITS[half], seed)
        if len(mine) < n:
            raise BenchError(f"{task.name} has {len(mine)} {SPLITS[half]} problems: ask for fewer")
        found += mine
    random.Random(seed).shuffle(found)
    return found


def answerable(asking: Asking, found: Rows) -> tuple[Asking, dict[str, float]]:
    """Whom to ask about the tasks that the model knows, and what share of the others it has right.

    Free thoughts about the problems for choosing tell. Raises `BenchError` where none is known.
    """
    choosing = asking.problems["choosing"]
    right = found.answers("choosing", [FREE.name] * len(choosing), choosing, asking.seeds)
    shares = {
        task: float(right.of([at for at, p in enumerate(choosing) if p.family == task])
                    .correct_PS.mean())
        for task in sorted({problem.family for problem in choosing})
    }  # fmt: skip
    left_out = {task: share for task, share in shares.items() if share < KNOWN}
    if len(left_out) == len(shares):
        raise BenchError(
            f"{asking.model.name} answers fewer than one in {1 / KNOWN:.0f} in every task: name "
            "others with --tasks"
        )
    problems = {
        half: [problem for problem in of if problem.family not in left_out]
        for half, of in asking.problems.items()
    }
    return replace(asking, problems=problems), left_out


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks what is lacking, and keeps it in `found`; the answers are judged by `pool`."""

    asking: Asking
    found: Rows
    pool: VerifierPool

    async def caps(self, half: Half, arms: Sequence[Arm]) -> None:
        """One half under all caps, in this process."""
        if any(True for _ in self._left(half, arms)):
            responder = LocalResponder.on_vllm(self.asking.model)
            try:
                await self._ask(half, arms, responder)
            finally:
                await responder.close()

    async def exits(self, half: Half, arms: Sequence[Arm], url: Callable[[], str]) -> None:
        """One half under exits, one after the other; a server is begun when one is lacking."""
        for arm in arms:
            if any(True for _ in self._left(half, [arm])):
                async with _responder(url(), arm) as responder:
                    await self._ask(half, [arm], responder)

    async def _ask(self, half: Half, arms: Sequence[Arm], responder: Responder) -> None:
        conditions = {_condition(arm): arm for arm in arms}
        for batch in self._left(half, arms):
            began = time.perf_counter()
            samples = await evaluate(
                responder,
                batch,
                pool=self.pool,
                conditions=list(conditions),
                samples=self.asking.seeds,
                seed=self.asking.seed,
                advance=lambda _: None,
            )
            for condition, arm in conditions.items():
                of = [sample for sample in samples if sample.condition == condition]
                self.found.add(rows(half, arm.name, of))
            took = time.perf_counter() - began
            print(
                f"{self.asking.model.name}  {half}  {arms[0].name}"
                f"{f' and {len(arms) - 1} other caps' if len(arms) > 1 else ''}: "
                f"{len(samples):,} answers, {len(samples) / took:.0f} a second",
                flush=True,
            )

    def _left(self, half: Half, arms: Sequence[Arm]) -> Iterator[list[Problem]]:
        """Problems that an arm has not been asked yet, some at a time."""
        left = [
            problem
            for problem in self.asking.problems[half]
            if any(self.found.lacks(half, arm.name, problem, self.asking.seeds) for arm in arms)
        ]
        for start in range(0, len(left), _BATCH):
            yield left[start : start + _BATCH]


@contextmanager
def serving(model: Path, log: Path) -> Iterator[str]:
    """The URL of a real `ponder serve`."""
    with running("ponder", model, "", log) as server:
        yield f"http://127.0.0.1:{server.port}"


async def wall_seconds(
    asking: Asking, arm: Arm, url: str, problems: Sequence[Problem], at_once: int
) -> float:
    """Seconds until all of some problems are answered, `at_once` of them side by side."""
    seeds, hint = [sample_seed(asking.seed, p, 0) for p in problems], _condition(arm).hint
    asks = iter(
        [
            Ask(problem.question, seed, (arm.budget,), hint, problem.tools)
            for problem, seed in zip(problems, seeds, strict=True)
        ]
    )

    async with _responder(url, arm) as responder:

        async def worker() -> None:
            for ask in asks:
                await responder.answer([ask], lambda _: None)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(worker())
        return time.perf_counter() - began


@asynccontextmanager
async def _responder(url: str, arm: Arm) -> AsyncGenerator[HttpResponder]:
    # Under a full load no deadline leaves time for a thought.
    most = httpx.Limits(max_connections=AT_ONCE if arm.method == "deadline" else None)
    transport = httpx.AsyncHTTPTransport(limits=most)
    responder = HttpResponder(url, ponder=arm.asked, transport=transport)
    try:
        await responder.subject()
        yield responder
    finally:
        await responder.close()


def _condition(arm: Arm) -> Condition:
    return Condition("truncated" if arm.method == "untold" else "served", arm.budget)
