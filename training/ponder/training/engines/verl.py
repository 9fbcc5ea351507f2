"""Training by verl's workers on Ray, on one machine or several.

verl shards the model (FSDP2), balances micro-batches and writes checkpoints; rollouts, credit,
advantages and objectives are ours, and so is the loop, which runs in one process. Of verl this uses
`TrainingWorker` alone. verl needs an environment of its own (`make setup-verl`).

verl takes rows without a tree. The accelerate engine packs a summary behind its thought; here each
summary is a row of its own, with a copy of the thought before its cut.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ponder.engine.tokenizer import ModelFiles

from ..method.batch import Scores
from ..method.kernel import Objective
from ..rollout.drive import Sampler
from ..rollout.experience import Share
from ..rollout.rows import Row, row_of, telling, unpack
from ..run.checks import check_processes
from ..run.recipe import PolicyOptimisation, PolicyRecipe, RecipeError
from .copied import CopySampler, rounded_kind
from .correction import DRAWN
from .optimizers import schedule
from .protocol import CheckpointError, Costs, Diverged, Learnt, Packed, WorkersLost
from .trackers import Trackers
from .verl_cluster import CPU, config, placed

if TYPE_CHECKING:
    from .served import ServedSampler

_STATE = "ponder_engine.json"
_TENSORS_AT_ONCE = 16
"""Tensors that travel through Ray together."""


class VerlEngine:
    """A `TrainingEngine` whose model lies in verl's workers.

    `recipe.optimisation.workers` is their number. The engine joins a running Ray cluster, or starts
    one on this machine. Raises `RecipeError` for a setting that verl lacks, and where verl is not
    installed.
    """

    costs = Costs(trees=False, sharded=True)

    def __init__(self, base: ModelFiles, recipe: PolicyRecipe, out: Path) -> None:
        self._plan = plan = recipe.optimisation
        self._temperature = recipe.rollouts.temperature
        self._objective: Objective | None = None
        self._trackers = Trackers(recipe, out)
        self._trackers.begin()
        self._group = self._started(base, recipe)
        self._ask("reset")
        self._schedule = _schedule(plan, 0)
        with torch.device("meta"):
            self._bare = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(base.directory)
            )
        self._apart: CopySampler | ServedSampler
        self._cap: float | None = None
        if recipe.rollouts.engine == "http":
            from .served import ServedSampler

            self._apart = ServedSampler(base, recipe, out)
            self._cap = recipe.rollouts.sampler_cap
        else:
            here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            kind = torch.float32
            if plan.precision == "bfloat16":
                kind = rounded_kind(here, self._bare.num_parameters())
            self._apart = CopySampler(base, recipe.rollouts.cache_bytes, here, kind)
        self._sampled_at: int | None = None

    @staticmethod
    def check(recipe: PolicyRecipe, launched: int) -> None:
        plan, method = recipe.optimisation, recipe.method
        unmet = {
            "torchrun and accelerate launch start processes": launched > 1,
            "lora": recipe.lora is not None,
            "optimisation.schedule = linear": plan.schedule == "linear",
            "rollouts.engine = vllm samples in the trainer's process": (
                recipe.rollouts.engine == "vllm"
            ),
            "rollouts.transfer = nccl sends from vLLM in the trainer's process": (
                recipe.rollouts.transfer == "nccl"
            ),
            "method.add: t1's anchor": method.anchor is not None,
        }
        for what, is_so in unmet.items():
            if is_so:
                raise RecipeError(
                    f"optimisation.engine = verl does not support this: {what}. Change it, or "
                    "train with optimisation.engine = accelerate"
                )
        check_processes(recipe, 1)

    # -- processes -------------------------------------------------------------------------

    def _started(self, base: ModelFiles, recipe: PolicyRecipe) -> Any:
        """Start the workers, without a model in them yet."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray

            _join(ray)
            device, nodes = placed(ray, recipe.optimisation.workers)
            if device == "cpu":
                os.environ.update(CPU)
                from . import verl_cpu  # noqa: F401  # where verl has been imported already
            from verl.single_controller.ray import (
                RayClassWithInitArgs,
                RayResourcePool,
                RayWorkerGroup,
            )

            from .verl_worker import Worker
        except ImportError as error:
            raise RecipeError(
                f"optimisation.engine: verl cannot be imported ({error}): `make setup-verl` makes "
                "an environment that has it, .venv-verl"
            ) from error
        self._ray, self._world = ray, sum(nodes)
        self._pool = RayResourcePool(nodes, use_gpu=device != "cpu", max_colocate_count=1)
        return RayWorkerGroup(
            self._pool,
            RayClassWithInitArgs(ray.remote(Worker), config=config(base, recipe)),
            use_gpu=device != "cpu",
            device_name=device,
            worker_env=CPU if device == "cpu" else {},
        )

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Call a method on all workers and return its result when all are done."""
        try:
            found = getattr(self._group, method)(*arguments)
            return found.get() if hasattr(found, "get") else found
        except self._ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None) or error
            raise WorkersLost(
                f"verl's workers failed in {method}: {type(cause).__name__}: {cause}; their logs "
                "are in /tmp/ray/session_latest/logs of their machines. Mend that, then go on "
                "from the last checkpoint with --resume"
            ) from error

    @property
    def share(self) -> Share:
        return Share(score=self._scored)

    @property
    def updates(self) -> int:
        return int(self._schedule.last_epoch)

    def reduce(self, values: Mapping[str, float]) -> dict[str, float]:
        return dict(values)

    def wait(self) -> None:
        """Do nothing: the loop runs in one process."""

    # -- rollouts --------------------------------------------------------------------------

    @contextmanager
    def sampler(self, greedy: bool = False) -> Iterator[Sampler]:
        if self._sampled_at != self.updates:
            self._apart.load(self.weights, self.updates)
            self._sampled_at = self.updates
        yield partial(self._apart.sample, 0.0 if greedy else self._temperature)

    def _scored(self, sequences: Sequence[Sequence[int]]) -> list[Scores]:
        """Scores of given tokens under the weights in training."""
        if not sequences:
            return []
        rows = [row_of(ids) for ids in sequences]
        arranged = self._arranged(rows)
        found = self._ask("infer_batch", self._batch(arranged, {}, compute_loss=False))
        pairs = zip(found["log_probs"].unbind(), found["entropy"].unbind(), strict=True)
        scores = {
            id(row): Scores(log_probs_W[:-1], entropies_W[:-1])
            for row, (log_probs_W, entropies_W) in zip(arranged, pairs, strict=True)
        }
        return [scores[id(row)] for row in rows]

    # -- updates ---------------------------------------------------------------------------

    def pack(self, rows: Sequence[Row], remember: bool, behind: int = 0) -> Packed:
        """One batch for all workers; verl splits it."""
        alone = [piece for row in telling(rows, 1) for piece in unpack(row)]
        arranged = self._arranged(alone)
        drawn = self._drawn(arranged, self.updates - behind)
        batch = self._batch(arranged, drawn, update_lr_scheduler=True)
        if remember:
            scored = batch.copy()
            scored.set_non_tensor("compute_loss", False)
            batch["old_log_probs"] = self._ask("infer_batch", scored)["log_probs"]
        return [batch]

    def _arranged(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with an advantage, and others until every worker and each of its passes has
        equally many. A worker's rows are adjacent, and workers have similar numbers of tokens.
        """
        from verl.utils.seqlen_balancing import get_seqlen_balanced_partitions

        unit = self._world * (1 if self._plan.tokens_per_pass else self._plan.micro_batches)
        teaching = max(1, sum(row.learnt_tokens > 0 for row in rows))
        taken = telling(rows, -(-teaching // unit) * unit, zeros=True)
        parts = get_seqlen_balanced_partitions(
            [row.tokens for row in taken], self._world, equal_size=True
        )
        return [taken[i] for part in parts for i in sorted(part, key=lambda i: taken[i].tokens)]

    def _batch(self, rows: Sequence[Row], more: Mapping[str, torch.Tensor], **told: bool) -> Any:
        """The `TensorDict` of some rows; a token's columns stand at the place that predicts it."""
        from verl.utils.tensordict_utils import get_tensordict

        ids = [(*row.prompt, *row.completion) for row in rows]
        before = [(0.0,) * (len(row.prompt) - 1) for row in rows]
        tensors = {
            "input_ids": _ragged(ids, torch.long),
            "position_ids": _ragged([range(len(row)) for row in ids], torch.long),
            "loss_mask": _ragged(
                [(*lead, *row.learnt, 0.0) for lead, row in zip(before, rows, strict=True)]
            ),
            "advantages": _ragged(
                [(*lead, *row.advantages, 0.0) for lead, row in zip(before, rows, strict=True)]
            ),
            **more,
            **{n: torch.tensor([row.columns[n] for row in rows]) for n in rows[0].columns},
        }
        most = self._plan.tokens_per_pass
        passes = (
            {"micro_batch_size_per_gpu": len(rows) // self._world // self._plan.micro_batches}
            if most is None
            else {"max_token_len_per_gpu": max(most, *map(len, ids))}
        )
        told |= {"calculate_entropy": True, "use_dynamic_bsz": most is not None}
        return get_tensordict(tensors, {**passes, **told, "temperature": self._temperature})

    def _drawn(self, rows: Sequence[Row], version: int) -> dict[str, torch.Tensor]:
        """The servers' log-probabilities of the tokens, where `correction` needs them."""
        if self._cap is None or isinstance(self._apart, CopySampler):
            return {}
        told = [self._apart.drawn[version].row(row) for row in rows]
        return {DRAWN: _ragged([(*row[1:], math.nan) for row in told])}

    def update(self, packed: Packed, objective: Objective, denominator: float) -> Learnt:
        (batch,) = packed
        if objective is not self._objective:
            from .verl_worker import loss

            self._ask("set_loss_fn", partial(loss, objective, self._cap))
            self._objective = objective
        batch.set_non_tensor("denominator", max(denominator, 1.0))
        measured = self._ask("train_batch", batch)["metrics"]
        for what, name in (("loss", "loss"), ("gradient's norm", "grad_norm")):
            if not math.isfinite(measured[name]):
                raise Diverged(what, measured[name], self.updates + 1)
        rate = float(self._schedule.get_last_lr()[0])
        self._schedule.step()
        # Lists are the objective's counts by process and micro-batch; numbers are verl's own.
        sums = {n: sum(map(sum, it)) for n, it in measured.items() if isinstance(it, list)}
        return Learnt(measured["grad_norm"], rate, {**sums, "loss": measured["loss"]})

    # -- weights and checkpoints -----------------------------------------------------------

    @property
    def model(self) -> Any:
        return self._bare

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        tied = self.model.all_tied_weights_keys
        self._ask("begin_weights")
        while found := self._ask("next_weights", _TENSORS_AT_ONCE)[0]:
            yield from ((name, tensor) for name, tensor in found.items() if name not in tied)

    def save_adapters(self, directory: Path) -> None:
        """Do nothing: verl trains no adapters here."""

    def save(self, directory: Path) -> None:
        self._ask("save_checkpoint", str(directory.resolve()))
        state = {"updates": self.updates, "workers": self._world}
        (directory / _STATE).write_text(json.dumps(state))

    def resume(self, directory: Path) -> None:
        path = directory / _STATE
        if not path.exists():
            raise CheckpointError(
                f"{directory} was not written by verl: resume it with the engine that began it"
            )
        state = json.loads(path.read_text())
        if state["workers"] != self._world:
            raise CheckpointError(
                f"{state['workers']} workers wrote {directory}, but here are {self._world}: set "
                f"optimisation.workers to {state['workers']}"
            )
        self._ask("load_checkpoint", str(directory.resolve()))
        self._schedule = _schedule(self._plan, state["updates"])
        self._sampled_at = None

    # -- trackers --------------------------------------------------------------------------

    def report(self, update: int, figures: Mapping[str, float]) -> None:
        self._trackers.report(update, figures)

    def show(self, update: int, samples: Sequence[Mapping[str, object]]) -> None:
        self._trackers.show(update, samples)

    def close(self) -> None:
        self._trackers.close()
        self._apart.close()
        for worker in self._group.workers:
            self._ray.kill(worker)
        for group in self._pool.get_placement_groups():
            self._ray.util.remove_placement_group(group)


def _schedule(plan: PolicyOptimisation, updates: int) -> Any:
    """The workers' schedule after `updates` updates: gives the rate without asking a worker."""
    still = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=plan.learning_rate)
    made = schedule(plan, still)
    still.step()
    for _ in range(updates):
        made.step()
    return made


def _join(ray: Any) -> None:
    """Join the running Ray cluster, or start one on this machine that ends with this process."""
    if ray.is_initialized():
        return
    try:
        ray.init(log_to_driver=False, include_dashboard=False, logging_level="WARNING")
    except Exception as error:  # Ray raises it where a part of it does not start in half a minute
        raise WorkersLost(
            f"Ray does not start: {error} Its logs are in /tmp/ray/session_latest/logs; on a "
            "machine that does much else, try again when it does less"
        ) from error


def _ragged(rows: Sequence[Sequence[float]], kind: torch.dtype = torch.float) -> torch.Tensor:
    tensors = [torch.tensor(list(row), dtype=kind) for row in rows]
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)
