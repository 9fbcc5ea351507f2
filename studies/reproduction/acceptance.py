"""Measures whether a cold start meets protocol 4's criteria.

python -m studies.reproduction accept BASE

A cold start is accepted when, on validation problems, it is right half of the time, is verbose with
a long tail, reads hints without obeying them, and loses accuracy where its long thoughts are cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import torch

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.tokenizer import ModelFiles
from ponder.tasks.problems import Problem
from ponder.tasks.verifiers import verify
from ponder.tasks.worked import Worked
from ponder.training.coldstart.sft import fastest
from ponder.training.coldstart.thoughts import HINT
from ponder.training.rollout.plans import Reader, Response, hinted, truncated

from .measure import in_batches
from .setting import ANSWER, LONGEST

SHORT_HINT, LONG_HINT = 40, 200
_SAMPLES = 2
_HINT_SAMPLES = 4  # the ratio of two heavy-tailed means needs many samples


@dataclass(frozen=True, slots=True)
class Level:
    """Answers to the problems of one family and difficulty."""

    family: str
    difficulty: int
    problems: int
    accuracy: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Criterion:
    """One criterion: the value wanted of a cold start, the measured value, and whether it holds."""

    name: str
    value: float
    wanted: str
    holds: bool


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The measurements, in tokens of thought and shares of right answers.

    The cap is half the natural mean. `accuracy_capped` counts a response that is unfinished at the
    cap as wrong, as training does; `accuracy_closed` closes its thought and has it answered, as a
    server does.
    """

    parameters: int
    problems: int
    natural_tokens: float
    deciles: list[float]
    shortest_tokens: float
    hint_tokens: dict[str, float]
    cap: int
    accuracy: float
    accuracy_capped: float
    accuracy_closed: float
    share_over_cap: float
    unended: float
    levels: list[Level]
    criteria: list[Criterion]

    @property
    def accepted(self) -> bool:
        return all(criterion.holds for criterion in self.criteria)

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"accepted": self.accepted}

    def lines(self) -> Iterator[str]:
        """The report as lines for a terminal."""
        for level in self.levels:
            yield (
                f"{level.family:40} {level.difficulty:2}  {level.accuracy:6.1%}  "
                f"{level.tokens:6.0f} tokens  ({level.problems})"
            )
        for criterion in self.criteria:
            said = "holds" if criterion.holds else "FAILS"
            yield f"{said}  {criterion.name}: {criterion.value:.3f} (wanted: {criterion.wanted})"


def accept(base: Path, asked: Sequence[Worked], longest: int = LONGEST) -> Acceptance:
    """Ask a checkpoint every problem without a hint, with a small and with a large hint, and with
    thoughts closed at half the natural mean.
    """
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    reader = Reader(Checkpoint.load(ModelFiles.find(str(base))))
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = model.to(fastest()).eval()
    prompts = [reader.prompt(w.problem, f"accept/{w.problem.id}") for w in asked]

    ask = partial(in_batches, model)

    def told(*budgets: int) -> list[Response]:
        hints = [(b, tuple(reader.tokenizer.encode(HINT.format(budget=b)))) for b in budgets]
        return hinted(prompts, hints or [(None, ())] * _SAMPLES, longest, ask, reader)

    natural, promised = told(), told(*[SHORT_HINT, LONG_HINT] * _HINT_SAMPLES)
    shortest = fmean(len(reader.tokenizer.encode(worked.shortest())) for worked in asked)
    parameters = sum(weight.numel() for weight in model.parameters())
    by_hint = {
        str(budget): fmean(r.thinking_tokens for r in promised if r.budget == budget)
        for budget in (SHORT_HINT, LONG_HINT)
    }
    cap = round(fmean(response.thinking_tokens for response in natural) / 2)
    cut = truncated(
        prompts, _SAMPLES, ask, reader,
        budgets=(cap,), summaries=1, summary_tokens=ANSWER, grace=0,
    )  # fmt: skip
    closed = fmean(
        any(a.formatted and verify(t.prompt.problem, a.answer) for a in t.summaries[0]) for t in cut
    )
    return _judged(natural, closed, shortest, by_hint, parameters)


def _judged(
    natural: Sequence[Response],
    closed: float,
    shortest: float,
    by_hint: dict[str, float],
    parameters: int,
) -> Acceptance:
    lengths = [response.thinking_tokens for response in natural]
    right = [r.formatted and verify(r.prompt.problem, r.answer) for r in natural]
    mean = fmean(lengths)
    cap = round(mean / 2)
    inside = [ok and length <= cap for ok, length in zip(right, lengths, strict=True)]
    accuracy, capped = fmean(right), fmean(inside)
    deciles = quantiles(lengths, n=10)
    ratio = by_hint[str(LONG_HINT)] / by_hint[str(SHORT_HINT)]
    levels = list(_levels([r.prompt.problem for r in natural], lengths, right))
    hardness = [level.accuracy for level in levels]
    lost = accuracy - closed
    criteria = [
        Criterion("accuracy", accuracy, "at least 0.5", accuracy >= 0.5),
        Criterion("natural mean", mean, "at least 300 tokens", mean >= 300),
        Criterion("natural / shortest", mean / shortest, "at least 5", mean >= 5 * shortest),
        Criterion("ninth / first decile", deciles[8] / deciles[0], "at least 5",
                  deciles[8] >= 5 * deciles[0]),
        Criterion(f"hint {LONG_HINT} / {SHORT_HINT}", ratio, "0.95 to 1.1", 0.95 <= ratio <= 1.1),
        Criterion("lost where thoughts are closed at half the mean", lost, "at least 0.05",
                  lost >= 0.05),
        Criterion("hardest and easiest level apart", max(hardness) - min(hardness),
                  "at least 0.5", max(hardness) - min(hardness) >= 0.5),
        Criterion("megabytes", 2 * parameters / 1e6, "at most 8", parameters <= 4_000_000),
    ]  # fmt: skip
    over = fmean(length > cap for length in lengths)
    unended = fmean(not response.formatted for response in natural)
    return Acceptance(
        parameters, len(natural) // _SAMPLES, mean, deciles, shortest, by_hint, cap, accuracy,
        capped, closed, over, unended, levels, criteria,
    )  # fmt: skip


def _levels(
    asked: Sequence[Problem], lengths: Sequence[int], right: Sequence[bool]
) -> Iterator[Level]:
    """Levels by family and difficulty; the three sequences are parallel."""
    cells: dict[tuple[str, int], list[int]] = {}
    for row, problem in enumerate(asked):
        cells.setdefault((problem.family, problem.difficulty), []).append(row)
    for (family, difficulty), rows in cells.items():
        accuracy, tokens = fmean(right[row] for row in rows), fmean(lengths[row] for row in rows)
        yield Level(family, difficulty, len(rows) // _SAMPLES, accuracy, tokens)
