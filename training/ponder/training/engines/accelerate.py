"""Training by accelerate alone: in one process, by DDP, FSDP2 or DeepSpeed, as it was launched.

accelerate manages processes, devices, sharding, autocast and checkpoints; the optimizer is
PyTorch's AdamW, adapters are PEFT's.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, set_seed
from safetensors.torch import load_file, load_model

from ponder.engine.tokenizer import ModelFiles

from ..method.batch import Scores
from ..method.kernel import Objective, aggregate
from ..method.t1 import REFERENCE
from ..rollout.drive import Sampler
from ..rollout.experience import Share
from ..rollout.rows import (
    Row,
    collate,
    loss_inputs,
    passes_of,
    split_further,
    telling,
)
from ..rollout.sampler import sample
from ..run.checks import check_processes
from ..run.recipe import PolicyRecipe, RecipeError
from .anchor import Anchor
from .copied import CopySampler, rounded_kind
from .correction import DRAWN, corrected
from .heap import give_back, keep_few_kernels
from .loading import adapted, loaded
from .optimizers import optimizer, schedule
from .protocol import CheckpointError, Costs, Diverged, Learnt
from .scoring import add_scoring, score, score_all
from .sharding import gathered, merged
from .trackers import Trackers

if TYPE_CHECKING:
    from .served import ServedSampler
    from .vllm import VLLMSampler

MicroBatch = dict[str, torch.Tensor]
"""Tensors of some rows (`rollout.rows.collate`), on the engine's device."""

_ADAPTERS = "adapter_model.safetensors"
_WEIGHTS = "model.safetensors"


