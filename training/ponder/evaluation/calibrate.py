"""`ponder calibrate`: measure a checkpoint's budget curves and write them into its contract."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import CliPositionalArg

from ponder.errors import SetupError
from ponder.evaluation.bars import AnswerBar
from ponder.evaluation.calibration import Progress, Work, measure
from ponder.evaluation.command import Figures
from ponder.evaluation.curves import ENOUGH, EPSILON, Measured, auto, points
from ponder.evaluation.evaluate import Condition, conditions_of, distinct
from ponder.evaluation.protocol import Responder
from ponder.tasks.problems import Problem, Split, Task, at_most
from ponder.tasks.sources import SOURCES, find_tasks
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import VerifierPool
from ponder.thought.budget import UNLIMITED
from ponder.thought.contract import FILE_NAME, Contract
from ponder.thought.curve import AutoBudget, Calibration, Curve, Curves, free_last

if TYPE_CHECKING:
    from rich.table import Table

    from ponder.evaluation.predictor import ByPrompt

LEAST = 4
"""Least problems of a task, so that both halves' accuracies have intervals."""
_DOUBLING = [16 << times for times in range(11)]
_LABELLED = re.compile(r"([\w.-]+)=(.+)")


class Options(BaseModel):
    """Measure each thinking budget on each task, and write the curves into MODEL's ponder.json.

    Every problem is asked at temperature 1 under every budget, with a server's hint and cut. The
    server takes efforts and the budget auto from the curves.
    """

    model: CliPositionalArg[Path] = Field(
        description="directory of a checkpoint with a ponder.json"
    )
    tasks: list[str] = Field(
        default=[task.name for task in TINY_TASKS],
        min_length=1,
        description=f"{SOURCES}; LABEL=SOURCE gives it the name that requests use",
    )
    n: int = Field(
        default=600,
        ge=LEAST,
        description="problems per task, or all there are; half of them choose, the others report",
    )
    seeds: int = Field(default=3, ge=1, description="thoughts per problem")
    seed: int = Field(default=0, ge=0, description="of the problems and of the sampling")
    budgets: list[Annotated[int, Field(ge=UNLIMITED)]] = Field(
        default=[0, *_DOUBLING, UNLIMITED],
        min_length=1,
        description="thinking tokens, beside 0 and below the context; -1 is no limit",
    )
    split: Split | None = Field(
        default=None,
        description="take the problems that training keeps for this (default: all problems of a "
        "jsonl: or hf: set, and test problems of an endless family)",
    )
    dry_run: bool = Field(default=False, description="say what would be asked, and ask nothing")
    plots: Figures | None = Field(default=None, description="draw the curves into this directory")

    @field_validator("tasks", mode="before")
    @classmethod
    def _comma_separated(cls, names: list[str]) -> list[str]:
        return [name for part in names for name in part.split(",")]


def run(options: Options) -> int:
    """Calibrate and print; 0 when done, 1 when no engine answers, 2 for invalid settings."""
    from rich.console import Console

    from ponder.engine.protocol import EngineError

    if options.plots is not None:
        import matplotlib  # noqa: F401  # report a missing matplotlib first
    try:
        work = _work(options)
    except ValueError as error:
        return _complain(error, 2)
    try:
        contract = _contract(options.model)
        with VerifierPool() as pool:
            measured = asyncio.run(_measure(options, contract, work, pool))
    except (SetupError, EngineError) as error:
        return _complain(error, 1)
    if measured is None:
        return 0
    calibrated = Contract.load(options.model)
    assert calibrated is not None and calibrated.calibration is not None
    console, curves = Console(highlight=False, markup=False), calibrated.curves
    assert curves is not None
    predicted = _predicted(options.model, work, measured, curves)
    for found in calibrated.calibration.auto:
        console.print(_table(curves.curve(found.task), found))
        console.print(_said(found))
        console.print(predicted.get(found.task, "") + "\n")
    console.print(f"wrote {options.model / FILE_NAME}", soft_wrap=True)
    if options.plots is not None:
        for file in _draw(curves.tasks, options.plots):
            console.print(str(file), soft_wrap=True)
    return 0


