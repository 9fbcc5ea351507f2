"""`ponder eval`: how accuracy and thinking grow with the budget, on held-out problems."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import CliPositionalArg

from ponder.training.tasks.base import Problem, Task, held_out
from ponder.training.tasks.sources import SOURCES, find_tasks
from ponder.training.tasks.tiny import TINY_TASKS

if TYPE_CHECKING:
    from ponder.training.evaluation import Sample
    from ponder.training.responders import Responder


class Options(BaseModel):
    """Measure accuracy and thinking tokens per budget on held-out problems, sampled at T = 1."""

    model: CliPositionalArg[str] = Field(
        description="directory of a checkpoint, or URL of a Ponder server"
    )
    tasks: list[str] = Field(
        default=[task.name for task in TINY_TASKS], min_length=1, description=SOURCES
    )
    budgets: list[Annotated[int, Field(ge=-1)]] = Field(
        default=[0, 16, 32, 64, 128, 256, -1],
        min_length=1,
        description="thinking tokens; -1 thinks freely",
    )
    n: int = Field(default=500, ge=1, description="problems, spread over tasks and difficulties")
    samples: int = Field(default=1, ge=1, description="answers per problem and budget")
    seed: int = Field(default=0, ge=0, description="of the problems and of the sampling")
    json_file: Path | None = Field(
        default=None, alias="json", description="write all numbers to this file"
    )

    @field_validator("tasks", mode="before")
    @classmethod
    def _comma_separated(cls, names: list[str]) -> list[str]:
        return [name for part in names for name in part.split(",")]


def run(options: Options) -> int:
    """Evaluate and print; 0 when done, 1 when nobody answers, 2 for settings that cannot hold."""
    from rich.console import Console

    from ponder.engine.base import EngineError
    from ponder.thought.contract import ContractError
    from ponder.training.report import as_json, print_report
    from ponder.training.responders import ResponderError

    try:
        tasks = find_tasks(options.tasks)
        problems = held_out(tasks, options.n, "test", options.seed)
    except ValueError as error:
        print(f"ponder eval: {error}", file=sys.stderr)
        return 2
    try:
        samples = asyncio.run(_measure(options, tasks, problems))
    except (ResponderError, ContractError, EngineError) as error:
        print(f"ponder eval: {error}", file=sys.stderr)
        return 1
    print_report(samples, Console())
    if options.json_file is not None:
        settings = options.model_dump(mode="json", exclude={"json_file"}) | {"split": "test"}
        text = json.dumps(as_json(samples, settings), indent=2)
        options.json_file.write_text(text + "\n", encoding="utf-8")
    return 0


async def _measure(
    options: Options, tasks: tuple[Task, ...], problems: list[Problem]
) -> list[Sample]:
    from tqdm import tqdm

    from ponder.training.evaluation import evaluate

    responder = _responder(options.model)
    total = len(problems) * len(options.budgets) * options.samples
    try:
        with tqdm(total=total, desc="eval", unit="answer") as bar:
            return await evaluate(
                responder,
                tasks,
                problems,
                budgets=options.budgets,
                samples=options.samples,
                seed=options.seed,
                advance=bar.update,
            )
    finally:
        await responder.close()


def _responder(model: str) -> Responder:
    from ponder.training.responders import HttpResponder, LocalResponder, ResponderError

    if model.startswith(("http://", "https://")):
        return HttpResponder(model)
    if not (Path(model) / "config.json").exists():
        raise ResponderError(f"{model} is neither a URL nor a model directory with a config.json")
    return LocalResponder.start(Path(model))
