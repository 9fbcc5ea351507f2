"""T1's anchor and its truncate-and-answer probe (arXiv 2501.11651).

Anchor: the policy is held near a reference that follows it, an exponential moving average of its
weights, so that it can move far in small steps:

  objective - β·KL,  KL = exp(log π̄/π) - log π̄/π - 1 per token,  θ̄ ← d·θ̄ + (1 - d)·θ per update

Probe: thoughts are cut after shares of their tokens, closed and answered. Every step measures the
accuracy at each cut (`probe_accuracy_50`) and learns nothing from it. A policy that needs its
thoughts loses accuracy where they are cut.

T1's oversampling is `method.group_size` with the temperature of its recipe. The available text
gives the rules; β, d, the estimator of KL (GRPO's) and the cuts are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field, model_validator

from .kernel import LossInputs, Objective, PerToken
from .stages import Component

if TYPE_CHECKING:
    from ..rollout.kinds import RolloutPlan

REFERENCE = "reference_log_probs"
"""The column (B, T) of an objective's inputs with the anchor's log-probabilities, which an engine
with an anchor makes.
"""


class T1(Component):
    """T1: a reference that follows the policy, and thoughts that are probed (arXiv 2501.11651)."""

    wraps: ClassVar[bool] = True

    beta: float = Field(0.001, ge=0, le=10, description="weight of KL (β); 0 for no anchor; ours")
    decay: float = Field(0.99, ge=0, lt=1, description="decay of the anchor, per update (d); ours")
    cuts: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(
        (0.0, 0.25, 0.5, 0.75),
        max_length=16,
        description="shares of a thought after which to answer",
    )
    probed: int = Field(1, ge=1, le=1024, description="rollouts of a prompt that are probed")
    answer_tokens: int = Field(
        32, ge=1, le=1_000_000, description="tokens of a probe's answer, at most"
    )

    @model_validator(mode="after")
    def _cuts_differ(self) -> T1:
        if len({round(100 * cut) for cut in self.cuts}) < len(self.cuts):
            raise ValueError(f"cuts {self.cuts} must differ by a percent: remove one")
        return self

    @property
    def anchor(self) -> float | None:
        return self.decay if self.beta else None

    @property
    def probe_tokens(self) -> int:
        return self.answer_tokens if self.cuts else 0

    def around(self, objective: Objective) -> Objective:
        return Anchored(objective, self.beta) if self.beta else objective

    def plan(self, usual: type[RolloutPlan]) -> type[RolloutPlan]:
        from ..rollout.kinds import PlainPlan
        from ..rollout.probes import PROBE, ProbedPlan

        if not self.cuts or not issubclass(usual, PlainPlan):
            return usual

        class Probed(ProbedPlan, usual):  # type: ignore[misc, valid-type]  # a base made at runtime
            kind = usual.kind
            ragged = usual.ragged
            makes = usual.makes | {f"{PROBE}{round(100 * cut)}" for cut in self.cuts}
            cuts = self.cuts
            probed = self.probed
            answer_tokens = self.answer_tokens

        return Probed


@dataclass(frozen=True, slots=True)
class Anchored:
    """An objective less β·KL to the anchor; `anchor_kl` is the KL of all tokens that count.

    >>> class Nothing:
    ...     reads = frozenset()
    ...
    ...     def __call__(self, rows):
    ...         return PerToken(torch.zeros_like(rows.mask_BT), {})
    >>> mask, old = torch.tensor([[1.0, 1.0, 0.0]]), torch.zeros(1, 3)
    >>> columns = {REFERENCE: torch.tensor([[-1.0, -2.0, -3.0]])}
    >>> rows = LossInputs(torch.tensor([[-1.0, -1.0, -9.0]]), old, old, mask, columns)
    >>> Anchored(Nothing(), beta=0.5)(rows).per_token_BT
    tensor([[ 0.0000, -0.1839,  0.0000]])
    """

    inner: Objective
    beta: float

    @property
    def reads(self) -> frozenset[str]:
        return self.inner.reads | {REFERENCE}

    def __call__(self, rows: LossInputs) -> PerToken:
        found = self.inner(rows)
        log_ratio_BT = rows.column(REFERENCE) - rows.log_probs_BT
        log_ratio_BT = torch.where(rows.mask_BT > 0, log_ratio_BT, 0).clamp(-20, 20)
        kl_BT = log_ratio_BT.exp() - log_ratio_BT - 1
        stats = {**found.stats, "anchor_kl": kl_BT.detach().sum()}
        return PerToken(found.per_token_BT - self.beta * kl_BT, stats)