async def _measure(
    options: Options, contract: Contract, work: list[Work], pool: VerifierPool
) -> dict[str, Measured] | None:
    """Measure all tasks, and write their curves into the contract; None for a dry run."""
    from ponder.evaluation.tables import machine

    responder = _responder(options.model)
    try:
        budgets = _budgets(options)
        conditions = conditions_of(["served"], budgets, await responder.subject())
        each = distinct(conditions) * options.seeds
        total = sum(len(task.problems) for task in work)
        print(
            f"ponder calibrate: {total:,} problems x {options.seeds} seeds x {len(budgets)} "
            f"budgets = {total * each:,} answers; --n, --seeds and --budgets change that",
            file=sys.stderr,
        )
        for task in work:
            choosing = (len(task.problems) + 1) // 2
            note = "" if choosing >= ENOUGH else f", too few to prove a point: {ENOUGH} can"
            print(f"  {task.label}: {choosing} problems to choose on{note}", file=sys.stderr)
        if options.dry_run:
            return None
        versions: dict[str, str] = machine()["versions"]
        progress = Progress(options.model, _settings(options, contract, conditions, work, versions))
        if len(progress):
            print(f"ponder calibrate: goes on after {len(progress):,} problems", file=sys.stderr)
        with AnswerBar((total - len(progress)) * each, command="calibrate") as bar:
            measured = await measure(
                responder,
                work,
                progress,
                pool=pool,
                conditions=conditions,
                seeds=options.seeds,
                seed=options.seed,
                advance=bar.advance,
            )
        _with_curves(contract, measured, options, versions).save(options.model)
        progress.done()
        return measured
    finally:
        await responder.close()


def _with_curves(
    contract: Contract, measured: Mapping[str, Measured], options: Options, versions: dict[str, str]
) -> Contract:
    of_all = list(measured.values())
    curve = points(None, [each.choosing for each in of_all])
    chosen = [auto(None, of_all)]
    for label, each in measured.items():
        curve += points(label, [each.choosing])
        chosen.append(auto(label, [each]))
    calibration = Calibration(
        epsilon=EPSILON,
        auto=tuple(chosen),
        split=options.split,
        seeds=options.seeds,
        seed=options.seed,
        temperature=1.0,
        versions=versions,
    )
    return replace(contract, budget_curve=tuple(curve), calibration=calibration)


def _work(options: Options) -> list[Work]:
    """Every task's problems in an order that mixes difficulties. Raises `ValueError`."""
    sources: dict[str, list[Task]] = {}
    for name in options.tasks:
        labelled = _LABELLED.fullmatch(name)
        for task in find_tasks([labelled[2] if labelled else name]):
            sources.setdefault(labelled[1] if labelled else task.name, []).append(task)
    work = []
    for label, tasks in sources.items():
        problems: list[Problem] = at_most(tasks, options.n, options.split, options.seed)
        if len(problems) < LEAST:
            split = f" of {options.split}" if options.split else ""
            raise ValueError(
                f"{label} has {len(problems)} problems{split}, and {LEAST} are the least to choose "
                f"and to report on: name a larger set{', or leave --split out' if split else ''}"
            )
        Random(options.seed).shuffle(problems)
        work.append(Work(label, problems))
    return work


def _contract(model: Path) -> Contract:
    """The contract to write into. Raises `SetupError`."""
    if not (model / "config.json").exists():
        raise SetupError(f"{model} is no model directory with a config.json: name one on this disk")
    contract = Contract.load(model)
    if contract is None:
        raise SetupError(
            f"{model} has no {FILE_NAME} to write a curve into: `ponder contract {model} --write` "
            f"begins one"
        )
    return contract


def _budgets(options: Options) -> list[int]:
    """The budgets that fit into the context, and 0."""
    config = json.loads((options.model / "config.json").read_text(encoding="utf-8"))
    context = config.get("max_position_embeddings")
    fitting = {b for b in options.budgets if not isinstance(context, int) or b < context}
    return sorted({0, *fitting}, key=free_last)


def _settings(
    options: Options,
    contract: Contract,
    conditions: list[Condition],
    work: list[Work],
    versions: dict[str, str],
) -> dict[str, object]:
    """The settings that identify a calibration, with the sizes and times of the weights' files."""
    trained = json.dumps(asdict(replace(contract, budget_curve=(), calibration=None)))
    weights = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in _weights(options.model)]
    return {
        "contract": hashlib.sha256(trained.encode()).hexdigest(),
        "weights": weights,
        "tasks": {task.label: task.sha256 for task in work},
        "verifiers": {task.label: task.verifiers_sha256 for task in work},
        "budgets": [condition.cut for condition in conditions],
        "seeds": options.seeds,
        "seed": options.seed,
        "versions": versions,
    }


def _weights(model: Path) -> list[Path]:
    return sorted([*model.glob("*.safetensors"), *model.glob("*.bin")])


