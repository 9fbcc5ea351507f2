"""`ponder eval`: how accuracy and thinking grow with the budget, on held-out problems."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field, SecretStr, field_validator
from pydantic_settings import CliPositionalArg

from ponder.training.evaluation import MODES, conditions_of, distinct, evaluate
from ponder.training.responders.base import Mode, Responder, ResponderError, Subject
from ponder.training.tasks.base import Problem, held_out
from ponder.training.tasks.sources import SOURCES, find_tasks
from ponder.training.tasks.tiny import TINY_TASKS
from ponder.training.tasks.workers import VerifierError, VerifierPool

if TYPE_CHECKING:
    from ponder.training.evaluation import Sample


def _key_of_environment() -> SecretStr | None:
    key = os.environ.get("OPENAI_API_KEY")
    return SecretStr(key) if key else None


class Options(BaseModel):
    """Measure accuracy and thinking tokens on held-out problems, sampled at temperature 1.

    Modes: natural thinks freely, efficient is told to use minimal tokens, hinted is told each
    trained budget, truncated is cut at each of --budgets.
    """

    model: CliPositionalArg[str] = Field(
        description="directory of a checkpoint, or URL of an OpenAI-compatible server"
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
    n: int = Field(default=500, ge=1, description="problems, spread over tasks and difficulties")
    samples: int = Field(default=16, ge=1, description="answers per problem and condition")
    seed: int = Field(default=0, ge=0, description="of the problems and of the sampling")
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        description="of thought and answer together (default: what the context leaves)",
    )
    served_model_name: str | None = Field(
        default=None, description="which of a server's models (default: its only one)"
    )
    api_key: SecretStr | None = Field(
        default_factory=_key_of_environment,
        description="key the server asks for (default: OPENAI_API_KEY in the environment)",
    )
    json_file: Path | None = Field(
        default=None, alias="json", description="write all numbers to this file"
    )
    plots: Path | None = Field(default=None, description="draw figures into this directory")

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

    @field_validator("plots")
    @classmethod
    def _drawable(cls, directory: Path | None) -> Path | None:
        if directory is not None:
            try:
                directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ValueError(f"{error}: name another directory") from error
            if not os.access(directory, os.W_OK | os.X_OK):
                raise ValueError(f"{directory} cannot be written: name another directory")
        return directory


def run(options: Options) -> int:
    """Evaluate and print; 0 when done, 1 when nobody answers, 2 for settings that cannot hold."""
    from rich.console import Console

    from ponder.engine.base import EngineError
    from ponder.thought.contract import ContractError
    from ponder.training.report import as_json, print_report

    if options.plots is not None:
        # Missing matplotlib is said first.
        from ponder.training.plots import plot_evaluation, plot_training

    try:
        problems = held_out(find_tasks(options.tasks), options.n, "test", options.seed)
    except ValueError as error:
        print(f"ponder eval: {error}", file=sys.stderr)
        return 2
    try:
        with VerifierPool() as pool:
            samples, subject = asyncio.run(_measure(options, problems, pool))
    except (ResponderError, ContractError, EngineError, VerifierError) as error:
        print(f"ponder eval: {error}", file=sys.stderr)
        return 1
    if pool.failures:
        causes = ", ".join(f"{count} by {cause}" for cause, count in pool.failures.items())
        print(f"ponder eval: answers that no verifier could judge: {causes}", file=sys.stderr)
    # Written before anything is printed: a reader such as `head` may close the pipe.
    if options.json_file is not None:
        unsaid = {"json_file", "plots", "api_key"}
        settings = options.model_dump(mode="json", exclude=unsaid) | {"split": "test"}
        text = json.dumps(as_json(samples, settings, subject, pool.failures), indent=2)
        options.json_file.write_text(text + "\n", encoding="utf-8")
    figures: list[Path] = []
    if options.plots is not None:
        figures = plot_evaluation(samples, options.plots)
        if (metrics := Path(options.model) / "metrics.jsonl").exists():
            figures += plot_training(metrics, options.plots / "training")
    print_report(samples, Console())
    for file in figures:
        print(file)
    return 0


async def _measure(
    options: Options, problems: list[Problem], pool: VerifierPool
) -> tuple[list[Sample], Subject]:
    from tqdm import tqdm

    responder = _responder(options)
    try:
        subject = await responder.subject()
        conditions = conditions_of(options.modes, options.budgets, subject)
        total = len(problems) * distinct(conditions) * options.samples
        with tqdm(total=total, desc="eval", unit="answer") as bar:
            samples = await evaluate(
                responder,
                problems,
                pool=pool,
                conditions=conditions,
                samples=options.samples,
                seed=options.seed,
                advance=bar.update,
            )
        return samples, subject
    finally:
        await responder.close()


def _responder(options: Options) -> Responder:
    from ponder.training.responders.http import HttpResponder
    from ponder.training.responders.local import LocalResponder

    if options.model.startswith(("http://", "https://")):
        key = options.api_key.get_secret_value() if options.api_key else None
        return HttpResponder(
            options.model,
            api_key=key,
            model=options.served_model_name,
            max_tokens=options.max_tokens,
        )
    directory = Path(options.model)
    if not (directory / "config.json").exists():
        raise ResponderError(f"{directory} is neither a URL nor a directory with a config.json")
    return LocalResponder.on_vllm(directory, options.max_tokens)
