"""Finite sets of problems: JSONL files, and data sets of the Hugging Face hub."""

from __future__ import annotations

import logging
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from .problems import Problem, Split, content_digest, split_of
from .verifiers import VERIFIERS, find, verify

_log = logging.getLogger(__name__)


def _written(value: Any) -> Any:
    """Data sets hold whole numbers as numbers; the answer is their text. A missing one is a NaN."""
    number = type(value) is int or (isinstance(value, float) and math.isfinite(value))
    return str(value) if number else value


_Written = BeforeValidator(_written)
_Said = Annotated[str, Field(min_length=1, pattern=r"\S")]

# One number, perhaps with a name or a currency before it and a unit after it, and nothing else. A
# minus touches the number or its currency, as `final_number` reads it; a multiple is no unit.
_NUMBER = re.compile(
    r"(?:[A-Za-z]\w* *= *(?:- +(?=[\d.]))?)?(?:[-+\u2212]?[$€£] ?|(?:[$€£] *)?(?:[-\u2212]|\+ *)?)"
    r"(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+) *[%°]?"
    r"(?! +(?:pi|hundred|thousand|[mb]illion|trillion)s?\b)(?: +[A-Za-z.]+)*\.?",
    re.ASCII | re.IGNORECASE,
)
_FINALLY = "####"  # GSM8K's mark between the solution and its number

_LINE = 'write {"prompt": …, "answer": …} a line, with verifier, difficulty, id where wanted'
# The others need more than a row has: tools, or the data set's own evidence.
_JUDGES = [name for name in VERIFIERS if name not in ("call", "expression", "reasoning-gym")]


class Row(BaseModel):
    """One problem, as a file or a data set has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: _Said
    answer: Annotated[_Said, _Written]
    verifier: str = Field(
        default="number", description=f"one of {', '.join(_JUDGES)}, or package.module:name"
    )
    difficulty: int = 0
    id: Annotated[str, _Written] | None = None

    @model_validator(mode="after")
    def _can_be_judged(self) -> Row:
        if ":" in self.verifier:
            find(self.verifier)
        elif self.verifier not in _JUDGES:
            raise ValueError(
                f"no verifier {self.verifier!r}: name one of {', '.join(_JUDGES)}, or your own as "
                "package.module:name"
            )
        number = self.answer.rpartition(_FINALLY)[-1].strip()
        if self.verifier == "number" and not _NUMBER.fullmatch(number):
            raise ValueError(
                f"the answer {self.answer!r} is not one number, as -5 or 1,250 m: write it so, or "
                "name the verifier exact or math"
            )
        return self

    def problem(self, family: str) -> Problem:
        """The row as a problem; without an id, the prompt identifies its content."""
        content = self.id or content_digest(self.prompt)
        return Problem(
            f"{family}:{content}", family, self.difficulty, self.prompt, self.answer, self.verifier
        )


class ProblemSet:
    """Listed problems as a `FiniteTask`.

    Rows with the same prompt are one problem, the first, whatever their ids: else training could
    see what a test asks. The log counts those with another answer.
    """

    def __init__(self, name: str, rows: Iterable[Row]) -> None:
        self.name = name
        firsts: dict[str, Problem] = {}
        others = 0
        for row in rows:
            others += firsts.setdefault(row.prompt, row.problem(name)).answer != row.answer
        if others:
            _log.warning(
                "%s: %d rows repeat an earlier prompt with another answer: the earlier one counts",
                name,
                others,
            )
        problems: dict[str, Problem] = {}
        for problem in firsts.values():
            if problems.setdefault(problem.id, problem) is not problem:
                raise ValueError(f"two problems are called {problem.id}: give each its own id")
        self._cells: dict[tuple[int, Split], list[Problem]] = defaultdict(list)
        for problem in problems.values():
            self._cells[problem.difficulty, split_of(problem)].append(problem)
        self.difficulties = tuple(sorted({difficulty for difficulty, _ in self._cells}))

    def problems(self, difficulty: int, split: Split) -> Sequence[Problem]:
        self._check(difficulty)
        return tuple(self._cells.get((difficulty, split), ()))

    def sample(self, rng: Random, difficulty: int) -> Problem:
        self._check(difficulty)
        splits: tuple[Split, ...] = ("train", "validation", "test")
        return rng.choice([p for split in splits for p in self.problems(difficulty, split)])

    def verify(self, problem: Problem, text: str) -> bool:
        return verify(problem, text)

    def _check(self, difficulty: int) -> None:
        if difficulty not in self.difficulties:
            raise ValueError(f"{self.name} has difficulties {self.difficulties}, not {difficulty}")


def read_jsonl(name: str, path: Path) -> ProblemSet:
    """A file with a JSON object a line: prompt, answer, and verifier, difficulty, id where wanted.

    `ValueError` names the invalid line; empty lines are skipped.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    rows = [_row(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ValueError(f"{path} is empty: {_LINE}")
    return ProblemSet(name, rows)


class HubOptions(BaseModel):
    """The options of `hf:NAME?option=value&…`: which part of a data set to read, and how."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str = Field(default="train", description="the publisher's, not Ponder's")
    config: str | None = Field(default=None, description="of a data set that comes in several")
    prompt: str = Field(default="prompt", description="column of the question")
    answer: str = Field(default="answer", description="column of the reference answer")
    difficulty: str | None = Field(default=None, description="column of a whole number")
    verifier: str = "number"


def load_hub(name: str, dataset: str, options: HubOptions) -> ProblemSet:
    """A data set of the hub, or a directory of parquet or JSON files, through `datasets`."""
    import datasets

    try:
        table = datasets.load_dataset(dataset, options.config, split=options.split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"{name} cannot be loaded: {error}") from error
    columns = {
        field: column
        for field in ("prompt", "answer", "difficulty")
        if (column := getattr(options, field)) is not None
    }
    for field, column in columns.items():
        if column not in table.column_names:
            raise ValueError(
                f"{name} has no column {column!r}: add ?{field}= and one of "
                f"{', '.join(table.column_names)}"
            )
    return ProblemSet(name, _hub_rows(name, table, columns, options.verifier))


def _hub_rows(name: str, table: Any, columns: dict[str, str], verifier: str) -> Iterator[Row]:
    for number, row in enumerate(table.select_columns(list(columns.values()))):
        read = {field: row[column] for field, column in columns.items()}
        yield _row(f"{name}: row {number}", read | {"verifier": verifier})


def _row(where: str, raw: str | dict[str, Any]) -> Row:
    try:
        if isinstance(raw, str):
            return Row.model_validate_json(raw)
        return Row.model_validate(raw)
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join((*(str(part) for part in e["loc"]), e["msg"])) for e in error.errors()
        )
        remedy = f"; {_LINE}" if isinstance(raw, str) else ""
        raise ValueError(f"{where}: {wrong}{remedy}") from error
