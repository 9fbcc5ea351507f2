"""TRL's GRPO loop with our rollouts, advantages and objectives: one narrow subclass.

TRL and accelerate keep what they are good at: processes, devices, sharding, LoRA, optimizers,
schedules, checkpoints and reporting. What is overridden is private in TRL, so the version is
pinned and `tests/training/engines/test_trl_contract.py` watches every hook.

One generation batch of TRL is one step of ours: rows for several optimizer updates, each split
into micro-batches of similar length.
"""

from __future__ import annotations

import math
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback

from ..method.kernel import Objective, aggregate
from ..rollout.drive import Sampler
from ..rollout.experience import COUNTS, Collector, Experience, Share
from ..rollout.rows import collate, loss_inputs, score, split_by_tokens
from ..rollout.sampler import sample
from ..run.directory import CHECKPOINTS, checkpoints

with warnings.catch_warnings():
    # TRL supports colocated rollouts with some releases of vLLM only, and says so at import.
    warnings.filterwarnings("ignore", message="TRL currently supports vLLM", category=UserWarning)
    from trl import GRPOConfig, GRPOTrainer
    from trl.models import unwrap_model_for_generation

_STAGING = "staging"

__all__ = ["BudgetTrainer", "Diverged", "GRPOConfig"]


class Diverged(RuntimeError):
    """The loss or its gradient is NaN or infinite; the message names the update and the remedy."""

    def __init__(self, what: str, value: float, update: int) -> None:
        super().__init__(
            f"the {what} is {value} at update {update}: train again into another directory with a "
            "smaller learning_rate or clip_norm; the last checkpoint is from before"
        )


