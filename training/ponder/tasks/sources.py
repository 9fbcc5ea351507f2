"""Finds tasks by name; recipes and `ponder eval` name them in the same way."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from .calculator import CalculatorTask
from .maze import MAZE
from .problem_set import HubOptions, load_hub, read_jsonl
from .problems import Task
from .reach import REACH_TASKS
from .sudoku import SUDOKU
from .tiny import TINY_TASKS

_TINY: dict[str, Task] = {task.name: task for task in TINY_TASKS}
_SEARCH: dict[str, Task] = {task.name: task for task in (*REACH_TASKS, MAZE, SUDOKU)}
_GROUPS = {"tiny": tuple(_TINY.values()), "search": tuple(_SEARCH.values())}
_CALCULATOR = CalculatorTask()
_OWN: dict[str, Task] = {**_TINY, **_SEARCH, _CALCULATOR.name: _CALCULATOR}

SOURCES = (
    f"tiny (all of {', '.join(_TINY)}, or one of them), search (all of {', '.join(_SEARCH)}, or "
    "one of them), calculator (answered by a call), "
    "reasoning-gym:NAME?levels=0-3, jsonl:PATH, "
    "hf:NAME?split=train&prompt=COLUMN&answer=COLUMN&verifier=math"
)

Options = TypeVar("Options", bound=BaseModel)


class GymOptions(BaseModel):
    """The options of `reasoning-gym:NAME?levels=…`: one level of the curriculum, or a range."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    levels: str = Field(default="0-999", pattern=r"^\d{1,3}(-\d{1,3})?$")

    def range(self) -> range:
        low, _, high = self.levels.partition("-")
        return range(int(low), int(high or low) + 1)


def find_tasks(spec: Sequence[str]) -> tuple[Task, ...]:
    """The tasks that `spec` names, in its order, each once; see `SOURCES`.

    Raises `ValueError`, whose message lists the existing names or says what to change.
    """
    found: dict[str, Task] = {}
    for name in spec:
        for task in _GROUPS.get(name) or (_find(name),):
            if found.setdefault(task.name, task) != task:
                raise ValueError(f"{task.name} is named twice: name it once, with all its levels")
    return tuple(found.values())


def _find(name: str) -> Task:
    if name in _OWN:
        return _OWN[name]
    source, _, rest = name.partition(":")
    dataset, _, query = rest.partition("?")
    match source:
        case "reasoning-gym" if rest:
            from .gym import GymTask

            levels = _options(GymOptions, name, query).range()
            with warnings.catch_warnings():
                # A dependency compares strings with `is`, of which Python warns at compilation.
                warnings.filterwarnings("ignore", '"is" with', SyntaxWarning)
                return GymTask.find(dataset, levels)
        case "jsonl" if rest:
            if query and not Path(rest).exists():
                raise ValueError(
                    f"{name}: there is no such file, and a jsonl: takes no ?{query}: `ponder eval "
                    "--split test` takes the problems that training keeps for tests"
                )
            return read_jsonl(name, Path(rest))
        case "hf" if rest:
            return load_hub(name, dataset, _options(HubOptions, name, query))
    raise ValueError(f"no task {name!r}: name {SOURCES}")


def _options(kind: type[Options], name: str, query: str) -> Options:
    try:
        pairs = parse_qsl(query, strict_parsing=bool(query))
        if len(given := dict(pairs)) < len(pairs):
            raise ValueError("an option is given twice")
        return kind.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
    except ValueError as error:  # not name=value, or twice
        wrong = str(error)
    known = "&".join(f"{option}=…" for option in kind.model_fields)
    raise ValueError(f"{name}: {wrong}; its options are ?{known}")
