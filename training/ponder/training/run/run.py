"""A reinforcement-learning run: from a recipe and a checkpoint to a directory that can be served.

OUT/               the last weights, servable, with ponder.json
OUT/adapter/       with LoRA: the last adapters alone, for PEFT and for vLLM
OUT/best/          the weights with the best validation accuracy, servable
OUT/checkpoints/   states to resume from
OUT/recipe.json    the recipe
OUT/metrics.jsonl  a line per step and per validation
OUT/samples.jsonl  some rollouts of every step that a validation follows
OUT/training.png   the curves of the metrics
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer

from ponder.tasks.problems import Task
from ponder.tasks.sources import find_tasks

from ..base import Base
from ..engines.protocol import CheckpointError, TrainingEngine
from ..engines.table import engine_of
from ..rollout.experience import Collector, Experience, Judge
from ..rollout.plans import Reader
from ..rollout.rows import Row
from . import forecast
from .checks import adapted, check_trackers, room_for_prompt
from .directory import last_checkpoint, record
from .export import export
from .loop import Loop
from .recipe import PolicyRecipe, RecipeError
from .sizes import shortage
from .validation import Watched
from .watch import BEST, Progress, quieten

ADAPTER = "adapter"


class Run:
    """One run of a recipe in a directory; `resume` continues from its last complete checkpoint.

    `observe` is called with every step, counted from 1, and its experience. Raises `RecipeError`
    for a base or a directory that does not fit, `Diverged` when the loss is no longer finite.
    """

    def __init__(
        self,
        recipe: PolicyRecipe,
        out: Path,
        judge: Judge,
        resume: bool,
        observe: Callable[[int, Experience], object] = lambda *_: None,
    ) -> None:
        self._recipe = recipe
        self._out = out
        self._observe = observe
        self._start = last_checkpoint(out, recipe, resume)
        kind = engine_of(recipe.optimisation.engine)
        processes = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun
        kind.check(recipe, processes)
        check_trackers(recipe)
        tasks = _tasks(recipe)
        base = Base.find(recipe)
        positions = base.config.get("max_position_embeddings")
        room = room_for_prompt(recipe, positions, base.checkpoint)
        longest_prompt = recipe.rollouts.longest_prompt or room
        if recipe.lora is not None:
            adapted(recipe, base.on_meta())
        self._base, self._contract = base.files.directory, base.contract
        self.reader = base.reader(recipe)
        self._collector = _collector(recipe, tasks, self.reader, judge, longest_prompt)
        self._watched = Watched(
            recipe,
            tasks,
            self.reader,
            judge,
            hint=base.hint,
            longest_prompt=longest_prompt,
            processes=processes,
        )
        quieten()
        self._tokenizer = AutoTokenizer.from_pretrained(base.files.name)
        self.engine: TrainingEngine = kind(base.files, recipe, out)

    def train(self, progress: bool = True, end: float = math.inf) -> None:
        """Run to the last step and export; metrics of repeated steps are dropped.

        The step that runs at `end` (of the monotonic clock) is the last, and a resume continues
        from its checkpoint.
        """
        recipe, engine = self._recipe, self.engine
        method = self._collector.method
        if self._start is None and self.is_main:
            record(recipe, self._out)
        elif self._start is not None:
            self._resume(self._start)
        self._watch = Progress(
            self._out,
            name=recipe.name,
            steps=recipe.optimisation.steps,
            done=engine.updates // recipe.optimisation.updates,
            main=self.is_main,
            bar=progress,
        )

        def denominator(rows: Sequence[Row]) -> float:
            """The most tokens that rows may have (Dr. GRPO), or their learnt tokens."""
            if method.constant_tokens is not None:
                return len(rows) * method.constant_tokens
            return sum(row.learnt_tokens for row in rows)

        Loop(
            recipe,
            engine,
            self._collector,
            objective=method.objective,
            denominator=denominator,
            ask=lambda sampler: self._watched.ask(sampler, engine.share),
            export=lambda: self._export(self._out / BEST),
            observe=self._observe,
            watch=self._watch,
            out=self._out,
            end=end,
        ).run()
        self._export(self._out)
        engine.save_adapters(self._out / ADAPTER)
        self._watch.close()
        engine.close()
        engine.wait()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.engine.share.rank == 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user before the run starts."""
        shape = forecast.shape(self._recipe)
        short = shortage(self._recipe, shape.parameters, shape.trained, self._out)
        said = (*self._collector.method.notes, *self._watched.notes)
        return said if short is None else (*said, short)

    def reached(self) -> Iterator[str]:
        """Sentences on the results of a trained run."""
        return self._watch.reached()

    def _resume(self, checkpoint: Path) -> None:
        try:
            self.engine.resume(checkpoint)
            self._collector.load(checkpoint)
        except (CheckpointError, FileNotFoundError) as error:
            raise RecipeError(f"--resume: {error}") from error

    def _export(self, directory: Path) -> None:
        """Export; every process contributes its shards, the main process writes."""
        state = {}
        for name, weight in self.engine.weights():
            if self.is_main:
                state[name] = weight.to("cpu", torch.bfloat16)
        if not self.is_main:
            return
        staged = directory.with_name(directory.name + ".partial")
        shutil.rmtree(staged, ignore_errors=True)
        made = self.engine.model, self._tokenizer, self._contract, state
        export(staged, *made, base=self._base)
        directory.mkdir(parents=True, exist_ok=True)
        for path in staged.iterdir():
            path.replace(directory / path.name)
        staged.rmdir()


def _tasks(recipe: PolicyRecipe) -> tuple[Task, ...]:
    try:
        return find_tasks(recipe.tasks)
    except ValueError as error:
        raise RecipeError(f"tasks: {error}") from error


def _collector(
    recipe: PolicyRecipe,
    tasks: Sequence[Task],
    reader: Reader,
    judge: Judge,
    longest_prompt: int | None,
) -> Collector:
    try:
        return Collector(
            recipe.method,
            tasks,
            reader,
            judge,
            prompts=recipe.rollouts.prompts,
            updates=recipe.optimisation.updates,
            seed=recipe.seed,
            longest_prompt=longest_prompt,
        )
    except ValueError as error:
        raise RecipeError(str(error)) from error
