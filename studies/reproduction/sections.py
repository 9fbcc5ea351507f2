"""The sections of docs/results.md that show arms: how they answer, and how they trained."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from .arms import TUNING_STEPS
from .claims import HARD_BELOW, MeasuredArm, hard_problems, same_seeds
from .measure import GRID, HINTS, MANY_SAMPLES
from .records import COLD_START, Record, Recorded, diverged

_SHOWN_BUDGETS = (24, 48, 96, 144, 192, 288, 384)
_ENDS = (slice(10), slice(-10, None))
_CELL = ["Each cell: thinking tokens, accuracy.", ""]


def arms(shown: Mapping[str, MeasuredArm], floors: Sequence[int]) -> list[str]:
    """Accuracy and length of natural thinking; `floors` are the tokens of shortest solutions."""
    cold, floor = shown[COLD_START], float(np.mean(floors))
    head = (
        "arm",
        "seeds",
        "accuracy",
        "thinking tokens",
        "of the removable removed",
        f"anytime, {GRID[0]}–{GRID[-1]}",
        "unseen family",
    )
    rows = [_arm_row(name, arm, cold, floor) for name, arm in shown.items()]
    return [
        "## Arms on the test problems, natural thinking",
        "",
        f"The floor, the shortest written solution, is {floor:.0f} tokens on average.",
        "",
        *table(head, rows),
        "",
    ]


def hints(shown: Mapping[str, MeasuredArm]) -> list[str]:
    """Length and accuracy under each hint."""
    head = ("arm", "none", *map(str, HINTS))
    rows = [_hint_row(name, arm) for name, arm in shown.items()]
    return [
        "## Hints",
        "",
        *table(head, rows),
        "",
        *_CELL,
    ]


def families(shown: Mapping[str, MeasuredArm], problems: Sequence[Record]) -> list[str]:
    """Split the natural answers by the problems' families."""
    family_P = np.array([problem["family"] for problem in problems])
    names = sorted(set(family_P.tolist()))

    def cells(arm: MeasuredArm) -> list[str]:
        tokens_P, right_P = arm.tokens().mean(0), arm.accuracy().mean(0)
        masks = (family_P == name for name in names)
        return [_cell(tokens_P[mask].mean(), right_P[mask].mean()) for mask in masks]

    head = ("arm", *(name.removeprefix("reasoning-gym:") for name in names))
    rows = [(name, *cells(arm)) for name, arm in shown.items()]
    return ["## Families", "", *table(head, rows), "", *_CELL]


def budgets(shown: Mapping[str, MeasuredArm]) -> list[str]:
    """Accuracy where the thought is truncated, with the range of the seeds."""

    def cell(right_S: Sequence[float]) -> str:
        mean = f"{np.mean(right_S):.1f}"
        several = len(right_S) > 1
        return f"{mean} ({min(right_S):.1f}–{max(right_S):.1f})" if several else mean

    def row(name: str, arm: MeasuredArm) -> tuple[str, ...]:
        right_GS = 100 * arm.anytime().mean(2)
        return (name, *(cell(right_GS[GRID.index(at)].tolist()) for at in _SHOWN_BUDGETS))

    rows = [row(name, arm) for name, arm in shown.items()]
    return [
        "## Truncated thoughts",
        "",
        "Accuracy in percent under each budget, in brackets the range of the seeds.",
        "",
        *table(("arm", *map(str, _SHOWN_BUDGETS)), rows),
        "",
    ]


def validations(arms: Mapping[str, MeasuredArm]) -> list[str]:
    """How length and accuracy of natural thinking change in the course of training."""
    steps = sorted(
        {v["step"] for arm in arms.values() for r in arm.records for v in r["validations"]}
    )

    def cell(arm: MeasuredArm, step: int) -> str:
        at = [v for r in arm.records for v in r["validations"] if v["step"] == step]
        if not at:
            return ""
        tokens, right = (np.mean([v[k] for v in at]) for k in ("thinking_tokens", "accuracy"))
        return _cell(float(tokens), float(right))

    rows = [(name, *(cell(arm, step) for step in steps)) for name, arm in arms.items()]
    head = ("arm", *(f"step {step}" for step in steps))
    return ["## Validations", "", *table(head, rows), "", *_CELL] if rows else []


