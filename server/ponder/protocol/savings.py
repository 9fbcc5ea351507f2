"""`GET /v1/ponder/savings` and `POST /v1/ponder/{id}/feedback`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ponder.experiment.holdout import Arm
from ponder.experiment.moments import Comparison, Estimate, Moments, Status, compare
from ponder.protocol.fields import Strict

Score = Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)]


class FeedbackRequest(Strict):
    """How good a response was, from 0 to 1. A later score replaces an earlier one."""

    score: Score


class Feedback(BaseModel):
    object: Literal["ponder.feedback"] = "ponder.feedback"
    id: str
    score: float


class ArmReport(BaseModel):
    """One measure in one arm: the count of its values, of their conversations, and its mean."""

    count: int
    conversations: int
    mean: Estimate | None


class MeasureReport(BaseModel):
    """One measure in both arms, with 95 % intervals clustered by conversation.

    `difference` is policy − holdout and `ratio` policy / holdout, so that a difference below 0
    and a ratio below 1 are savings. Both are null while there is insufficient data: both arms
    together need about `more_needed` more values, null where no conversation is held out.
    """

    status: Status | str
    more_needed: int | None
    policy: ArmReport
    holdout: ArmReport
    difference: Estimate | None
    ratio: Estimate | None

    @classmethod
    def of(cls, policy: Moments, holdout: Moments, share: float) -> MeasureReport:
        found = compare(policy, holdout, share)
        return cls(
            status=found.status,
            more_needed=found.more_needed,
            policy=_arm(policy, found, "policy"),
            holdout=_arm(holdout, found, "holdout"),
            difference=found.difference,
            ratio=found.ratio,
        )


class QualityReport(BaseModel):
    """`feedback` and `verifier` are scores from 0 to 1 per rated response and judged answer.

    `forced` is the share of answers that a cut preceded, `empty` the share of requests that ended
    with `no_answer_produced` or `answer_did_not_fit`.
    """

    feedback: MeasureReport
    verifier: MeasureReport
    forced: MeasureReport
    empty: MeasureReport


class SheddingReport(BaseModel):
    """The effect of load shedding, among the requests that came while budgets were shed.

    `policy` are the requests drawn for shedding, `holdout` the spared ones: an independent draw, so
    that neither this report nor the savings contain the other's effect. It has no feedback.
    """

    tokens: MeasureReport
    seconds: MeasureReport
    verifier: MeasureReport
    forced: MeasureReport
    empty: MeasureReport


class SavingsReport(BaseModel):
    """The effect of the saving policy, by intention to treat.

    `tokens` and `seconds` are per request, over all tokens sampled or appended for it: thinking,
    forced, answer, retry and probe. `since` is when the experiment began, in seconds since 1970; a
    change of the model, the budgets or the holdout begins a new one. `status` and
    `more_requests_needed` are those of `tokens`. `load` is there if the server sheds load.
    """

    object: Literal["ponder.savings"] = "ponder.savings"
    status: Status | str
    more_requests_needed: int | None
    holdout: float
    experiment: str
    since: float
    tokens: MeasureReport
    seconds: MeasureReport
    quality: QualityReport
    load: SheddingReport | None = None


def _arm(moments: Moments, found: Comparison, arm: Arm) -> ArmReport:
    return ArmReport(
        count=round(moments.count),
        conversations=round(moments.conversations),
        mean=found.means[arm],
    )
