"""Collects a step's experience: problems, rollouts, their rewards, and rows with advantages."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean

import torch
from torch import Tensor

from ponder.tasks.draws import Source
from ponder.tasks.problems import Problem, Task
from ponder.tasks.workers import Verdict

from ..method.batch import Batch, Context, Prompt, Scores, unpredicted, unscored
from ..method.presets import Method
from ..method.settings import MethodSettings
from ..method.stages import EVERY, FIRST, LAST, run
from .chances import Chances
from .drive import Sampler, pull
from .kinds import RolloutPlan
from .plans import Reader
from .probes import PROBE
from .rows import Row, pack

Judge = Callable[[Sequence[tuple[Problem, str]]], list[Verdict]]

STATE = "method.json"
"""The file of a checkpoint that keeps the state of a method's stages."""

# Metrics that add up over processes; the others are means.
COUNTS = ("sampled_tokens", "unjudged_answers")
_SHOWN_GROUPS = 3


def _alone(sums: Tensor) -> Tensor:
    return sums


@dataclass(frozen=True, slots=True)
class Share:
    """This process's part of a step: number `rank` of `world`; `reduce` adds up over all processes.

    `score` runs the sampling policy over sequences of tokens.
    """

    rank: int = 0
    world: int = 1
    reduce: Callable[[Tensor], Tensor] = _alone
    score: Callable[[Sequence[Sequence[int]]], list[Scores]] = unscored

    def added(self, sums: Tensor) -> Tensor:
        """`sums` added up over all processes. Raises `RuntimeError` without a `reduce`."""
        if self.world > 1 and self.reduce is _alone:
            raise RuntimeError("a stage reduces over processes: give this Share a `reduce`")
        return self.reduce(sums)


@dataclass(frozen=True, slots=True)
class Rolled:
    """The judged rollouts of a step: the groups from which it learns, and the groups left out."""

    context: Context
    kept: Batch
    left_out: Batch


@dataclass(frozen=True, slots=True)
class Experience:
    """Rows per update, the step's metrics, and some responses to look at.

    `judging` are the seconds that verifiers took.
    """

    updates: list[list[Row]]
    metrics: Mapping[str, float]
    shown: Sequence[Mapping[str, object]]
    judging: float = 0.0


