"""A row per answer, kept in a file that an interrupted run goes on with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ponder.evaluation.evaluate import Sample
from ponder.tasks.problems import Problem

from ..errors import BenchError

Half = Literal["choosing", "reporting"]
"""On one half of the problems settings are chosen, on the other they are reported."""
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Row:
    """One answer. `tokens` are all that it cost, of which `thinking`, `answer` and `probe` are
    parts; the rest was forced, or discarded by a retry.
    """

    half: Half
    arm: str
    problem: str
    seed: int
    correct: bool
    end_cause: str
    tokens: int
    thinking: int
    answer: int
    probe: int


def rows(half: Half, arm: str, samples: Sequence[Sample]) -> list[Row]:
    """Samples of one arm as `evaluate` returns them: a problem's follow each other by seed."""
    seen: dict[str, int] = {}
    made = []
    for s in samples:
        number = seen[s.problem.id] = seen.get(s.problem.id, -1) + 1
        counts = (s.completion_tokens, s.thinking_tokens, s.answer_tokens, s.probe_tokens)
        said = [count or 0 for count in counts]
        made.append(Row(half, arm, s.problem.id, number, s.correct, s.end_cause, *said))
    return made


@dataclass(frozen=True, slots=True)
class Answers:
    """All answers of an arm to the problems (P) of one half, each with every seed (S)."""

    correct_PS: Floats
    tokens_PS: Floats
    thinking_PS: Floats
    answer_PS: Floats
    probe_PS: Floats
    causes_PS: NDArray[np.str_]

    def of(self, chosen: Sequence[int] | NDArray[np.bool_]) -> Answers:
        """Those to some problems."""
        return Answers(*(getattr(self, name)[chosen] for name in self.__slots__))


class Rows:
    """The rows of one model; the file's first line says what they were measured on.

    Raises `BenchError` where it says something else.
    """

    def __init__(self, file: Path, settings: Mapping[str, Any]) -> None:
        self._file = file
        self._rows: dict[tuple[str, str, str, int], Row] = {}
        head = json.dumps(settings)
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(head + "\n", encoding="utf-8")
        # A last line that was cut by whatever ended the process is asked again.
        whole = file.read_text(encoding="utf-8").rpartition("\n")[0]
        first, *lines = whole.split("\n")
        if first != head:
            raise BenchError(f"{file} holds another measurement: move it, or go on with its own")
        file.write_text(whole + "\n", encoding="utf-8")
        self._keep(Row(*json.loads(line)) for line in lines)

    def add(self, rows: Sequence[Row]) -> None:
        lines = "".join(f"{json.dumps(list(asdict(row).values()))}\n" for row in rows)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(lines)
        self._keep(rows)

    def lacks(self, half: Half, arm: str, problem: Problem, seeds: int) -> bool:
        return any((half, arm, problem.id, seed) not in self._rows for seed in range(seeds))

    def answers(self, half: Half, arms: Sequence[str], problems: Sequence[Problem],
                seeds: int) -> Answers:  # fmt: skip
        """Of `arms[p]` to `problems[p]`. Raises `KeyError` for one that was not asked."""
        found = [
            [self._rows[half, arm, problem.id, seed] for seed in range(seeds)]
            for arm, problem in zip(arms, problems, strict=True)
        ]

        def table(name: str) -> Floats:
            return np.array([[getattr(row, name) for row in of] for of in found], float)

        numbers = map(table, ("correct", "tokens", "thinking", "answer", "probe"))
        return Answers(*numbers, np.array([[row.end_cause for row in of] for of in found]))

    def _keep(self, rows: Iterable[Row]) -> None:
        self._rows.update({(row.half, row.arm, row.problem, row.seed): row for row in rows})
