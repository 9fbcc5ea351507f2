"""T-PPO's partial rollouts (arXiv 2506.15050), without its critic.

A step samples at most `window` tokens of each response, so that no response waits for the longest.
A group with unfinished responses is carried over: in the next step its prompt takes the place of a
new one, and its responses continue. The step in which a group's last response ends trains on the
whole group; until then it teaches nothing.

Marked as ours: the paper learns from every window with a critic (extended GAE), which Ponder does
not have. Without a critic a response has no credit before it ends. Its early windows are learnt
later than they were sampled, as if the policy of the step in which it ends had written them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from .batch import Batch, Context
from .stages import Component, Place, Stage

if TYPE_CHECKING:
    from ..rollout.kinds import RolloutPlan

_STATE = "tppo"


class TPpo(Component):
    """T-PPO's windows without its critic: responses continue over steps (arXiv 2506.15050)."""

    window: int = Field(
        2048, ge=1, le=1_000_000, description="tokens of a response in a step, at most; ours"
    )

    def stages(self) -> Sequence[Stage]:
        return (Continue(), Finished(), CarryOver())

    def plan(self, usual: type[RolloutPlan]) -> type[RolloutPlan]:
        from ..rollout.windows import WindowedPlan

        class Windowed(WindowedPlan, usual):  # type: ignore[misc, valid-type]  # made at runtime
            kind = f"{usual.kind}, windowed"
            window = self.window

        return Windowed


@dataclass(frozen=True, slots=True)
class Continue:
    """Puts the prompts with unfinished responses first, then new ones up to the step's number."""

    at: ClassVar[Place] = "allocate"
    reads: ClassVar[frozenset[str]] = frozenset()
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        carried: list[Any] = context.state.get(_STATE, [])[context.rank :: context.world]
        going_on = [
            replace(context.redraw(group["key"]), begun=tuple(map(tuple, group["begun"])))
            for group in carried
        ]
        prompts = (*going_on, *batch.prompts)[: len(batch.prompts)]
        return replace(batch, prompts=prompts)


@dataclass(frozen=True, slots=True)
class Finished:
    """Keeps the groups that have ended."""

    at: ClassVar[Place] = "select"
    reads: ClassVar[frozenset[str]] = frozenset({"open"})
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        return batch.keep(batch.per_group(_ended, "open"))


def _ended(open_G: Tensor) -> Tensor:
    """Whether all responses of a group have ended; (G,) bool.

    >>> _ended(torch.tensor([False, True]))
    tensor([False, False])
    """
    return (~open_G.any()).expand(len(open_G))


@dataclass(frozen=True, slots=True)
class CarryOver:
    """Keeps all processes' unfinished groups for the next step."""

    at: ClassVar[Place] = "credit"
    reads: ClassVar[frozenset[str]] = frozenset({"open"})
    makes: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, batch: Batch, context: Context) -> Batch:
        lines = [
            json.dumps({"key": prompt.key, "begun": [r.of("response") for r in rollouts]}) + "\n"
            for prompt, rollouts in _unfinished(context.sampled)
        ]
        told = torch.tensor([*"".join(lines).encode()], dtype=torch.double)
        everyone, _ = context.gather(told)
        groups = map(json.loads, bytes(everyone.int().tolist()).split(b"\n")[:-1])
        context.state[_STATE] = sorted(groups, key=lambda group: str(group["key"]))
        return batch


def _unfinished(batches: Sequence[Batch]) -> list[tuple[Any, Any]]:
    """(prompt, its rollouts) of the groups with an open response."""
    return [
        (prompt, batch.rollouts[low:high])
        for batch in batches
        for prompt, (low, high) in zip(batch.prompts, batch.bounds, strict=True)
        if batch["open"][low:high].any()
    ]
