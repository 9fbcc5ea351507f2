"""The methods by name: what each rolls out, rewards, compares and maximises, and its settings.

Defaults are the papers' own (HBPO arXiv 2507.15844, BRPO 2505.13438, HTPO 2605.08283; GRPO and the
length penalty as HBPO's study ran them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from .algorithms import brpo, dapo, grpo, hbpo, htpo
from .algorithms.kernel import Denominator, Objective, Rows, clipped_objective
from .algorithms.outcomes import Advantages, AnytimeOutcomes, Outcomes

_NAME = "which method it is"

Tokens = Annotated[int, Field(ge=1, le=1_000_000)]
Longest = Annotated[
    int, Field(ge=8, le=1_000_000, description="tokens of the longest response (L_max)")
]
Share = Annotated[float, Field(ge=0, le=1)]
ClipHigh = Annotated[float, Field(gt=0, le=10, description="the ratio counts up to 1 + clip_high")]
DualClip = Annotated[
    float | None,
    Field(gt=1, le=1000, description="largest ratio that counts where A < 0; null for none"),
]


def _rising(budgets: tuple[int, ...]) -> tuple[int, ...]:
    if any(low >= high for low, high in pairwise(budgets)):
        raise ValueError(f"{budgets} must rise strictly: sort them, each once")
    return budgets


Budgets = Annotated[tuple[Tokens, ...], Field(min_length=1, max_length=64), AfterValidator(_rising)]


class _Clipped(BaseModel):
    """Groups and the clipped surrogate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group_size: int = Field(16, ge=2, le=1024, description="rollouts per prompt (G)")
    clip_low: float = Field(0.2, gt=0, lt=1, description="the ratio counts down to 1 - clip_low")
    clip_high: ClipHigh = 0.28
    dual_clip: DualClip = 3.0

    @model_validator(mode="after")
    def _clips_nest(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.clip_high:
            raise ValueError(
                f"dual_clip must be above 1 + clip_high = {1 + self.clip_high:g}: raise it, "
                "or set it to null"
            )
        return self


class _Whole(_Clipped):
    """Responses rolled out whole, none longer than `longest`."""

    longest: Longest = 4096


class _Unhinted(_Clipped):
    """No rollout is promised a budget."""

    @property
    def row_budgets(self) -> tuple[None, ...]:
        """The budget promised to each of a prompt's G rollouts."""
        return (None,) * self.group_size

    @property
    def loss_on_hint(self) -> bool:
        return False

    @property
    def count_hint(self) -> bool:
        return False


class _SampledOnce(_Clipped):
    """Every group is learnt from, whatever it earned."""

    @property
    def dynamic_sampling(self) -> bool:
        return False

    @property
    def generation_batches(self) -> int:
        return 1


class _DynamicallySampled(_Whole, _Unhinted):
    """What DAPO adds and HTPO keeps."""

    longest: Longest = 20480
    dual_clip: DualClip = 10.0
    dynamic_sampling: bool = Field(
        True, description="replace groups that are all correct or all wrong by others"
    )
    generation_batches: int = Field(
        10, ge=1, le=1000, description="batches to roll out for one step, at most"
    )
    overlong_buffer: Tokens = Field(
        default_factory=lambda data: data["longest"] // 5,
        description="last tokens of the longest response, which cost; a fifth unless given",
    )
    overlong_factor: float = Field(
        1.0, ge=0, le=100, description="cost of the whole overlong buffer; 0 for none"
    )

    @model_validator(mode="after")
    def _buffer_fits(self) -> Self:
        if self.overlong_buffer > self.longest:
            raise ValueError(f"overlong_buffer must be at most longest = {self.longest}: lower it")
        return self


class GrpoConfig(_Whole, _Unhinted, _SampledOnce):
    """GRPO: correct or not, against the group."""

    method: Literal["grpo"] = Field("grpo", description=_NAME)


class DapoConfig(_DynamicallySampled):
    """DAPO: GRPO with dynamic sampling and a soft overlong penalty."""

    method: Literal["dapo"] = Field("dapo", description=_NAME)


class LengthPenaltyConfig(_Whole, _Unhinted, _SampledOnce):
    """The cosine ablation of HBPO: shorter correct responses earn more, without hints."""

    method: Literal["length-penalty"] = Field("length-penalty", description=_NAME)
    beta: float = Field(4.0, gt=0, le=1000, description="reward of a correct empty response (β)")


class HbpoConfig(_Whole, _SampledOnce):
    """HBPO: subgroups hinted with budgets, compared within and across."""

    method: Literal["hbpo"] = Field("hbpo", description=_NAME)
    budgets: Budgets = Field(
        default_factory=lambda data: hbpo.scaled_budgets(data["longest"]),
        description="tokens that hints promise, rising; L/8, L/4, L/2 and 5L/8 unless given",
    )
    subgroup_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default_factory=lambda data: (
            (data["group_size"] // len(data["budgets"]),) * len(data["budgets"])
        ),
        description="rollouts per budget, in the order of budgets; equal unless given",
    )
    alpha: float = Field(
        default_factory=lambda data: 1 / data["longest"],
        ge=0,
        le=1,
        description="reward lost with every token above the budget (α); 1/L unless given",
    )
    beta: float = Field(4.0, gt=0, le=1000, description="reward of a correct empty response (β)")
    hint: str = Field(
        "I will answer the question within {budget} tokens",
        description="text after the start of the thought; {budget} stands for the tokens",
    )
    loss_on_hint: bool = Field(True, description="learn to write the hint, too")
    count_hint: bool = Field(True, description="count the hint's tokens as the response's")
    format_penalty: float = Field(
        0.0, ge=-100, le=0, description="reward of a response without form; published code: -1"
    )
    skip_all_wrong: bool = Field(
        False, description="learn nothing from questions that no rollout answered"
    )

    @property
    def row_budgets(self) -> tuple[int, ...]:
        """The budget promised to each of a prompt's G rollouts, in their order."""
        plan = zip(self.budgets, self.subgroup_sizes, strict=True)
        return tuple(budget for budget, size in plan for _ in range(size))

    @model_validator(mode="after")
    def _plan_holds(self) -> Self:
        if self.budgets[-1] >= self.longest:
            raise ValueError(
                f"budgets must stay below longest = {self.longest}: lower {self.budgets[-1]}, or "
                "raise longest"
            )
        if len(self.subgroup_sizes) != len(self.budgets):
            raise ValueError(
                f"subgroup_sizes must have one number for each of the {len(self.budgets)} budgets"
            )
        if sum(self.subgroup_sizes) != self.group_size:
            raise ValueError(
                f"subgroup_sizes {self.subgroup_sizes} must add up to group_size = "
                f"{self.group_size}: give uneven ones such as 2,2,4,4,2,2, or make group_size a "
                "multiple of the number of budgets"
            )
        if self.hint.count("{budget}") != 1 or set("{}") & set(self.hint.replace("{budget}", "")):
            raise ValueError("hint must hold {budget} once, and no other braces")
        return self


class BrpoConfig(_Unhinted, _SampledOnce):
    """BRPO: thoughts cut at every budget and summarised, rewarded densely."""

    method: Literal["brpo"] = Field("brpo", description=_NAME)
    group_size: int = Field(8, ge=2, le=1024, description="thoughts per prompt (G)")
    clip_high: ClipHigh = 0.2
    dual_clip: DualClip = None
    budgets: Budgets = Field(
        (2000, 4000, 6000, 8000), description="tokens at which thoughts are cut, rising"
    )
    grace: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="last tokens of a budget in which a cut waits for a clean end, as in serving; "
        "serving's own min(64, 10 %) unless given",
    )
    prior: brpo.Prior = Field(
        "uniform", description="weight of the budgets: base (the last one), uniform, linear"
    )
    decay: float = Field(0.5, gt=0, le=1, description="weight of earlier rewards in V1 (λ)")
    variance_reduction: brpo.VarianceReduction = Field(
        "full", description="baseline: full, the thought's past (v1), its group (v2), none"
    )
    summaries: int = Field(4, ge=1, le=1024, description="summaries per thought and budget (A)")
    summary_tokens: Tokens = Field(
        128, description="tokens of a summary, those that close the thought included"
    )
    summary_advantage: brpo.SummaryAdvantage = Field(
        "decoupled",
        description="decoupled: against the same cut's; last: GRPO on the last budget's alone",
    )

    @property
    def longest(self) -> int:
        """Tokens of the longest thought."""
        return self.budgets[-1]

    @model_validator(mode="after")
    def _summaries_compare(self) -> Self:
        if self.summaries == 1 and self.summary_advantage == "decoupled":
            raise ValueError(
                "summaries must be at least 2, as one is its own mean: raise it, or set "
                "summary_advantage to last"
            )
        return self


