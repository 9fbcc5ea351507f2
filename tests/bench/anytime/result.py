"""All that is said of one model, as JSON: deploy/generate.py writes docs/anytime.md out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ponder.evaluation.intervals import Estimate
from ponder.evaluation.plots import Curve, draw
from ponder.evaluation.predictor import embedding
from ponder.tasks.problems import Problem

from .arms import FREE, STRATEGIES, Arm
from .choices import by_prompt, by_task
from .findings import (
    Compared,
    cheapest,
    compare,
    ends,
    figures,
    of_equal_tokens,
    same_thoughts,
)
from .measure import SPLITS, Asking
from .rows import Answers, Half, Rows

_SHOWN = 0.25
"""Caps whose accuracy is further below free thought than this are left out of the plot."""


class Result:
    """One model's answers, read by half and arm."""

    def __init__(self, asking: Asking, found: Rows, caps: Sequence[Arm]) -> None:
        self._asking, self._found = asking, found
        self.caps = {half: self.answers(half, caps) for half in SPLITS}
        free = self.caps["choosing"][FREE]
        self.best = cheapest(self.caps["choosing"], free)
        untold = {a: of for a, of in self.caps["choosing"].items() if a.method == "untold"}
        self.untold = cheapest({FREE: free, **untold}, free) if untold else None
        self.top = max(self.caps["choosing"], key=lambda a: self._right("choosing", a))
        self.thought = float(free.thinking_PS.mean())

    def answers(self, half: Half, arms: Sequence[Arm]) -> dict[Arm, Answers]:
        count = len(self._asking.problems[half])
        return {arm: self._of(half, [arm.name] * count) for arm in arms}

    def chosen(self, tried: Sequence[Arm]) -> list[Arm]:
        """The setting of each method, by what it does on the choosing half."""
        choosing = self.answers("choosing", tried)
        return [
            cheapest({a: choosing[a] for a in tried if a.method == method}, self._free("choosing"))
            for method in dict.fromkeys(arm.method for arm in tried)
        ]

    def as_json(self, tried: Sequence[Arm], walls: Mapping[str, Any]) -> dict[str, Any]:
        """The baseline, the caps, all settings that were tried, and what each method gives."""
        caps = self.caps["reporting"]
        choosing = {**self.caps["choosing"], **self.answers("choosing", tried)}
        return {
            "model": self._asking.model.name,
            "thinking_tokens": self.thought,
            "problems": {half: len(problems) for half, problems in self._asking.problems.items()},
            "free": asdict(figures(caps[FREE])),
            "best": {"arm": self.best.name, **asdict(figures(caps[self.best]))},
            "untold": self.untold and {"arm": self.untold.name,
                                       **asdict(figures(caps[self.untold]))},
            "top": self.top.name,
            "caps": [{"arm": arm.name, **asdict(figures(of))} for arm, of in caps.items()],
            "tried": [{"arm": arm.name, **asdict(figures(of))} for arm, of in choosing.items()],
            "findings": [*self._choices(), *self._exits(tried)],
            "wall": walls,
        }  # fmt: skip

    def _exits(self, tried: Sequence[Arm]) -> list[dict[str, Any]]:
        made = []
        for arm in self.chosen(tried):
            here, there = (self.answers(half, [arm])[arm] for half in SPLITS)
            made.append(self._finding(arm.method, arm.setting, here, there))
        return made

    def _choices(self) -> list[dict[str, Any]]:
        told = {arm: of for arm, of in self.caps["choosing"].items() if arm.method == "cap"}
        known, asked = (self._asking.problems[half] for half in SPLITS)
        tasks = by_task(known, told)
        here, there = ([tasks[p.family].name for p in problems] for problems in (known, asked))
        said = ", ".join(f"{task} {arm.setting}" for task, arm in tasks.items())
        made = [self._finding("auto", said, *self._each(here, there))]
        embed = embedding(self._asking.model)
        if embed is not None:
            usual = cheapest(told, told[FREE])
            found = by_prompt(known, asked, told, usual, embed)
            if found is None:
                said, arms = f"no margin is safe, so always {usual.setting}", [usual] * len(asked)
            else:
                said, arms = f"within {found[0]:g} of a prompt's best chance", found[1]
            names = [arm.name for arm in arms]
            each = self._each([usual.name] * len(known), names)
            made.append(self._finding("predictor", said, *each))
        return made

    def _finding(
        self, method: str, setting: str, choosing: Answers, reporting: Answers
    ) -> dict[str, Any]:
        caps, free = self.caps["reporting"], self._free("reporting")
        equal = of_equal_tokens(self.caps["choosing"], choosing)
        problems = self._asking.problems["reporting"]

        def within(name: str) -> dict[str, Any]:
            values = sorted({getattr(problem, name) for problem in problems})
            places = {v: [i for i, p in enumerate(problems) if getattr(p, name) == v]
                      for v in values}  # fmt: skip
            best = caps[self.best]
            return {
                str(value): _said(compare(reporting.of(at), best.of(at)))
                for value, at in places.items()
            }

        # Only a rule that watches leaves the thought as it would have been.
        closed = ends(reporting, free, method) if method in ("agreement", "entropy") else None
        return {
            "method": method,
            "setting": setting,
            **asdict(figures(reporting)),
            "best": _said(compare(reporting, caps[self.best])),
            "untold": self.untold and _said(compare(reporting, caps[self.untold])),
            "equal": {"arm": equal.name, **_said(compare(reporting, caps[equal]))},
            "top": _said(compare(reporting, caps[self.top])),
            "ends": closed and asdict(closed),
            "same_thoughts": same_thoughts(reporting, free),
            "tasks": within("family"),
            "difficulties": within("difficulty"),
        }

    def _each(self, choosing: Sequence[str], reporting: Sequence[str]) -> tuple[Answers, Answers]:
        return self._of("choosing", choosing), self._of("reporting", reporting)

    def _of(self, half: Half, names: Sequence[str]) -> Answers:
        problems: list[Problem] = self._asking.problems[half]
        return self._found.answers(half, names, problems, self._asking.seeds)

    def _free(self, half: Half) -> Answers:
        return self.caps[half][FREE]

    def _right(self, half: Half, arm: Arm) -> float:
        return float(self.caps[half][arm].correct_PS.mean())