class BudgetTrainer(GRPOTrainer):  # type: ignore[misc]  # trl is untyped
    """Learns from a `Collector` with a method's `objective` (rows → per-token objective).

    `constant_tokens` is the fixed denominator of a row's loss (Dr. GRPO); None takes the mean over
    all learnt tokens of an update. `observe` gets each step's experience on the main process.
    """

    def __init__(
        self,
        *args: Any,
        collector: Collector,
        objective: Objective,
        constant_tokens: int | None,
        observe: Callable[[int, Experience], None],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self._buffered_inputs: list[dict[str, torch.Tensor]] | None = None
        self._last_loaded_step: int
        self._collector = collector
        self._objective = objective
        self._constant_tokens = constant_tokens
        self._observe = observe
        self._stats: dict[str, float] = defaultdict(float)

    # -- rollouts --------------------------------------------------------------------------

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, torch.Tensor]:
        """The next micro-batch; every `steps_per_generation` of them, a new step's rollouts."""
        every = self.args.steps_per_generation
        if self._step % every == 0 or self._buffered_inputs is None:
            self._buffered_inputs = self._roll_out()
        batch: dict[str, torch.Tensor] = self._buffered_inputs[self._step % every]
        return batch

    def _roll_out(self) -> list[dict[str, torch.Tensor]]:
        accelerator, updates = self.accelerator, self._updates
        step = self.state.global_step // updates
        rank, world = accelerator.process_index, accelerator.num_processes
        share = Share(rank, world, self._added_up)
        with self.sampler() as sampler:
            experience = self._collector.collect(step, sampler, share)
        parts = self.args.gradient_accumulation_steps
        batches, denominators = [], []
        for rows in experience.updates:
            denominators.append(
                len(rows) * self._constant_tokens
                if self._constant_tokens
                else sum(row.learnt_tokens for row in rows)
            )
            for part in split_by_tokens(rows, parts):
                batch = collate(part, self.processing_class.pad_token_id)
                batches.append({k: v.to(accelerator.device) for k, v in batch.items()})
        totals = accelerator.reduce(
            torch.tensor(denominators, device=accelerator.device, dtype=torch.float), "sum"
        ).clamp(min=1)
        for i, batch in enumerate(batches):
            # Gradients are averaged over processes: the sum over all rows is wanted.
            batch["denominator"] = totals[i // parts] / accelerator.num_processes
        self._remember(batches[parts:])
        self._note(step, experience)
        return batches

    def _added_up(self, sums: torch.Tensor) -> torch.Tensor:
        """`sums` of all processes together, on the device that they came from."""
        total: torch.Tensor = self.accelerator.reduce(sums.to(self.accelerator.device), "sum")
        return total.to(sums.device)

    @property
    def _updates(self) -> int:
        """Optimizer updates per rollout."""
        every: int = self.args.steps_per_generation
        return every // int(self.args.gradient_accumulation_steps)

    @torch.no_grad()
    def _remember(self, batches: Sequence[dict[str, torch.Tensor]]) -> None:
        """Score later updates' rows under the policy that sampled them; the first update is it."""
        for batch in batches:
            with self.compute_loss_context_manager():
                batch["old_log_probs"], _ = score(self.model, batch)

    @contextmanager
    def sampler(self) -> Iterator[Sampler]:
        """Samples from the current weights: colocated vLLM where it is on, else transformers."""
        if self.use_vllm:
            if self.state.global_step != self._last_loaded_step:
                self.vllm_generation.sync_weights()
                self._last_loaded_step = self.state.global_step
            yield self._vllm_sample
            return
        with (
            unwrap_model_for_generation(
                self.model_wrapped,
                self.accelerator,
                gather_deepspeed3_params=self.args.ds3_gather_for_generation,
            ) as model,
            self._dist.summon_full_params(self.model_wrapped, recurse=False),
            _gathered(model),
        ):
            training = model.training
            model.eval()

            def draw(
                prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
            ) -> list[list[int]]:
                return sample(
                    model, prompts, noise_BT, stop_ids=stop_ids, temperature=self.temperature
                )

            yield draw
            model.train(training)

    def _vllm_sample(
        self, prompts: Sequence[Sequence[int]], noise_BT: torch.Tensor, stop_ids: frozenset[int]
    ) -> list[list[int]]:
        """vLLM draws its own noise: of `noise_BT` only the length counts."""
        self.vllm_generation.generation_kwargs = {
            "max_tokens": noise_BT.shape[1],
            "stop_token_ids": sorted(stop_ids),
        }
        ids, _ = self._generate_single_turn([list(p) for p in prompts], None, {}, 1)
        return [list(row) for row in ids]

    # -- loss ------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        log_probs_BT, entropies_BT = score(model, dict(inputs))
        mask_BT = inputs["loss_mask"]
        objective = self._objective(loss_inputs(inputs, log_probs_BT, entropies_BT))
        loss = -aggregate(objective.per_token_BT, mask_BT, inputs["denominator"])
        if not torch.isfinite(loss):
            raise Diverged("loss", loss.item(), self.state.global_step + 1)
        sums = {**objective.stats, "entropy": (entropies_BT.detach() * mask_BT).sum()}
        for name, value in sums.items():
            self._stats[name] += float(value)
        return loss

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm, known to be finite: the step that follows would spoil the weights."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if norm is not None and not math.isfinite(norm):
            raise Diverged("gradient's norm", float(norm), self.state.global_step + 1)
        return norm

    # -- metrics and checkpoints -----------------------------------------------------------

    def _note(self, step: int, experience: Experience) -> None:
        """Average a step's metrics over the processes; counts are summed."""
        names = sorted(experience.metrics)
        local = torch.tensor([experience.metrics[n] for n in names], device=self.accelerator.device)
        totals = self.accelerator.reduce(local, "sum")
        for name, total in zip(names, totals.tolist(), strict=True):
            counted = name in COUNTS
            self._metrics["train"][name].append(
                total if counted else total / self.accelerator.num_processes
            )
        if self.accelerator.is_main_process:
            self._observe(step, experience)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's log with what the updates counted since the last one, as shares of their tokens."""
        if self._stats:
            names = sorted(self._stats)
            local = torch.tensor([self._stats[n] for n in names], device=self.accelerator.device)
            totals = dict(zip(names, self.accelerator.reduce(local, "sum").tolist(), strict=True))
            tokens = max(totals.pop("tokens"), 1.0)
            logs.update({name: total / tokens for name, total in totals.items()})
            logs["learnt_tokens"] = tokens
            self._stats.clear()
        super().log(logs, start_time)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: a run exports a directory of its own."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(Path(self.args.output_dir) / _STAGING)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write into a staging directory, then move: a checkpoint is whole or not there."""
        name = f"checkpoint-{self.state.global_step}"
        staged = Path(self._get_output_dir(trial)) / name
        if self.accelerator.is_main_process:
            shutil.rmtree(staged.parent, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self._collector.save(staged)
            final = Path(self.args.output_dir) / CHECKPOINTS / name
            final.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(final, ignore_errors=True)
            staged.rename(final)
            staged.parent.rmdir()
            for old in checkpoints(Path(self.args.output_dir))[: -self.args.save_total_limit]:
                shutil.rmtree(old)
        self.accelerator.wait_for_everyone()


@contextmanager
def _gathered(model: Any) -> Iterator[None]:
    """All of FSDP2's shards together while processes sample, each for as long as it takes.

    A forward pass would gather them layer by layer, and wait for passes that others do not make.
    """
    from torch.distributed.fsdp import FSDPModule

    sharded = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in sharded:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    try:
        yield
    finally:
        for module in sharded:
            module.set_reshard_after_forward(True, recurse=False)
            module.reshard()