class HtpoConfig(_DynamicallySampled):
    """HTPO: DAPO with an objective for each of eight groups of tokens.

    It differs from DAPO beyond the clip, so it needs several updates per rollout, 4 in the paper.
    """

    method: Literal["htpo"] = Field("htpo", description=_NAME)
    sign: htpo.Sign = Field(
        "figure", description="of the branches beyond the clip: the figure's, or released code's"
    )
    hard_below: Share = Field(0.6, description="group accuracy below which a prompt is hard")
    high_entropy_share: Share = Field(0.2, description="tokens of a response with high entropy")
    low_mask_share: Share = Field(0.006, description="low-entropy tokens silenced in group 1")
    high_mask_share: Share = Field(0.02, description="high-entropy tokens silenced in group 6")
    ratio_cap: float = Field(10.0, ge=1, le=1000, description="largest 1/ratio in group 2")


MethodConfig = Annotated[
    GrpoConfig | DapoConfig | HbpoConfig | LengthPenaltyConfig | BrpoConfig | HtpoConfig,
    Field(discriminator="method"),
]

Seen = TypeVar("Seen", Outcomes, AnytimeOutcomes)
Config = TypeVar("Config", bound=_Clipped)


@dataclass(frozen=True, slots=True)
class Method(Generic[Seen, Config]):
    """What a trainer asks of a method; every function is pure and takes the method's config.

    `rollout`: responses as they come, with a budget's hint, or thoughts cut at budgets and
    summarised. `reward` and `advantage` see one or more whole groups. `objective` sees any rows;
    the trainer divides the sum over the batch by `denominator`. `keep`: which groups to learn
    from, (Q,) bool; all where there is none.
    """

    rollout: Literal["plain", "hinted", "truncated"]
    reward: Callable[[Seen, Config], Tensor]
    advantage: Callable[[Tensor, Seen, Config], Advantages]
    objective: Callable[[Rows, Config], Objective] = clipped_objective
    denominator: Denominator = "token_mean"
    keep: Callable[[Seen, Config], Tensor] | None = None


GRPO: Method[Outcomes, GrpoConfig] = Method("plain", grpo.reward, grpo.advantage)
DAPO: Method[Outcomes, DapoConfig] = Method("plain", dapo.reward, grpo.advantage, keep=dapo.keep)
HBPO: Method[Outcomes, HbpoConfig] = Method("hinted", hbpo.reward, hbpo.advantage)
LENGTH_PENALTY: Method[Outcomes, LengthPenaltyConfig] = Method(
    "plain", hbpo.length_penalty, grpo.advantage
)
BRPO: Method[AnytimeOutcomes, BrpoConfig] = Method(
    "truncated", brpo.reward, brpo.advantage, denominator="constant"
)
HTPO: Method[Outcomes, HtpoConfig] = Method(
    "plain", dapo.reward, grpo.advantage, htpo.objective, keep=dapo.keep
)

METHODS: dict[str, Method[Any, Any]] = {
    "grpo": GRPO,
    "dapo": DAPO,
    "hbpo": HBPO,
    "length-penalty": LENGTH_PENALTY,
    "brpo": BRPO,
    "htpo": HTPO,
}