def rollouts(arms: Mapping[str, MeasuredArm]) -> list[str]:
    """What the rollouts of the first steps and of the last ones were like."""
    shown = {
        "right": ("accuracy", 100, ".0f"),
        "truncated": ("truncation_rate", 100, ".0f"),
        "groups alike": ("zero_variance_share", 100, ".0f"),
        "thinking tokens": ("thinking_tokens", 1, ".0f"),
        "gradient norm": ("grad_norm", 1, ".3f"),
        "intra term": ("advantage_intra", 1, ".2f"),
    }

    def cell(arm: MeasuredArm, key: str, scale: float, form: str) -> str:
        runs = [[scale * s[key] for s in r["steps"] if key in s] for r in arm.records]
        if not all(runs):
            return ""
        ends = (np.mean([np.mean(run[part]) for run in runs]) for part in _ENDS)
        return " → ".join(f"{end:{form}}" for end in ends)

    def row(name: str, arm: MeasuredArm) -> tuple[str, ...]:
        total = np.mean([_sampled(r, r["steps"][-1]["step"]) for r in arm.records])
        return (name, f"{total / 1e6:.1f}", *(cell(arm, *how) for how in shown.values()))

    rows = [row(name, arm) for name, arm in arms.items()]
    if not rows:
        return []
    return [
        "## Rollouts in training",
        "",
        "Means over the first ten steps → over the last ten. Rollouts that are right, those that "
        "were truncated, and groups whose rollouts all earn the same are in percent.",
        "",
        *table(("arm", "sampled tokens (M)", *shown), rows),
        "",
    ]


def hard(arms: Mapping[str, MeasuredArm], cold: MeasuredArm) -> list[str]:
    """pass@k of the arms with many samples, and HTPO's lead over DAPO as k grows."""
    hard, ks = hard_problems(cold), (1, 2, 4, 8, MANY_SAMPLES)
    shown = {name: arm for name, arm in arms.items() if arm.samples() >= ks[-1]}

    def row(name: str, values: Sequence[float], form: str) -> tuple[str, ...]:
        return (name, *(f"{100 * value:{form}}" for value in values))

    def passes(arm: MeasuredArm) -> list[float]:
        return [float(arm.passes(k)[:, hard].mean()) for k in ks]

    rows = [row(name, passes(arm), ".1f") for name, arm in {COLD_START: cold, **shown}.items()]
    if "htpo" in shown and "dapo" in shown:
        ours, theirs = (passes(arm) for arm in same_seeds(shown["htpo"], shown["dapo"]))
        rows.append(
            row("htpo less dapo", [a - b for a, b in zip(ours, theirs, strict=True)], "+.1f")
        )
    return [
        "## Hard problems",
        "",
        f"pass@k in percent on the {len(hard)} problems that the cold start solves less than "
        f"{HARD_BELOW:.0%} of the time. They were chosen by its own answers, which makes its row "
        "too low: the others compare with each other.",
        "",
        *table(("arm", *(f"k = {k}" for k in ks)), rows),
        "",
    ]


