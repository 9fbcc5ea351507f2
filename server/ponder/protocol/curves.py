"""`GET /v1/ponder/curves`: what each thinking budget gives on each task, by the calibration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from ponder.thought.contract import Contract


class CurvePoint(BaseModel):
    """One budget, -1 for no limit: the accuracy (0 to 1) with its 95 % interval, and what it cost.

    `tokens` is the mean of all tokens of a reply: thinking, forced, answer and retry. `n` counts
    problems.
    """

    budget: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    tokens: float
    n: int


class AutoReport(BaseModel):
    """What `auto` gives beside the best budget, on `n` problems that served to choose neither.

    `difference` is accuracy − best_accuracy, paired, with its 95 % interval. `problems_sha256` is
    the hash of all problems of the task.
    """

    budget: int
    best: int
    accuracy: float
    tokens: float
    best_accuracy: float
    best_tokens: float
    difference: float
    difference_low: float
    difference_high: float
    n: int
    problems_sha256: str


class CurveReport(BaseModel):
    """One task's curve; with `task` null, the curve of all tasks together, with equal weights."""

    task: str | None
    auto: AutoReport
    efforts: dict[str, int]
    points: list[CurvePoint]


class CurvesReport(BaseModel):
    """The curves of the served model; `curves` is empty for a model without a calibration.

    `epsilon` is how far below the best accuracy `auto` may be, at 95 % confidence. `split` is the
    split of the problems, null for the one of `ponder eval`. Half of the problems made the curves,
    the other half the report of each `auto`. `seeds` counts thoughts per problem.
    """

    object: Literal["ponder.curves"] = "ponder.curves"
    model: str
    epsilon: float | None = None
    split: str | None = None
    seeds: int | None = None
    temperature: float | None = None
    versions: dict[str, str] = {}
    curves: list[CurveReport] = []

    @classmethod
    def of(cls, model: str, contract: Contract | None) -> CurvesReport:
        """The report of a model with this contract."""
        curves = contract.curves if contract is not None else None
        calibration = contract.calibration if contract is not None else None
        if curves is None or calibration is None:
            return cls(model=model)
        reports = []
        for auto in calibration.auto:
            curve = curves.curve(auto.task)
            reports.append(
                CurveReport(
                    task=auto.task,
                    auto=AutoReport.model_validate(auto, from_attributes=True),
                    efforts=curve.efforts,
                    points=[
                        CurvePoint.model_validate(point, from_attributes=True)
                        for point in curve.points
                    ],
                )
            )
        return cls(
            model=model,
            epsilon=calibration.epsilon,
            split=calibration.split,
            seeds=calibration.seeds,
            temperature=calibration.temperature,
            versions=calibration.versions,
            curves=reports,
        )