class Collector:
    """Collects the experience of a step, as a function of the weights, the seed, the step and the
    state of the method's stages alone.

    `prompts` problems are drawn per step, `updates` optimizer updates share them.
    """

    def __init__(
        self,
        config: MethodSettings,
        tasks: Sequence[Task],
        reader: Reader,
        judge: Judge,
        *,
        prompts: int,
        updates: int,
        seed: int,
        longest_prompt: int | None = None,
    ) -> None:
        self.method = Method.of(config)
        self._plan: RolloutPlan = self.method.plan(config, reader)
        self._reader = reader
        self._judge = judge
        self._prompts = prompts
        self._updates = updates
        self._seed = seed
        self._attempts = config.attempts
        self._source = Source(tasks, seed, prompts, self._attempts - 1, self._fits(longest_prompt))
        self._predict = Chances(reader.directory) if self.method.predicts else unpredicted
        self._state: dict[str, object] = {}
        self._judging = 0.0

    # -- prompts ---------------------------------------------------------------------------

    def _fits(self, longest: int | None) -> Callable[[Problem], bool]:
        """Whether a problem's prompt has at most `longest` tokens."""
        return lambda problem: (
            longest is None or len(self._reader.prompt(problem, "").ids) <= longest
        )

    def _drawn(self, step: int, attempt: int, number: int) -> Prompt:
        """Training problem `number` of a step; the same in every process."""
        key = f"{self._seed}/{step}/{attempt}/{number}"
        return self._reader.prompt(self._source.problem(step, attempt, number, key), key)

    def _redrawn(self, key: str) -> Prompt:
        step, attempt, number = map(int, key.split("/")[1:])
        return self._drawn(step, attempt, number)

    # -- a step ----------------------------------------------------------------------------

    def collect(self, step: int, sampler: Sampler, share: Share) -> Experience:
        """Sample, judge and weigh the rollouts of `step`; `prompts / world` groups of rows."""
        return self.credit(self.roll_out(step, sampler, share), share)

    def roll_out(self, step: int, sampler: Sampler, share: Share) -> Rolled:
        """Sample and judge. This synchronises with no other process and changes no state, so that
        it may run beside the updates of the step before.
        """
        per_update, mine = self._prompts // self._updates, self._mine(share)
        numbers = [
            update * per_update + share.rank * mine + i
            for update in range(self._updates)
            for i in range(mine)
        ]
        context = Context(
            step,
            Random(f"{self._seed}/{step}/{share.rank}"),
            self._judged,
            _refused,
            self._state,
            rank=share.rank,
            world=share.world,
            predict=self._predict,
            redraw=self._redrawn,
        )
        kept: list[Batch] = []
        left_out: list[Batch] = []
        attempts = 0
        while sum(len(batch.sizes) for batch in kept) < len(numbers) and attempts < self._attempts:
            prompts = tuple(self._drawn(step, attempts, number) for number in numbers)
            sampled = self._sampled(prompts, sampler, context)
            context.sampled.append(sampled)
            selected = run(self.method.stages, ("select",), sampled, context)
            kept.append(selected)
            chosen = {prompt.key for prompt in selected.prompts}
            left_out.append(sampled.groups([p.key not in chosen for p in sampled.prompts]))
            attempts += 1
        return Rolled(context, Batch.joined(kept), Batch.joined(left_out))

    def credit(self, rolled: Rolled, share: Share) -> Experience:
        """Turn judged rollouts into rows with advantages; all processes call this equally often."""
        context = replace(rolled.context, reduce=share.added, score=share.score)
        mine = self._mine(share)
        telling = _first(rolled.kept, mine * self._updates)
        weighed = run(self.method.stages, LAST, telling, context)
        # Fill up with groups that teach nothing, so that every process has equally many groups.
        spare = _first(rolled.left_out, mine * self._updates - len(telling.sizes))
        groups = [*self._rows(weighed), *self._rows(spare)]
        updates = [
            [row for group in groups[i * mine : (i + 1) * mine] for row in group]
            for i in range(self._updates)
        ]
        everything = Batch.joined(context.sampled)
        metrics = {
            **_measure(everything, {prompt.key for prompt in rolled.kept.prompts}),
            **_terms(weighed),
            **_probes(everything),
            "generation_batches": float(len(context.sampled)),
        }
        judging, self._judging = self._judging, 0.0
        return Experience(updates, metrics, self._shown(everything), judging)

    def _mine(self, share: Share) -> int:
        """The number of this process's groups in an update."""
        return self._prompts // self._updates // share.world

    def _sampled(self, prompts: tuple[Prompt, ...], sampler: Sampler, context: Context) -> Batch:
        """Rollouts of all prompts, judged, edited and rewarded."""
        sizes = (self.method.settings.group_size,) * len(prompts)
        asked = run(self.method.stages, FIRST, Batch(prompts, sizes), context)
        rollouts = pull(self._plan.rollouts(asked.prompts, asked.sizes), sampler)
        batch = context.judge(asked.with_rollouts(rollouts))
        return run(self.method.stages, EVERY, batch, context)

    def _judged(self, batch: Batch) -> Batch:
        """Read and judge the rollouts that are not judged yet; compute the columns anew."""
        read = [self._plan.read(r) if r.answers is None else r for r in batch.rollouts]
        asked = [
            (i, n)
            for i, rollout in enumerate(read)
            for n, answer in enumerate(rollout.answers or ())
            if answer.verdict is None
        ]
        answers = [list(rollout.answers or ()) for rollout in read]
        texts = [(read[i].prompt.problem, answers[i][n].text) for i, n in asked]
        began = time.monotonic()
        verdicts = self._judge(texts) if texts else []
        self._judging += time.monotonic() - began
        for (i, n), verdict in zip(asked, verdicts, strict=True):
            answers[i][n] = replace(answers[i][n], verdict=verdict)
        judged = [
            replace(rollout, answers=tuple(said))
            for rollout, said in zip(read, answers, strict=True)
        ]
        found = batch.with_rollouts(judged).with_columns(**self._plan.columns(judged))
        accuracy_B = found.per_group(
            lambda accuracy_G: accuracy_G.double().mean().expand(len(accuracy_G)), "accuracy"
        )
        return found.with_columns(group_accuracy=accuracy_B.float())

    def _rows(self, batch: Batch) -> list[list[Row]]:
        """The rows of every group; rows of a batch without advantages teach nothing."""
        nothing = torch.zeros(len(batch.rollouts))
        shipped = {name: batch.columns.get(name, nothing).tolist() for name in self.method.ships}
        advantage, branches = (batch.columns.get(n) for n in ("advantage", "branch_advantage"))
        rows = [
            pack(
                rollout,
                None if advantage is None else advantage[i],
                None if branches is None else branches[i],
                {name: values[i] for name, values in shipped.items()},
            )
            for i, rollout in enumerate(batch.rollouts)
        ]
        return [rows[low:high] for low, high in batch.bounds]

    def _shown(self, batch: Batch) -> list[Mapping[str, object]]:
        """The first rollout of each budget hint, of some groups."""
        rewards, budgets = _per_rollout(batch["reward"]).tolist(), batch["budget"].tolist()
        places = [
            low + budgets[low:high].index(budget)
            for low, high in batch.bounds[:_SHOWN_GROUPS]
            for budget in dict.fromkeys(budgets[low:high])
        ]
        return [self._plan.show(batch.rollouts[i], rewards[i]) for i in places]

    # -- checkpoints -----------------------------------------------------------------------

    def save(self, directory: Path) -> None:
        """Write the stages' state, which all processes share, into a checkpoint."""
        (directory / STATE).write_text(json.dumps(self._state), encoding="utf-8")

    def load(self, directory: Path) -> None:
        """Restore the state that `save` wrote. Raises `FileNotFoundError` without a file."""
        self._state.clear()
        self._state.update(json.loads((directory / STATE).read_text(encoding="utf-8")))


