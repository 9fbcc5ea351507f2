"""Batches without tokens: columns, and the stages that are asked of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from ponder.tasks.problems import Problem
from ponder.training.method.batch import Batch, Context, Prompt
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


def after(config: MethodSettings, batch: Batch, *places: Place) -> Batch:
    """The batch after a method's stages at these places; without any, after all but allocate."""
    return run(Method.of(config).stages, places or PLACES[1:], batch, context())
