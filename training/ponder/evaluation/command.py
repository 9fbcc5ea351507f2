"""`ponder eval`: how accuracy and thinking grow with the budget."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator, model_validator
from pydantic_settings import CliPositionalArg

from ponder import environment
from ponder.errors import SetupError
from ponder.evaluation.evaluate import MODES, conditions_of, distinct, evaluate
from ponder.evaluation.protocol import Mode, Responder, ResponderError, Subject, Wording
from ponder.tasks.problems import Problem, Split, at_most
from ponder.tasks.sources import SOURCES, find_tasks
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import VerifierPool

if TYPE_CHECKING:
    from ponder.evaluation.evaluate import Sample


# Problems of a large set, unless --n says otherwise: enough for an estimate within minutes.
_ENOUGH = 500


def _drawable(directory: Path) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{error}: name another directory") from error
    if not os.access(directory, os.W_OK | os.X_OK):
        raise ValueError(f"{directory} cannot be written: name another directory")
    return directory


Figures = Annotated[Path, AfterValidator(_drawable)]
"""A directory to draw into, made before anything is measured."""


def _key_of_environment() -> SecretStr | None:
    key = environment.api_key()
    return SecretStr(key) if key else None


class Options(BaseModel):
    """Measure accuracy and thinking tokens on problems with known answers, at temperature 1.

    Modes: natural thinks freely, efficient has a hint to use minimal tokens, hinted the hint of
    each trained budget, truncated is cut at each of --budgets, served has a server's hint and cut.
    """

    target: CliPositionalArg[str | None] = Field(
        default_factory=environment.server_url,
        description="directory of a checkpoint, or URL of an OpenAI-compatible server (default: "
        f"{environment.named(environment.URL)})",
    )
    modes: list[Mode] = Field(
        default=["truncated"], min_length=1, description=f"of {', '.join(MODES)}"
    )
    tasks: list[str] = Field(
        default=[task.name for task in TINY_TASKS], min_length=1, description=SOURCES
    )
    budgets: list[Annotated[int, Field(ge=-1)]] = Field(
        default=[0, 16, 32, 64, 128, 256, -1],
        min_length=1,
        description="thinking tokens; -1 thinks freely",
    )
    split: Split | None = Field(
        default=None,
        description="take the problems that training keeps for this (default: all problems of a "
        "jsonl: or hf: set, and test problems of an endless family)",
    )
    n: int | None = Field(
        default=None,
        ge=1,
        description="problems, spread over tasks and difficulties (default: all there are, up to "
        f"{_ENOUGH})",
    )
    samples: int = Field(default=16, ge=1, description="answers per problem and condition")
    seed: int = Field(default=0, ge=0, description="of the problems and of the sampling")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="of thought and answer together (default: the rest of the context)",
    )
    system_prompt: str | None = Field(
        default=None, min_length=1, description="the chat's system message (default: none)"
    )
    instruction: str = Field(
        default="",
        description="text appended to every question unchanged, so it begins with a space or a "
        "line break; a trained checkpoint's is in its recipe.json",
    )
    model: str | None = Field(
        default_factory=environment.model,
        description="which of a server's models (default: "
        f"{environment.named(environment.MODEL)}, or its only one)",
    )
    api_key: SecretStr | None = Field(
        default_factory=_key_of_environment,
        description=f"key the server asks for (default: {environment.named(environment.API_KEY)})",
    )
    json_file: Path | None = Field(
        default=None, alias="json", description="write all numbers to this file"
    )
    plots: Figures | None = Field(default=None, description="draw figures into this directory")

    @field_validator("tasks", mode="before")
    @classmethod
    def _comma_separated(cls, names: list[str]) -> list[str]:
        return [name for part in names for name in part.split(",")]

    @field_validator("modes", mode="before")
    @classmethod
    def _known_modes(cls, names: list[str]) -> list[str]:
        names = [name for part in names for name in part.split(",")]
        unknown = [name for name in names if name not in MODES]
        if unknown:
            raise ValueError(f"no mode {', '.join(unknown)}: choose of {', '.join(MODES)}")
        return names

    @field_validator("json_file")
    @classmethod
    def _writable(cls, file: Path | None) -> Path | None:
        if file is None:
            return file
        if not file.parent.is_dir():
            raise ValueError(f"there is no directory {file.parent}: make it first")
        if file.is_dir() or not os.access(file if file.exists() else file.parent, os.W_OK):
            raise ValueError(f"{file} cannot be written: name another file")
        return file

    @model_validator(mode="after")
    def _budgets_are_asked(self) -> Options:
        if "budgets" in self.model_fields_set and not {"truncated", "served"} & {*self.modes}:
            raise ValueError(
                "--budgets is for the modes truncated and served: name one in --modes, or leave "
                "--budgets out"
            )
        return self


def run(options: Options) -> int:
    """Evaluate and print; 0 when done, 1 when no responder answers, 2 for invalid settings."""
    from rich.console import Console

    from ponder.engine.protocol import EngineError
    from ponder.evaluation.tables import as_json, print_report

    if options.plots is not None:
        # Report a missing matplotlib first.
        from ponder.evaluation.plots import plot_evaluation, plot_training

    if options.target is None:
        print("ponder eval: name a checkpoint's directory or a server's URL", file=sys.stderr)
        return 2
    try:
        problems = _problems(options)
    except ValueError as error:
        print(f"ponder eval: {error}", file=sys.stderr)
        return 2
    try:
        with VerifierPool() as pool:
            samples, subject = asyncio.run(_measure(options, problems, pool))
    except (SetupError, EngineError) as error:
        print(f"ponder eval: {error}", file=sys.stderr)
        return 1
    if pool.failures:
        causes = ", ".join(f"{count} by {cause}" for cause, count in pool.failures.items())
        print(f"ponder eval: answers that no verifier could judge: {causes}", file=sys.stderr)
    # Written before anything is printed: a reader such as `head` may close the pipe.
    figures: list[Path] = []
    status = 0
    try:
        if options.json_file is not None:
            unsaid = {"json_file", "plots", "api_key"}
            settings = options.model_dump(mode="json", exclude=unsaid) | {"n": len(problems)}
            text = json.dumps(as_json(samples, settings, subject, pool.failures), indent=2)
            options.json_file.write_text(text + "\n", encoding="utf-8")
        if options.plots is not None:
            figures = plot_evaluation(samples, options.plots)
            if (metrics := Path(options.target) / "metrics.jsonl").exists():
                try:
                    figures += plot_training(metrics, options.plots / "training")
                except ValueError as error:
                    print(f"ponder eval: no training curves: {error}", file=sys.stderr)
    except OSError as error:
        print(f"ponder eval: {error}: free some space; the report follows", file=sys.stderr)
        status = 1
    print_report(samples, Console(markup=False))  # names of files may hold brackets
    for file in figures:
        print(file)
    return status


async def _measure(
    options: Options, problems: list[Problem], pool: VerifierPool
) -> tuple[list[Sample], Subject]:
    from ponder.evaluation.bars import AnswerBar

    responder = _responder(options)
    try:
        subject = await responder.subject()
        conditions = conditions_of(options.modes, options.budgets, subject)
        each = distinct(conditions)
        total = len(problems) * each * options.samples
        print(
            f"ponder eval: {len(problems):,} problems x {options.samples} samples x {each} ways of "
            f"asking = {total:,} answers; --n, --samples and --budgets change that",
            file=sys.stderr,
        )
        with AnswerBar(total) as bar:
            samples = await evaluate(
                responder,
                problems,
                pool=pool,
                conditions=conditions,
                samples=options.samples,
                seed=options.seed,
                wording=Wording(options.system_prompt, options.instruction),
                advance=bar.advance,
            )
        return samples, subject
    finally:
        await responder.close()


def _problems(options: Options) -> list[Problem]:
    """Raises `ValueError` where a task or as many problems as were asked for do not exist."""
    found = at_most(find_tasks(options.tasks), options.n or _ENOUGH, options.split, options.seed)
    if not found or (options.n is not None and len(found) < options.n):
        split = f"{options.split} " if options.split else ""
        why = f" (a tenth of listed problems, by a hash, is kept for {options.split})"
        raise ValueError(
            f"only {len(found)} different {split}problems exist"
            f"{why if options.split in ('test', 'validation') else ''}: ask for fewer with --n, or "
            f"{'leave --split out' if options.split else 'name more --tasks'}"
        )
    return found


def _responder(options: Options) -> Responder:
    from ponder.evaluation.responders.http import HttpResponder
    from ponder.evaluation.responders.local import LocalResponder

    target = str(options.target)
    if re.match(r"[\w.-]+:\d+(/|$)", target):
        target = f"http://{target}"  # as `ponder chat` takes it
    if target.startswith(("http://", "https://")):
        key = options.api_key.get_secret_value() if options.api_key else None
        return HttpResponder(
            target, api_key=key, model=options.model, max_tokens=options.max_tokens
        )
    if given := sorted({"model", "api_key"} & options.model_fields_set):
        named = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ResponderError(f"{named}: for a server's URL, which {target} is not; leave it out")
    directory = Path(target)
    if not (directory / "config.json").exists():
        raise ResponderError(f"{directory} is neither a URL nor a directory with a config.json")
    return LocalResponder.on_vllm(directory, options.max_tokens)
