"""Asks the problems of a calibration, and keeps each measurement until all are complete."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder.errors import SetupError
from ponder.tasks.problems import Problem
from ponder.tasks.workers import VerifierPool

from .curves import Measured, Row, rows
from .evaluate import Condition, evaluate
from .protocol import Responder

PROGRESS = "calibration.jsonl"
"""The file beside the contract that holds the measurements so far."""
_AT_ONCE = 64
"""Problems asked between two writes of that file."""


@dataclass(frozen=True, slots=True)
class Work:
    """The problems of one task, as requests label it, in the order in which they are asked."""

    label: str
    problems: Sequence[Problem]

    @property
    def sha256(self) -> str:
        return _sha256(
            [[problem.id, problem.question, problem.answer] for problem in self.problems]
        )

    @property
    def verifiers_sha256(self) -> str:
        return _sha256([problem.verifier for problem in self.problems])

    def measured(self, found: Sequence[Row]) -> Measured:
        """The measured problems in two halves, of which the first chooses the budget."""
        half = (len(found) + 1) // 2
        return Measured(found[:half], found[half:], self.sha256)


def _sha256(said: list[Any]) -> str:
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


class Progress:
    """The measurements so far, a row per line; the first line has the calibration's settings.

    Raises `SetupError` where the file holds another calibration, or cannot be written.
    """

    def __init__(self, directory: Path, settings: dict[str, Any]) -> None:
        self._file = directory / PROGRESS
        self._rows: dict[tuple[str, str], Row] = {}
        try:
            if self._file.exists():
                self._read(settings)
            else:
                self._file.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        except OSError as error:
            raise SetupError(
                f"{error}: calibrate a copy of the model that can be written"
            ) from error

    def _read(self, settings: dict[str, Any]) -> None:
        """Read the rows; the problem of an incomplete last line is asked again."""
        whole = self._file.read_text(encoding="utf-8").rpartition("\n")[0]
        first, *lines = whole.split("\n")
        if first != json.dumps(settings):
            raise SetupError(
                f"{self._file} holds another calibration: go on with its model, tasks, options and "
                f"versions, or delete it"
            )
        self._file.write_text(whole + "\n", encoding="utf-8")
        for line in lines:
            said = json.loads(line)
            for name in ("shares", "tokens"):
                said[name] = {int(budget): value for budget, value in said[name].items()}
            label = said.pop("task")
            self._rows[label, said["problem"]] = Row(**said)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, label: str, found: Sequence[Row]) -> None:
        with self._file.open("a", encoding="utf-8") as file:
            for row in found:
                said = {"task": label, **{name: getattr(row, name) for name in Row.__slots__}}
                file.write(json.dumps(said) + "\n")
                self._rows[label, row.problem] = row

    def rows(self, work: Work) -> list[Row]:
        """The measured rows of a task, in its order."""
        keys = ((work.label, problem.id) for problem in work.problems)
        return [self._rows[key] for key in keys if key in self._rows]

    def left(self, work: Work) -> Iterator[Sequence[Problem]]:
        """The task's unmeasured problems, some at a time."""
        left = [p for p in work.problems if (work.label, p.id) not in self._rows]
        for start in range(0, len(left), _AT_ONCE):
            yield left[start : start + _AT_ONCE]

    def done(self) -> None:
        self._file.unlink()


async def measure(
    responder: Responder,
    work: Sequence[Work],
    progress: Progress,
    *,
    pool: VerifierPool,
    conditions: Sequence[Condition],
    seeds: int,
    seed: int,
    advance: Callable[[int], object],
) -> dict[str, Measured]:
    """Ask every task's unmeasured problems; the results by label. Raises what `evaluate` does."""
    for task in work:
        for problems in progress.left(task):
            samples = await evaluate(
                responder,
                problems,
                pool=pool,
                conditions=conditions,
                samples=seeds,
                seed=seed,
                advance=advance,
            )
            progress.add(task.label, rows(samples))
    return {task.label: task.measured(progress.rows(task)) for task in work}