def _table(curve: Curve, chosen: AutoBudget) -> Table:
    """A table with a row per budget, and the efforts that ask for the budget."""
    from rich.box import SIMPLE
    from rich.table import Column, Table

    table = Table(
        Column("budget", no_wrap=True),
        title=_task(chosen),
        box=SIMPLE,
        title_justify="left",
        pad_edge=False,
    )
    for name in ("accuracy", "95 % interval", "all tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("asked for by")
    for point in curve.points:
        names = [level for level, budget in curve.efforts.items() if budget == point.budget]
        names += ["auto"] if curve.auto == point.budget else []
        table.add_row(
            _named(point.budget),
            f"{point.accuracy:.1%}",
            f"{point.accuracy_low:.1%} – {point.accuracy_high:.1%}",
            f"{point.tokens:.1f}",
            ", ".join(names),
        )
    return table


def _said(chosen: AutoBudget) -> str:
    """A sentence on the chosen budget's accuracy and tokens on the reporting half."""
    gives = f"{chosen.accuracy:.1%} for {chosen.tokens:.1f} tokens"
    if chosen.budget == chosen.best:
        return f"auto is {_named(chosen.budget)}, the best: on {chosen.n} other problems {gives}"
    low, high = (f"{100 * end:+.1f}" for end in (chosen.difference_low, chosen.difference_high))
    return (
        f"auto is {_named(chosen.budget)}: on {chosen.n} other problems {gives}; the best, "
        f"{_named(chosen.best)}, {chosen.best_accuracy:.1%} for {chosen.best_tokens:.1f}: "
        f"{100 * chosen.difference:+.1f} points ({low} … {high})"
    )


def _predicted(
    model: Path, work: list[Work], measured: Mapping[str, Measured], curves: Curves
) -> dict[str | None, str]:
    """By task, a sentence that compares a budget for each prompt with the task's `auto`."""
    from ponder.evaluation.predictor import Example, LogisticPredictor, by_prompt, embedding

    embed = embedding(model)
    if embed is None:
        return {None: f"no budget by prompt: no embed_tokens.weight in {model}/*.safetensors"}
    said: dict[str | None, str] = {}
    for task in work:
        asked = {problem.id: problem.question for problem in task.problems}
        each = measured[task.label]
        choosing, reporting = (
            [Example(asked[row.problem], row) for row in half]
            for half in (each.choosing, each.reporting)
        )
        auto = curves.tasks[task.label].auto
        found = by_prompt(choosing, reporting, auto, LogisticPredictor(embed))
        said[task.label] = _beside(found)
    return said


def _beside(found: ByPrompt | None) -> str:
    if found is None:
        return "a budget by prompt is not shown to be as good as auto on the first half"
    accuracy = " … ".join(
        f"{100 * end:+.1f}" for end in (found.difference.low, found.difference.high)
    )
    tokens = " … ".join(f"{100 * (end - 1):+.0f}" for end in (found.tokens.low, found.tokens.high))
    return (
        f"a budget by prompt {'pays' if found.pays else 'does not pay'}: beside auto "
        f"{100 * found.difference.mean:+.1f} points ({accuracy}) and "
        f"{100 * (found.tokens.mean - 1):+.0f} % of tokens ({tokens})"
    )


def _task(chosen: AutoBudget) -> str:
    return "all tasks, each with the same weight" if chosen.task is None else chosen.task


def _named(budget: int) -> str:
    return "no limit" if budget == UNLIMITED else str(budget)


def _draw(curves: Mapping[str, Curve], directory: Path) -> list[Path]:
    """Accuracy over all tokens, a line per task."""
    from ponder.evaluation.intervals import Estimate
    from ponder.evaluation.plots import Curve as Line
    from ponder.evaluation.plots import draw

    lines = [
        Line(
            label,
            [point.tokens for point in curve.points],
            [Estimate(p.accuracy, p.accuracy_low, p.accuracy_high) for p in curve.points],
            [_named(point.budget) for point in curve.points],
        )
        for label, curve in curves.items()
    ]
    stem = directory / "calibration"
    return draw(lines, stem, x_label="mean tokens of a reply", y_label="accuracy")


def _responder(model: Path) -> Responder:
    from ponder.evaluation.responders.local import LocalResponder

    return LocalResponder.on_vllm(model)


def _complain(error: Exception, status: int) -> int:
    print(f"ponder calibrate: {error}", file=sys.stderr)
    return status
