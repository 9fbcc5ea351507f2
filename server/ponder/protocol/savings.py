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
    """One measure in one arm: how many carried it, in how many conversations, and its mean."""

    count: int
    conversations: int
    mean: Estimate | None


class MeasureReport(BaseModel):
    """One measure in both arms, with 95 % intervals clustered by conversation.

    `difference` is policy − holdout and `ratio` policy / holdout, so that a difference below 0
    and a ratio below 1 are savings. Both are null while there is insufficient data, until about
    `more_needed` more are counted over both arms; that is null where nobody is held out.
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

    `forced` is the share of answers that a cut preceded, `empty` that of requests which ended
    with `no_answer_produced`.
    """

    feedback: MeasureReport
    verifier: MeasureReport
    forced: MeasureReport
    empty: MeasureReport


class SheddingReport(BaseModel):
    """What load shedding changed, of the requests that came while budgets were shed.

    `policy` are those that it was drawn for, `holdout` those that it spares: a draw of its own, so
    that neither this nor the savings hold the other's effect. Feedback is not told apart.
    """

    tokens: MeasureReport
    seconds: MeasureReport
    verifier: MeasureReport
    forced: MeasureReport
    empty: MeasureReport


class SavingsReport(BaseModel):
    """What the saving policy changed, by intention to treat.

    `tokens` and `seconds` are per request, of all that was sampled or appended for it: thinking,
    forced, answer, retry and probe. `since` is when the experiment began, in seconds since 1970;
    it begins anew where the model, the budgets or the holdout are set otherwise. `status` and
    `more_requests_needed` are those of `tokens`. `load` is there where the server sheds load.
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