def plot(said: Mapping[str, Any], stem: Path) -> list[Path]:
    """Accuracy against all tokens of a model's JSON: the caps as lines, the rest as points."""
    free = said["free"]["accuracy"]["mean"]
    shown = [cap for cap in said["caps"] if cap["accuracy"]["mean"] >= free - _SHOWN]
    curves = []
    for method, label in (("cap", "plain cap"), ("untold", "plain cap, untold")):
        mine = [cap for cap in shown if cap["arm"].split()[0] == method]
        mine.sort(key=lambda cap: cap["tokens"]["mean"])
        if mine:
            names = [cap["arm"].split()[1] for cap in mine]
            curves.append(_curve(label, mine, names))
    points = []
    for one in said["findings"]:
        label = one["method"].replace("_", "-")
        # Colours come again from the eighth on: these stand apart and have their names beside them.
        points.append(_curve(label, [one], [label] if one["method"] in STRATEGIES else ()))
    return draw([*curves, *points], stem, x_label="mean of all tokens", y_label="accuracy",
                zoom=True)  # fmt: skip


def _curve(label: str, found: Sequence[Mapping[str, Any]], names: Sequence[str] = ()) -> Curve:
    x = [one["tokens"]["mean"] for one in found]
    return Curve(label, x, [Estimate(**one["accuracy"]) for one in found], names)


def _said(compared: Compared) -> dict[str, Any]:
    return {**asdict(compared), "verdict": compared.verdict}
