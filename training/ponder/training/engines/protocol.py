"""The seam between the loop and what trains: samples, gradients, processes, checkpoints.

The loop (`run.loop`) knows steps and problems; an engine knows a model, its optimizer, and the
processes over which both may be sharded. It knows no method: rows come with their advantages, and
the objective is a function that it calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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

Packed = Sequence[Any]
"""What an engine made of the rows of an update, for itself: micro-batches where it likes."""


class Diverged(TrainingError):
    """The loss or its gradient is NaN or infinite; the message names the update and the remedy."""

    def __init__(self, what: str, value: float, update: int) -> None:
        super().__init__(
            f"the {what} is {value} at update {update}: train again into another directory with a "
            "smaller learning_rate or clip_norm; the last checkpoint is from before"
        )


class WorkersLost(TrainingError):
    """A worker or a server that a run needs failed or died; the message says what is known of it,
    and the remedy.
    """


class CheckpointError(TrainingError):
    """A checkpoint that cannot be continued; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What one update measured.

    `sums` are this process's: the `loss`, the objective's counts (`Objective.stats`), and the
    `entropy` in nats over the tokens that count.
    """

    grad_norm: float  # over all processes, before clipping
    learning_rate: float
    sums: Mapping[str, float]


class TrainingEngine(Protocol):
    """One model in training, on all processes of a run.

    Every process calls the same methods in the same order, since the processes meet in most of
    them; only what a `sampler` draws may differ in number, and in its thread. An update, as the
    loop makes it:

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
        """Optimizer updates so far, those before a resume among them."""

    def sampler(self, greedy: bool = False) -> AbstractContextManager[Sampler]:
        """Samples from the current weights, at the recipe's temperature or the likeliest token."""

    def pack(self, rows: Sequence[Row], remember: bool, behind: int = 0) -> Packed:
        """The rows of one update as `update` takes them, in passes of similar numbers of tokens.

        `remember`: score the rows under the current weights, which sampled them, for an update
        that comes after another one. The first update after the rollouts needs no memory: there
        the current weights are those that sampled.

        `behind`: updates since the weights that sampled the rows. The old log-probabilities are
        those of the current weights even so, and `correction` weighs the difference.
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
        """Return when all processes are here."""

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The model as its checkpoint names it: whole tensors, one at a time, adapters merged."""

    @property
    def model(self) -> Any:
        """The transformers model for its configuration; its weights may be sharded."""

    def save_adapters(self, directory: Path) -> None:
        """Write low-rank adapters by themselves, as PEFT loads them; nothing where there are none.

        Every process calls it, the main one writes.
        """

    def save(self, directory: Path) -> None:
        """Write what `resume` needs: weights, optimizer, schedule, random state."""

    def resume(self, directory: Path) -> None:
        """Go on from what `save` wrote. Raises `CheckpointError` for what others wrote."""

    def report(self, update: int, figures: Mapping[str, float]) -> None:
        """Tell the trackers (TensorBoard, W&B, …) the figures after `update` optimizer updates."""

    def show(self, update: int, samples: Sequence[Mapping[str, object]]) -> None:
        """Give some rollouts to those trackers that show texts."""

    def close(self) -> None:
        """The run has ended: trackers write what they hold."""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a forecast has to know of an engine.

    `trees`: summaries share a row with their thought, which are rows of their own without.
    `sharded`: each process always holds its part of weights, gradients and optimizer alone.
    """

    trees: bool = True
    sharded: bool = False


class EngineKind(Protocol):
    """A class of engines, as `table.ENGINES` names it."""

    __name__: str
    costs: Costs

    def __call__(self, base: ModelFiles, recipe: PolicyRecipe, out: Path) -> TrainingEngine:
        """The checkpoint `base` in training by `recipe`; what trackers write is below `out`."""

    def check(self, recipe: PolicyRecipe, launched: int) -> None:
        """Raises `RecipeError` for what this engine cannot do. Asked before anything is loaded.

        `launched` is the number of processes that torchrun or accelerate has started.
        """
