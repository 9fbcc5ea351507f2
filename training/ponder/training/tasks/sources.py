"""Where problems come from, by name: the one way that recipes and `ponder eval` name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import parse_qsl

from pydantic import ValidationError

from .base import Task
from .problem_set import HubOptions, load_hub, read_jsonl
from .tiny import TINY_TASKS

_TINY: dict[str, Task] = {task.name: task for task in TINY_TASKS}

SOURCES = (
    f"tiny (all of {', '.join(_TINY)}, or one of them), reasoning-gym:NAME, jsonl:PATH, "
    "hf:NAME?split=train&prompt=COLUMN&answer=COLUMN&verifier=math"
)


def find_tasks(spec: Sequence[str]) -> tuple[Task, ...]:
    """The tasks that `spec` names, in its order, each once; see `SOURCES`.

    Raises `ValueError`, whose message lists what exists or says what to mend.
    """
    found: dict[str, Task] = {}
    for name in spec:
        for task in _TINY.values() if name == "tiny" else (_find(name),):
            found[task.name] = task
    return tuple(found.values())


def _find(name: str) -> Task:
    if name in _TINY:
        return _TINY[name]
    source, _, rest = name.partition(":")
    match source:
        case "reasoning-gym" if rest:
            from .gym import GymTask

            return GymTask.find(rest)
        case "jsonl" if rest:
            return read_jsonl(name, Path(rest))
        case "hf" if rest:
            dataset, _, query = rest.partition("?")
            return load_hub(name, dataset, _hub_options(name, query))
    raise ValueError(f"no task {name!r}: name {SOURCES}")


def _hub_options(name: str, query: str) -> HubOptions:
    try:
        return HubOptions.model_validate(dict(parse_qsl(query, strict_parsing=bool(query))))
    except ValidationError as error:
        wrong = ", ".join(str(e["loc"][0]) for e in error.errors())
    except ValueError:
        wrong = repr(query)
    raise ValueError(
        f"{name}: {wrong} is no option: write ?name=value&name=value with "
        f"{', '.join(HubOptions.model_fields)}"
    )
