"""The seam between the loop and an engine: samples, gradients, processes, checkpoints.

The loop (`run.loop`) knows steps and problems; an engine knows a model, its optimizer, and the
processes over which both may be sharded. An engine knows no method: rows come with their
advantages, and the objective is a function that the engine calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from ponder.engine.tokenizer import ModelFiles
from ponder.errors import TrainingError

from ..method.kernel import Objective
from ..rollout.drive import Sampler
from ..rollout.experience import Share
from ..rollout.rows import Row
from ..run.recipe import PolicyRecipe

Weights = Callable[[], Iterator[tuple[str, torch.Tensor]]]
"""Names and whole tensors. Every call begins anew, with equal names in equal order; where several
processes train, all of them iterate together.
"""

Packed = Sequence[Any]
"""The rows of an update in the engine's own form, such as micro-batches."""


class Diverged(TrainingError):
    """The loss or its gradient is NaN or infinite; the message names the update and the remedy."""

    def __init__(self, what: str, value: float, update: int) -> None:
        super().__init__(
            f"the {what} is {value} at update {update}: train again into another directory with a "
            "smaller learning_rate or clip_norm; the last checkpoint is from before"
        )


class WorkersLost(TrainingError):
    """A worker or a server that a run needs failed or died; the message says what is known of the
    failure, and the remedy.
    """


class CheckpointError(TrainingError):
    """A checkpoint that cannot be continued; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """The measurements of one update.

    `sums` are this process's: the `loss`, the objective's counts (`Objective.stats`), and the
    `entropy` in nats, over the learnt tokens.
    """

    grad_norm: float  # over all processes, before clipping
    learning_rate: float
    sums: Mapping[str, float]


class TrainingEngine(Protocol):
    """One model in training, on all processes of a run.

    Every process calls the same methods in the same order, because most of them synchronise the
    processes. Only the calls of a `sampler` may differ in number, and come from another thread. The
    loop makes an update as follows:

        with engine.sampler() as sample:
            experience = collector.collect(step, sample, engine.share)
        packed = engine.pack(experience.updates[0], remember=False)
        engine.update(packed, objective, denominator=learnt_tokens)
    """

    @property
    def share(self) -> Share:
        """This process's number, and how many there are."""

    @property
    def updates(self) -> int:
        """Optimizer updates so far, including those before a resume."""

    def sampler(self, greedy: bool = False) -> AbstractContextManager[Sampler]:
        """Samples from the current weights, at the recipe's temperature or the likeliest token."""

    def pack(self, rows: Sequence[Row], remember: bool, behind: int = 0) -> Packed:
        """The rows of one update in the form of `update`, in passes of similar numbers of tokens.

        `remember`: score the rows now, under the weights that sampled them, for an update that
        follows another one. The first update after the rollouts needs no such scores, because the
        current weights are still the sampling ones.

        `behind`: updates since the weights that sampled the rows. Even so, the old
        log-probabilities are the current weights', and `correction` weighs the difference.
        """

    def update(
        self,
        packed: Packed,
        objective: Objective,
        denominator: float,
    ) -> Learnt:
        """One optimizer step on the mean of `objective` over the rows of all processes.

        The mean is the sum over tokens, divided by the sum over processes of `denominator`.
        Raises `Diverged` before a loss or a gradient that is not finite touches the weights.
        """

    def reduce(self, values: Mapping[str, float]) -> dict[str, float]:
        """The sum of each value over the processes; all of them get it."""

    def wait(self) -> None:
        """Return when all processes have called this."""

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Whole tensors under their checkpoint's names, one at a time, adapters merged."""

    @property
    def model(self) -> Any:
        """The transformers model for its configuration; its weights may be sharded."""

    def save_adapters(self, directory: Path) -> None:
        """Write the low-rank adapters alone, as PEFT loads them; do nothing without adapters.

        Every process calls this; the main process writes.
        """

    def save(self, directory: Path) -> None:
        """Write a checkpoint for `resume`: weights, optimizer, schedule, random state."""

    def resume(self, directory: Path) -> None:
        """Continue from a checkpoint of `save`. Raises `CheckpointError` for any other."""

    def report(self, update: int, figures: Mapping[str, float]) -> None:
        """Tell the trackers (TensorBoard, W&B, …) the figures after `update` optimizer updates."""

    def show(self, update: int, samples: Sequence[Mapping[str, object]]) -> None:
        """Give some rollouts to those trackers that show texts."""

    def close(self) -> None:
        """End the run: trackers write what they hold."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Properties of an engine that a forecast needs.

    `trees`: summaries share a row with their thought; otherwise each summary is a row of its own.
    `sharded`: each process holds only its part of weights, gradients and optimizer.
    """

    trees: bool = True
    sharded: bool = False


class EngineKind(Protocol):
    """A class of engines, as `table.ENGINES` names it."""

    __name__: str
    costs: Costs

    def __call__(self, base: ModelFiles, recipe: PolicyRecipe, out: Path) -> TrainingEngine:
        """An engine that trains the checkpoint `base` by `recipe`; trackers write below `out`."""

    def check(self, recipe: PolicyRecipe, launched: int) -> None:
        """Raise `RecipeError` for a setting that this engine lacks, before anything is loaded.

        `launched` is the number of processes that torchrun or accelerate has started.
        """
