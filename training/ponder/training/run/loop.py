"""The training loop: sample → credit → update → watch → validate → save, once per step.

Only this module counts steps, from 1. A step makes `optimisation.updates` optimizer updates, and
checkpoints and trackers count updates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ..engines.correction import OF_KNOWN, UNKNOWN
from ..engines.protocol import Learnt, TrainingEngine
from ..method.kernel import Objective
from ..rollout.drive import Sampler
from ..rollout.experience import COUNTS, Collector, Experience
from ..rollout.rows import Row
from .directory import place_checkpoint
from .recipe import PolicyRecipe
from .rollouts import Rollouts
from .validation import means
from .watch import Progress


@dataclass(frozen=True, slots=True)
class Loop:
    """Trains an engine on a collector's experience, up to the last step of a recipe.

    Each token maximises `objective`; the sum over an update's tokens is divided by `denominator` of
    its rows. `ask` answers the validation problems of this process and returns sums over its
    responses (`validation.Watched`). `export` keeps the weights of the best validation. `observe`
    gets every step and its experience. Every process calls all of them. The first step that ends
    after `end` is the last one, and is saved.
    """

    recipe: PolicyRecipe
    engine: TrainingEngine
    collector: Collector
    objective: Objective
    denominator: Callable[[Sequence[Row]], float]
    ask: Callable[[Sampler], Mapping[str, float]]
    export: Callable[[], None]
    observe: Callable[[int, Experience], object]
    watch: Progress
    out: Path
    end: float = math.inf  # of the monotonic clock

    def run(self) -> None:
        """Train from the engine's current step. Raises `Diverged`."""
        plan, engine = self.recipe.optimisation, self.engine
        done = engine.updates // plan.updates
        if done == 0:
            self._validate(0)
        ahead = self.recipe.rollouts.steps_ahead > 0
        rollouts = Rollouts(engine, self.collector, steps=plan.steps, ahead=ahead)
        for step in range(done + 1, plan.steps + 1):
            clock = [time.monotonic()]
            experience, age = rollouts.take(step)
            clock.append(time.monotonic())
            self.observe(step, experience)
            updates = experience.updates
            packed = [
                engine.pack(rows, remember=i > 0, behind=age) for i, rows in enumerate(updates)
            ]
            clock.append(time.monotonic())
            learnt = [
                engine.update(batches, self.objective, self.denominator(rows))
                for batches, rows in zip(packed, updates, strict=True)
            ]
            clock.append(time.monotonic())
            beside = {"staleness": float(age)} if ahead else {}
            phases = _phases(clock, 0.0 if age else experience.judging)
            self._watch(step, experience, learnt, {**beside, **phases})
            if self._due(step, self.recipe.validation.every):
                rollouts.settle()
                self._validate(step)
            late = engine.reduce({"late": float(time.monotonic() > self.end)})["late"] > 0
            if late or self._due(step, self.recipe.checkpoints.every):
                self._save(step)
            if late:
                break
        rollouts.settle()

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.recipe.optimisation.steps

    def _watch(
        self,
        step: int,
        experience: Experience,
        learnt: Sequence[Learnt],
        phases: Mapping[str, float],
    ) -> None:
        """Report the step's metrics over all processes."""
        engine = self.engine
        world, last = engine.share.world, learnt[-1]
        sums = engine.reduce({n: sum(it.sums[n] for it in learnt) for n in last.sums})
        known_by = engine.reduce({n: not math.isnan(v) for n, v in experience.metrics.items()})
        metrics = engine.reduce(
            {n: 0.0 if math.isnan(v) else v for n, v in experience.metrics.items()}
        )
        tokens = max(sums.pop("tokens"), 1.0)
        known = max(tokens - sums.get(UNKNOWN, 0.0), 1.0)
        figures = {
            "loss": sums.pop("loss") / world / len(learnt),
            "grad_norm": last.grad_norm,
            "learning_rate": last.learning_rate,
            **{n: total / (known if n in OF_KNOWN else tokens) for n, total in sums.items()},
            "learnt_tokens": tokens,
            **{
                n: total if n in COUNTS else total / known_by[n]
                for n, total in metrics.items()
                if known_by[n]
            },
            **phases,
        }
        self.watch.stepped(step, figures)
        if self._due(step, self.recipe.validation.every):
            self.watch.sample(step, experience.shown)
            engine.show(self._updates(step), experience.shown)
        self._report(step, "train", figures)

    def _validate(self, step: int) -> None:
        """Validate, and export the weights if they are the best so far."""
        with self.engine.sampler(greedy=self.recipe.validation.greedy) as sample:
            figures = means(self.engine.reduce(self.ask(sample)))
        better = self.watch.validated(step, figures)
        self._report(step, "eval", figures)
        # Only the main process knows the validations before a resume, but all processes export.
        main = self.engine.share.rank == 0
        if self.engine.reduce({"better": float(main and better)})["better"]:
            self.export()

    def _report(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        named = {f"{kind}/{name}": value for name, value in figures.items()}
        self.engine.report(self._updates(step), named)

    def _save(self, step: int) -> None:
        engine, keep = self.engine, self.recipe.checkpoints.keep
        main = engine.share.rank == 0
        number = self._updates(step)

        def save(directory: Path) -> None:
            engine.save(directory)
            if main:
                self.collector.save(directory)

        place_checkpoint(self.out, number, keep, save, main=main, wait=engine.wait)

    def _updates(self, step: int) -> int:
        return step * self.recipe.optimisation.updates


def _phases(clock: Sequence[float], judging: float) -> dict[str, float]:
    """Seconds that a step's parts took on this process, with judging separate from sampling."""
    rollout, scoring, update = (late - early for early, late in pairwise(clock))
    found = {"rollout": rollout - judging, "judging": judging, "scoring": scoring, "update": update}
    return {f"seconds_{name}": round(seconds, 3) for name, seconds in found.items()}
