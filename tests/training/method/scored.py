"""Batches without tokens: columns, and the stages that are asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from random import Random
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

from ponder.tasks.problems import Problem
from ponder.training.method.batch import Batch, Context, Node, Prompt, Rollout, Scores
from ponder.training.method.presets import Method
from ponder.training.method.settings import MethodSettings
from ponder.training.method.stages import PLACES, Place, run


def prompt(name: str) -> Prompt:
    return Prompt(Problem(f"test:{name}", "test", 1, name, "1"), (1, 2, 3), name)


def scored(sizes: Sequence[int], **columns: Tensor | Sequence[Any]) -> Batch:
    """Groups of these sizes with these columns."""
    prompts = tuple(prompt(f"q{i}") for i in range(len(sizes)))
    made = {name: torch.as_tensor(column) for name, column in columns.items()}
    assert all(len(column) == sum(sizes) for column in made.values())
    return Batch(prompts, tuple(sizes), columns=made)


def context(
    state: dict[str, Any] | None = None,
    reduce: Callable[[Tensor], Tensor] = lambda sums: sums,
    judge: Callable[[Batch], Batch] = lambda batch: batch,
) -> Context:
    return Context(0, Random(0), judge, reduce, {} if state is None else state)


def ranked(
    batches: Sequence[Batch],
    ask: Callable[[Batch, Context], Batch],
    score: Callable[[Sequence[Sequence[int]]], list[Scores]] | None = None,
) -> tuple[list[Batch], list[dict[str, Any]]]:
    """What `ask` makes of the batch of each of several processes, and the state each of them has.

    Threads stand for the processes: `reduce` waits for all of them and adds up in their order.
    """
    world = len(batches)
    meet = Barrier(world, timeout=10)
    brought: list[Tensor] = [torch.empty(0)] * world

    def process(rank: int) -> tuple[Batch, dict[str, Any]]:
        def reduce(sums: Tensor) -> Tensor:
            brought[rank] = sums
            meet.wait()
            total = sum(brought[1:], brought[0])
            meet.wait()
            return total

        alone = replace(context({}, reduce), rank=rank, world=world)
        asked = alone if score is None else replace(alone, score=score)
        return ask(batches[rank], asked), asked.state

    with ThreadPoolExecutor(world) as pool:
        found, states = zip(*pool.map(process, range(world)), strict=True)
    return list(found), list(states)


def written(batch: Batch, lengths: Sequence[int]) -> Batch:
    """The batch with a response of so many tokens, all different, in each place."""
    asked = [p for p, size in zip(batch.prompts, batch.sizes, strict=True) for _ in range(size)]
    begins = accumulate(lengths, initial=100)
    rollouts = [
        Rollout(p, (Node(tuple(range(begin, begin + n)), "response"),), n, ())
        for p, begin, n in zip(asked, begins, lengths, strict=False)
    ]
    return batch.with_rollouts(rollouts)


def after(config: MethodSettings, batch: Batch, *places: Place) -> Batch:
    """The batch after a method's stages at these places; without any, after all but allocate."""
    return run(Method.of(config).stages, places or PLACES[1:], batch, context())