def _refused(sums: Tensor) -> Tensor:
    raise RuntimeError(
        "a stage before `credit` cannot reduce: processes repeat those stages unequally often"
    )


def _first(batch: Batch, groups: int) -> Batch:
    return batch.groups([q < groups for q in range(len(batch.sizes))])


def _per_rollout(reward: Tensor) -> Tensor:
    """(B,): the mean over the answers of a rollout."""
    return reward if reward.dim() == 1 else reward.flatten(1).mean(1)


def _measure(batch: Batch, chosen: set[str]) -> dict[str, float]:
    """The metrics of a step, over all sampled rollouts and groups that have ended, kept or not.

    A mean is NaN where nothing has ended.
    """
    reward = _per_rollout(batch["reward"]).tolist()
    # A length penalty may give different rewards within a group that dynamic sampling drops.
    open_B = batch.columns.get("open", torch.zeros(len(batch.rollouts), dtype=torch.bool))
    silent = [
        float(prompt.key not in chosen or len(set(reward[low:high])) == 1)
        for prompt, (low, high) in zip(batch.prompts, batch.bounds, strict=True)
        if not open_B[low:high].any()
    ]
    ended = batch.keep(~open_B)

    def mean(column: Tensor) -> float:
        return fmean(column.tolist() or [math.nan])

    return {
        "reward": mean(_per_rollout(ended["reward"])),
        "accuracy": mean(ended["accuracy"]),
        "thinking_tokens": mean(ended["thinking"]),
        "truncation_rate": mean(ended["truncated"]),
        "zero_variance_share": fmean(silent or [math.nan]),
        "sampled_tokens": float(batch["sampled"].sum()),
        "unjudged_answers": float(batch["unjudged"].sum()),
    }


def _terms(batch: Batch) -> dict[str, float]:
    """Means of the advantages' named terms over the learnt groups; 0 without any."""
    return {
        name: fmean([column[low:high].mean().item() for low, high in batch.bounds] or [0.0])
        for name, column in batch.columns.items()
        if name.startswith("advantage_")
    }


def _probes(batch: Batch) -> dict[str, float]:
    """Mean results of the probes, over all probed rollouts; 0 without any."""
    found = {name: column for name, column in batch.columns.items() if name.startswith(PROBE)}
    return {name: float(column.nanmean().nan_to_num()) for name, column in found.items()}