def variance(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The variance that each of BRPO's baselines leaves in its gradient."""
    head = ("baseline", "trace of the covariance", "over that of no baseline")
    rows = [
        (name, f"{spread['trace']:.3g}", f"{spread['trace'] / found['none']['trace']:.2f}")
        for name, spread in found.items()
    ]
    shrunk = [
        "V2's baseline contains the thought's own return. That shrinks the gradient to 1 - 1/G of",
        "its size (G thoughts a problem) and the trace by the square of that, but removes no",
        "noise. It is true of the full baseline in part.",
    ]
    return ["## Variance of BRPO's gradient", "", *table(head, rows), "", *shrunk, ""]


def tuning(recorded: Recorded) -> list[str]:
    """The trials of every main arm, and the rate that was chosen."""
    rates = recorded.rates()
    head = ("arm", "learning rate", "validation accuracy", "thinking tokens", "score", "")
    trials = sorted(
        (record for record in recorded.counted() if record["kind"] == "tuning"),
        key=lambda record: (record["arm"], _rate(record)),
    )

    def row(name: str, rate: float, shown: Record, note: str) -> tuple[str, ...]:
        return (name, f"{rate:g}", *_validation(shown), f"{recorded.score(shown):.3f}", note)

    rows = [row(COLD_START, 0, record["validations"][0], "") for record in trials[:1]]
    for record in trials:
        name, rate = record["arm"], _rate(record)
        if diverged(record):
            rows.append((name, f"{rate:g}", "diverged", "", "", ""))
        else:
            note = "chosen" if rate == rates.get(name) else ""
            rows.append(row(name, rate, record["validations"][-1], note))
    return ["## Tuning", "", f"After step {TUNING_STEPS}.", "", *table(head, rows), ""]


def earlier(recorded: Recorded) -> list[str]:
    """List the runs of earlier versions of the protocol, which no longer count."""
    head = ("run", "protocol", "validation accuracy", "thinking tokens")
    rows = [(f"`{r['key']}`", str(r["protocol"]), *_last(r)) for r in recorded.earlier()]
    title = "## Runs of earlier versions of the protocol"
    return [title, "", *table(head, rows), ""] if rows else []


def equal_tokens(main: Mapping[str, MeasuredArm]) -> list[str]:
    """Compare the main arms at the last validation within the tokens of the thriftiest arm."""
    records = [record for arm in main.values() for record in arm.records]
    if not records:
        return []
    least = min(_sampled(record, record["validations"][-1]["step"]) for record in records)
    head = ("arm", "step", "sampled tokens (M)", "validation accuracy", "thinking tokens")
    rows = []
    for name, arm in main.items():
        at = [
            [v for v in record["validations"] if _sampled(record, v["step"]) <= least][-1]
            for record in arm.records
        ]
        sampled = [_sampled(record, v["step"]) for record, v in zip(arm.records, at, strict=True)]
        rows.append(
            (
                name,
                f"{np.mean([v['step'] for v in at]):.0f}",
                f"{np.mean(sampled) / 1e6:.2f}",
                f"{100 * np.mean([v['accuracy'] for v in at]):.1f} %",
                f"{np.mean([v['thinking_tokens'] for v in at]):.1f}",
            )
        )
    within = f"The last validation at which a run had sampled at most {least / 1e6:.2f}M tokens."
    return ["## At equal sampled tokens", "", within, "", *table(head, rows), ""]


def _sampled(record: Record, step: int) -> float:
    """Tokens that the run has sampled by the end of `step`."""
    return float(sum(s["sampled_tokens"] for s in record["steps"] if s["step"] <= step))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _arm_row(name: str, arm: MeasuredArm, cold: MeasuredArm, floor: float) -> tuple[str, ...]:
    tokens = float(arm.tokens().mean())
    before = float(cold.tokens().mean())
    accuracy = ", ".join(f"{100 * a:.1f}" for a in arm.accuracy().mean(1))
    lengths = ", ".join(f"{n:.0f}" for n in arm.tokens().mean(1))
    return (
        name,
        str(arm.seeds),
        f"{100 * arm.accuracy().mean():.1f} % ({accuracy})",
        f"{tokens:.1f} ({lengths})",
        f"{100 * (before - tokens) / (before - floor):.0f} %",
        f"{100 * arm.anytime().mean():.1f} %",
        f"{100 * arm.accuracy('unseen').mean():.1f} %",
    )


def _hint_row(name: str, arm: MeasuredArm) -> tuple[str, ...]:
    modes = ("natural", *map(str, HINTS))
    return (name, *(_cell(arm.tokens(m).mean(), arm.accuracy(m).mean()) for m in modes))


def _cell(tokens: float, right: float) -> str:
    return f"{tokens:.0f}, {100 * right:.1f} %"


def _rate(record: Record) -> float:
    return float(record["recipe"]["optimisation"]["learning_rate"])


def _last(record: Record) -> tuple[str, str]:
    """Accuracy and thinking tokens at the last validation."""
    if diverged(record):
        return ("diverged", "")
    return _validation(record["validations"][-1])


def _validation(found: Record) -> tuple[str, str]:
    return (f"{100 * found['accuracy']:.1f} %", f"{found['thinking_tokens']:.1f}")
