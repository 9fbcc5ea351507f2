"""Stages: the steps from rollouts to advantages, each at a place, in an order that is checked.

A stage is a function of a batch and its context. A method is a list of stages; a component is one
or several stages that a recipe adds to any method.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, get_args

from pydantic import BaseModel, ConfigDict

from .batch import Batch, Context
from .kernel import Objective

if TYPE_CHECKING:
    from ..rollout.kinds import RolloutPlan

Place = Literal["allocate", "edit", "reward", "select", "credit", "normalise", "weight"]

PLACES: tuple[Place, ...] = get_args(Place)
"""The places, in the order in which their stages run.

allocate   before sampling: how many rollouts each prompt gets (`sizes`)
edit       changes rollouts, and has them judged again
reward     makes `reward`
select     keeps the rollouts to learn from; dropped groups are replaced by others
credit     compares rewards: makes `centred`, or `advantage`
normalise  from `centred` to `advantage`
weight     changes the advantages

The stages up to `select` run again for every batch that is drawn in a step; the others run once.
"""

FIRST: tuple[Place, ...] = ("allocate",)
EVERY: tuple[Place, ...] = ("edit", "reward")
LAST: tuple[Place, ...] = ("credit", "normalise", "weight")


class Stage(Protocol):
    """One step: `reads` names the columns that it needs, `makes` the columns that it fills.

    `kernel.ClippedObjective` then uses the advantages. Example of a whole stage:

        >>> import torch
        >>> class HalfForLong:
        ...     at = "weight"
        ...     reads = frozenset({"advantage", "length"})
        ...     makes = frozenset({"advantage"})
        ...
        ...     def __call__(self, batch, context):
        ...         share_B = torch.where(batch["length"] > 512, 0.5, 1.0)
        ...         return batch.with_columns(advantage=batch["advantage"] * share_B)
        >>> columns = {"advantage": torch.tensor([1.0, -1.0]), "length": torch.tensor([600, 9])}
        >>> HalfForLong()(Batch((), (2,), columns=columns), context=None)["advantage"]
        tensor([ 0.5000, -1.0000])
    """

    @property
    def at(self) -> Place: ...
    @property
    def reads(self) -> frozenset[str]: ...
    @property
    def makes(self) -> frozenset[str]: ...

    def __call__(self, batch: Batch, context: Context) -> Batch: ...


class Component(BaseModel):
    """An entry of `method.add`: its settings, and the stages that it adds to a method.

    A component with one stage is that stage itself: it sets `at`, `reads` and `makes`, and a run
    calls it with a batch. A component with several stages overrides `stages`. A component that
    changes the objective overrides `around`. A component with rollouts of its own overrides `plan`;
    if it `wraps`, it gets the plan that the other components made. `predicts`: its stages call
    `context.predict`; `rescores`: they call `context.score`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    at: ClassVar[Place]
    reads: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[frozenset[str]] = frozenset()
    predicts: ClassVar[bool] = False
    rescores: ClassVar[bool] = False
    wraps: ClassVar[bool] = False

    def __call__(self, batch: Batch, context: Context) -> Batch:
        raise NotImplementedError(f"{type(self).__name__} has no stage of its own")

    def stages(self) -> Sequence[Stage]:
        """The component itself if it has a place; no stage if it only wraps the objective."""
        return (self,) if hasattr(self, "at") else ()

    @property
    def anchor(self) -> float | None:
        """Decay of the anchor, an average of the weights in training; None without an anchor."""
        return None

    @property
    def probe_tokens(self) -> int:
        """Most tokens of an answer that a probe draws behind a whole response; 0 without probes."""
        return 0

    def around(self, objective: Objective) -> Objective:
        """The objective with this component in it; the same unless overridden."""
        return objective

    def plan(self, usual: type[RolloutPlan]) -> type[RolloutPlan]:
        """The plan that replaces the method's own; the same unless overridden."""
        return usual

    def notes(self, group_size: int) -> Iterator[str]:
        """Sentences for the user before the run starts.

        Raises `ValueError` for groups too small for the component.
        """
        yield from ()


def ordered(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """The stages by place; stages of one place stay in their given order."""
    return tuple(sorted(stages, key=lambda stage: PLACES.index(stage.at)))


def check(stages: Sequence[Stage], columns: frozenset[str], ragged: bool) -> frozenset[str]:
    """The columns that rollouts with `columns` have after all stages, which are in order.

    Raises `ValueError` where a stage reads a column that nothing before it makes, or allocates
    rollouts whose number is fixed (`ragged` false), or where no stage makes an advantage.
    """
    for stage in stages:
        name = type(stage).__name__
        if stage.at == "allocate":
            if not ragged:
                raise ValueError(f"{name} allocates rollouts, and here their number is fixed")
            continue
        if missing := sorted(stage.reads - columns):
            raise ValueError(
                f"{name} (at {stage.at}) reads {', '.join(missing)}, which nothing before it "
                f"makes: there are {', '.join(sorted(columns))}"
            )
        columns |= stage.makes
    if "advantage" not in columns:
        raise ValueError("no stage makes `advantage`: one at credit or normalise must")
    return columns


def run(stages: Iterable[Stage], places: Sequence[Place], batch: Batch, context: Context) -> Batch:
    """The batch after the stages at `places`."""
    for stage in stages:
        if stage.at in places:
            batch = stage(batch, context)
    return batch