class AccelerateEngine:
    """A `TrainingEngine` for the checkpoint `base` and a recipe.

    Trackers of `recipe.report_to` write below `out`.
    """

    costs = Costs()

    @staticmethod
    def check(recipe: PolicyRecipe, launched: int) -> None:
        if recipe.optimisation.workers is not None:
            raise RecipeError(
                "optimisation.workers is for optimisation.engine = verl: set it to null; torchrun "
                "or accelerate launch starts this engine's processes"
            )
        check_processes(recipe, launched)

    def __init__(self, base: ModelFiles, recipe: PolicyRecipe, out: Path) -> None:
        plan = recipe.optimisation
        keep_few_kernels()
        self._plan = plan
        self._temperature = recipe.rollouts.temperature
        self._room = recipe.rollouts.cache_bytes
        self._trackers = Trackers(recipe, out)
        # The recipe's precision overrides accelerate's configuration.
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision="bf16" if plan.precision == "bfloat16" else "no",
            kwargs_handlers=[
                DistributedDataParallelKwargs(
                    find_unused_parameters=not plan.gradient_checkpointing
                )
            ],
            **self._trackers.options,
        )
        set_seed(recipe.seed)  # of the adapters
        model = loaded(base, recipe)
        add_scoring(model, self._temperature)
        self._base = model
        self._scaling = 0.0
        if recipe.lora is not None:
            model = adapted(model, recipe)
            self._scaling = recipe.lora.alpha / recipe.lora.rank
        if plan.gradient_checkpointing:
            model.gradient_checkpointing_enable()
            if recipe.lora is not None:
                model.enable_input_require_grads()  # of the frozen layers below the adapters
        parameters = model.num_parameters()  # a shard would count its own alone
        self._model, self._optimizer = self._prepared(model)
        self._model.train()
        self._schedule = schedule(plan, self._optimizer)
        self._accelerator.register_for_checkpointing(self._schedule)
        self._anchor: Anchor | None = None
        if (decay := recipe.method.anchor) is not None:
            self._anchor = Anchor(self._model, decay)
            self._accelerator.register_for_checkpointing(self._anchor)
        self._accelerator.register_save_state_pre_hook(self._save_weights)
        self._accelerator.register_load_state_pre_hook(self._load_weights)
        # A sampler with weights of its own; None where the weights in training sample.
        self._apart: CopySampler | VLLMSampler | ServedSampler | None = None
        self._sampled_at: int | None = None
        self._cap: float | None = None
        if recipe.rollouts.engine == "vllm":
            from .vllm import VLLMSampler, options_for

            options = options_for(recipe, self.share.world)
            self._apart = VLLMSampler(base, self.share, options)
            self._cap = recipe.rollouts.sampler_cap
        elif recipe.rollouts.engine == "http":
            from .served import ServedSampler

            rank = self.share.rank
            self._apart = ServedSampler(base, recipe, out, rank=rank, wait=self.wait)
            self._cap = recipe.rollouts.sampler_cap
        elif plan.precision == "bfloat16":
            device = self._accelerator.device
            kind = rounded_kind(device, parameters)
            self._apart = CopySampler(base, self._room, device, kind)
        self._trackers.begin(self._accelerator)

    def _prepared(self, model: Any) -> tuple[Any, Any]:
        """The model wrapped for its processes, and its optimizer."""
        plan = self._plan
        chosen = optimizer(plan, model.parameters())
        if plugin := self._accelerator.state.deepspeed_plugin:
            # DeepSpeed counts passes and clips by itself.
            plugin.deepspeed_config |= {
                "train_micro_batch_size_per_gpu": 1,
                "gradient_accumulation_steps": 1,  # accelerate says which pass is the last
                "gradient_clipping": plan.clip_norm,
            }
        model, chosen = self._accelerator.prepare(model, chosen)
        return model, chosen

    # -- processes -------------------------------------------------------------------------

    @property
    def share(self) -> Share:
        rank, world = self._accelerator.process_index, self._accelerator.num_processes
        return Share(rank, world, self._added_up, self._scored)

    def _added_up(self, sums: torch.Tensor) -> torch.Tensor:
        """`sums` added up over all processes, on their original device."""
        total: torch.Tensor = self._accelerator.reduce(sums.to(self._accelerator.device), "sum")
        return total.to(sums.device)

    def _scored(self, sequences: Sequence[Sequence[int]]) -> list[Scores]:
        """Scores of given tokens under the weights in training; a process may ask by itself."""
        if not sequences:
            return []
        model = self._accelerator.unwrap_model(self._model)
        plan = self._plan  # its limits hold; processes may differ in their number of passes
        with gathered(self._model) if self._apart is not None else nullcontext():
            return score_all(
                model, sequences, plan.micro_batches, plan.tokens_per_pass, self._accelerator.device
            )

    @property
    def updates(self) -> int:
        return int(self._schedule.last_epoch)

    def reduce(self, values: Mapping[str, float]) -> dict[str, float]:
        names = sorted(values)
        local = torch.tensor(
            [float(values[n]) for n in names], dtype=torch.double, device=self._accelerator.device
        )
        totals = self._accelerator.reduce(local, "sum")
        return dict(zip(names, totals.tolist(), strict=True))

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    # -- rollouts --------------------------------------------------------------------------

    @contextmanager
    def sampler(self, greedy: bool = False) -> Iterator[Sampler]:
        temperature = 0.0 if greedy else self._temperature
        if self._apart is not None:
            if self._sampled_at != self.updates:
                self._apart.load(self.weights, self.updates)
                self._sampled_at = self.updates
            yield partial(self._apart.sample, temperature)
            return
        model = self._accelerator.unwrap_model(self._model)
        with gathered(self._model):
            model.eval()
            try:
                yield partial(_sample, model, (temperature, self._room))
            finally:
                model.train()

    # -- updates ---------------------------------------------------------------------------

    def pack(self, rows: Sequence[Row], remember: bool, behind: int = 0) -> list[MicroBatch]:
        packed = []
        for part in self._parts(rows):
            batch = collate(part, pad_id=0)
            if self._cap is not None and not isinstance(self._apart, CopySampler | None):
                width = batch["input_ids"].shape[1]
                batch[DRAWN] = self._apart.drawn[self.updates - behind].collated(part, width)
            packed.append({k: v.to(self._accelerator.device) for k, v in batch.items()})
        if remember:
            for batch in packed:
                with torch.no_grad():
                    batch["old_log_probs"], _ = score(self._model, batch)
        if self._anchor is not None:
            with torch.no_grad(), self._anchor.inside():
                for batch in packed:
                    batch[REFERENCE], _ = score(self._model, batch)
        return packed

    def _parts(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Split rows into equally many passes on every process; sharded models meet in each."""
        plan = self._plan
        told = telling(rows, plan.micro_batches, zeros=self._anchor is not None)
        parts = passes_of(told, plan.micro_batches, plan.tokens_per_pass)
        if plan.tokens_per_pass is None:
            return parts
        here = torch.tensor([len(parts)], device=self._accelerator.device)
        return split_further(parts, int(self._accelerator.gather(here).max()))

    def update(
        self,
        packed: Sequence[MicroBatch],
        objective: Objective,
        denominator: float,
    ) -> Learnt:
        accelerator = self._accelerator
        total = self.reduce({"denominator": denominator})["denominator"]
        # accelerate averages gradients over the processes; the update needs the sum over all rows.
        divisor = max(total, 1.0) / accelerator.num_processes
        # The divisor already includes a micro-batch's share of the batch.
        options = {"scale_wrt_gas": False} if accelerator.state.deepspeed_plugin else {}
        sums: dict[str, float] = defaultdict(float)
        for i, batch in enumerate(packed):
            last = accelerator.sync_gradients = i == len(packed) - 1
            with nullcontext() if last else accelerator.no_sync(self._model):
                accelerator.backward(self._loss(batch, objective, divisor, sums), **options)
        norm = float(accelerator.clip_grad_norm_(self._model.parameters(), self._plan.clip_norm))
        if not math.isfinite(norm):
            raise Diverged("gradient's norm", norm, self.updates + 1)
        rate = float(self._schedule.get_last_lr()[0])
        self._optimizer.step()
        if self._anchor is not None:
            self._anchor.follow()
        self._schedule.step()
        self._optimizer.zero_grad()
        if accelerator.device.type == "cpu":
            give_back()
        return Learnt(norm, rate, sums)

    def _loss(
        self,
        batch: MicroBatch,
        objective: Objective,
        divisor: float,
        sums: dict[str, float],
    ) -> torch.Tensor:
        """The loss of a micro-batch; adds its measurements to `sums`."""
        log_probs_BT, entropies_BT = score(self._model, batch)
        mask_BT = batch["loss_mask"]
        rows = loss_inputs(batch, log_probs_BT, entropies_BT)
        found = corrected(objective(rows), rows, batch.get(DRAWN), self._cap)
        loss = -aggregate(found.per_token_BT, mask_BT, divisor)
        if not torch.isfinite(loss):
            raise Diverged("loss", loss.item(), self.updates + 1)
        entropy = (entropies_BT * mask_BT).sum()
        for name, value in {**found.stats, "entropy": entropy, "loss": loss.detach()}.items():
            sums[name] += float(value)
        return loss

    # -- weights and checkpoints -----------------------------------------------------------

    @property
    def model(self) -> Any:
        return self._base

    def weights(self) -> Iterator[tuple[str, torch.Tensor]]:
        state = self._accelerator.unwrap_model(self._model).state_dict(keep_vars=True)
        tied = self._base.all_tied_weights_keys  # copies of other weights
        return ((n, whole) for n, whole in merged(state, self._scaling) if n not in tied)

    def save_adapters(self, directory: Path) -> None:
        if self._scaling and self._accelerator.is_main_process:
            self._accelerator.unwrap_model(self._model).save_pretrained(directory)

    def save(self, directory: Path) -> None:
        self._accelerator.save_state(str(directory))

    def resume(self, directory: Path) -> None:
        if (directory / "trainer_state.json").exists():
            raise CheckpointError(
                f"{directory} was written by a release of Ponder that trained through TRL, whose "
                "checkpoints this one cannot continue: finish the run with that release, or start "
                "it anew with another --out"
            )
        self._accelerator.load_state(str(directory))

    def _save_weights(self, _: Any, states: list[Any], directory: str) -> None:
        """Save weights under transformers' names; sharded weights are in accelerate's own files."""
        if states and self._accelerator.is_main_process:
            model = self._accelerator.unwrap_model(self._model)
            model.save_pretrained(directory, max_shard_size="1TB")
        states.clear()

    def _load_weights(self, models: list[Any], directory: str) -> None:
        if models and self._scaling:
            from peft import set_peft_model_state_dict

            model = self._accelerator.unwrap_model(self._model)
            set_peft_model_state_dict(model, load_file(Path(directory) / _ADAPTERS))
        elif models:
            load_model(self._base, str(Path(directory) / _WEIGHTS))
        models.clear()

    # -- trackers --------------------------------------------------------------------------

    def report(self, update: int, figures: Mapping[str, float]) -> None:
        self._trackers.report(update, figures)

    def show(self, update: int, samples: Sequence[Mapping[str, object]]) -> None:
        self._trackers.show(update, samples)

    def close(self) -> None:
        self._trackers.close()
        if self._apart is not None:
            self._apart.close()


def _sample(
    model: Any,
    settings: tuple[float, float],
    prompts: Sequence[Sequence[int]],
    noise_BT: torch.Tensor,
    stop_ids: frozenset[int],
) -> list[list[int]]:
    temperature, room = settings
    return sample(model, prompts, noise_BT, stop_ids=stop_ids, temperature=temperature, room=room)
