"""The plots of the results: accuracy, anytime accuracy, length by difficulty, training curves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ponder.evaluation.intervals import Estimate, mean, share
from ponder.evaluation.plots import Curve, draw
from ponder.evaluation.resampling import paired_bootstrap

from .claims import MeasuredArm
from .measure import GRID, NATURAL_SAMPLES, OTHER_SAMPLES
from .records import COLD_START, Record

FIGURES = {
    "accuracy-tokens": "Accuracy against tokens, 95 % intervals over problems",
    "anytime": "Anytime accuracy, 95 % intervals over problems",
    "anytime-gain": "Anytime accuracy over the cold start, 95 % paired intervals",
    "length-difficulty": "Length against difficulty, 95 % intervals over problems",
    "training-accuracy": "Validation accuracy, range of the seeds",
    "training-tokens": "Validation length, range of the seeds",
}
"""File stem → title."""


def draw_figures(
    directory: Path, main: Mapping[str, MeasuredArm], cold: MeasuredArm, cold_record: Record
) -> None:
    """PNG and SVG of every figure: the cold start beside the main arms."""
    shown = {COLD_START: cold, **main}
    draw(
        [
            Curve(name, [float(arm.tokens().mean())], [_accuracy(arm.accuracy(), NATURAL_SAMPLES)])
            for name, arm in shown.items()
        ],
        directory / "accuracy-tokens",
        x_label="mean thinking tokens",
        y_label="accuracy",
        zoom=True,
    )
    draw(
        [
            Curve(name, list(GRID), [_accuracy(at_SP, OTHER_SAMPLES) for at_SP in arm.anytime()])
            for name, arm in shown.items()
        ],
        directory / "anytime",
        x_label="thinking budget (tokens)",
        y_label="accuracy",
    )
    level = np.array([p["difficulty"] for p in cold_record["problems"]])
    levels = sorted(set(level.tolist()))
    draw(
        [
            Curve(
                name,
                levels,
                [mean(arm.tokens()[:, level == at].T.tolist()) for at in levels],
            )
            for name, arm in shown.items()
        ],
        directory / "length-difficulty",
        x_label="difficulty",
        y_label="mean thinking tokens",
        dodge=0.06,
    )
    for_budgets = [name for name in main if name not in ("dapo", "htpo")]
    draw(
        [Curve(name, list(GRID), _gains(main[name], cold)) for name in for_budgets],
        directory / "anytime-gain",
        x_label="thinking budget (tokens)",
        y_label="points over the cold start",
        band=True,
        zoom=True,
        first=1,
    )
    for stem, what, label in (
        ("training-accuracy", "accuracy", "accuracy"),
        ("training-tokens", "thinking_tokens", "mean thinking tokens"),
    ):
        curves = [_training_curve(name, arm, what) for name, arm in main.items()]
        draw(curves, directory / stem, x_label="step", y_label=label, band=True, zoom=True, first=1)


def _accuracy(values_SP: np.typing.NDArray[np.float64], samples: int) -> Estimate:
    """Mean accuracy with its interval over problems; `samples` answers per problem and seed."""
    return share(values_SP.mean(0).tolist(), values_SP.size * samples)


def _gains(arm: MeasuredArm, cold: MeasuredArm) -> list[Estimate]:
    """Gains in accuracy over the cold start at every budget of GRID, in points."""
    pairs = zip(100 * arm.anytime(), 100 * cold.anytime(), strict=True)
    return [paired_bootstrap(ours_SP, theirs_SP, n=2000) for ours_SP, theirs_SP in pairs]


def _training_curve(name: str, arm: MeasuredArm, what: str) -> Curve:
    """Mean over seeds, with the range of the seeds as its band."""
    by_step: dict[int, list[float]] = {}
    for record in arm.records:
        for line in record["validations"]:
            by_step.setdefault(line["step"], []).append(line[what])
    steps = sorted(by_step)
    values = [by_step[step] for step in steps]
    return Curve(name, steps, [Estimate(float(np.mean(v)), min(v), max(v)) for v in values])
