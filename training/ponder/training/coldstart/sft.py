"""Supervised cold start: next-token prediction on written thoughts, from scratch.

One loop on one page. Muon turns the matrices' momentum into near-orthogonal updates and trains
small models from scratch several times faster than AdamW alone; AdamW keeps the embedding and the
norms.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from ponder.errors import TrainingError
from ponder.evaluation.bars import step_bar

from ..run.directory import place_checkpoint, record
from ..run.recipe import SftRecipe
from .examples import Example, ExampleWriter, batches, tokenizer_corpus
from .model import build_model
from .muon import Muon
from .stream import BatchStream, Place
from .tokenizer import train_tokenizer
from .writers import Written, WrittenAhead, collate

_FINAL_LR_SHARE = 0.02
_VALIDATION_BATCHES = 8
_STATE = "state.pt"
_FIGURES = ("losses", "validation", "tokens", "seconds")


class NotFinite(TrainingError):
    """The loss is NaN or infinite; the message names the step and the remedy."""


@dataclass(slots=True)
class SftResult:
    """A run's result: the model, its tokenizer, and losses in nats per learnt token."""

    model: Any
    tokenizer: Any
    losses: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def reached(self) -> Iterator[str]:
        """Sentences that summarise the run for its user."""
        yield f"trained on {self.tokens:,} tokens in {self.seconds / 60:.1f} minutes"
        yield f"loss: {self.losses[0]:.3f} → {self.losses[-1]:.3f} nats a token"
        if self.validation:
            (_, first), (_, last) = self.validation[0], self.validation[-1]
            yield f"validation: {first:.3f} → {last:.3f}, on problems that were not trained on"


def train_sft(
    recipe: SftRecipe,
    progress: bool = True,
    *,
    out: Path | None = None,
    start: Path | None = None,
    device: torch.device | None = None,
    end: float = math.inf,
) -> SftResult:
    """Train from scratch; on the CPU a function of the recipe (its seed included).

    `progress` shows a bar with the loss, tokens/s and the time left. Checkpoints go to `out`. A run
    resumed from the checkpoint `start` ends with the same weights as an uninterrupted one. `device`
    is `fastest()` unless given. A GPU multiplies in bfloat16. There, and where an `end` is given,
    other processes write the batches, and a resumed run learns from examples of its own. The run
    ends at `end` (of the monotonic clock) or after its steps, whichever comes first; the schedule
    and the early terse examples are scaled to that end.
    """
    device = device or fastest()
    plan, saved = recipe.optimisation, recipe.checkpoints
    torch.manual_seed(recipe.seed)
    rng = Random(recipe.seed)
    tokenizer = train_tokenizer(
        tokenizer_corpus(rng, 4000, recipe.traces), recipe.model.vocabulary, recipe.model.positions
    )
    # Made on the CPU, so that the initial weights are the same on every device.
    result = SftResult(build_model(recipe.model, tokenizer).to(device), tokenizer)
    optimizers = build_optimizers(result.model, plan.muon_lr, plan.adamw_lr)
    pace = _Pace(plan.steps, time.monotonic(), end)
    factor = lr_schedule(plan.warmup_steps, plan.steps)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda step: factor(pace.at(step))) for o in optimizers
    ]
    state = _State(result, [result.model, *optimizers, *schedules])
    place = state.load(start) if start else None
    writer = ExampleWriter(tokenizer, recipe.traces, "train")
    terse_steps = int(plan.steps * recipe.traces.terse_until)
    stream = BatchStream(writer, rng, plan.tokens_per_step, terse_steps, place)
    held_out = _validation_batches(tokenizer, recipe) if plan.validate_every else []

    done = len(result.losses)
    rounded = plan.precision == "bfloat16" or device.type == "cuda"
    ahead = None
    if device.type == "cuda" or end < math.inf:
        key = f"{recipe.seed}/{done}"
        ahead = WrittenAhead(writer, key, plan.tokens_per_step, pace.at(done) < terse_steps)
    began = time.monotonic() - result.seconds
    with (
        step_bar(recipe.name, plan.steps, done, progress) as bar,
        closing(ahead or _written_here(stream)) as given,
    ):
        for step, batch in zip(range(done + 1, plan.steps + 1), given, strict=False):
            if ahead is not None:
                ahead.terse(pace.at(step) < terse_steps)
            loss = written_loss(result.model, batch, rounded)
            if not torch.isfinite(loss):
                raise NotFinite(
                    f"the loss is {loss.item()} at step {step}: train again with a smaller "
                    "muon_lr, adamw_lr or clip_norm"
                )
            torch.autograd.backward(loss)
            torch.nn.utils.clip_grad_norm_(result.model.parameters(), plan.clip_norm)
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
                optimizer.zero_grad(set_to_none=True)
            result.losses.append(loss.item())
            result.tokens += batch.tokens
            result.seconds = time.monotonic() - began
            last = pace.at(step) >= plan.steps
            if plan.validate_every and (step % plan.validate_every == 0 or last):
                result.validation.append((step, mean_loss(result.model, held_out)))
            if out and (step % saved.every == 0 or last):
                record(recipe, out)
                at = stream.place if ahead is None else _apart(recipe.seed, step)
                place_checkpoint(out, step, saved.keep, partial(state.save, at))
            bar.set_postfix_str(_meter(result), refresh=False)
            bar.update()
            if last:
                break
    return result


@dataclass(frozen=True, slots=True)
class _Pace:
    """A run's progress in steps of its plan, by steps or by time, whichever is further."""

    steps: int
    began: float
    end: float

    def at(self, step: int) -> int:
        now = time.monotonic()
        share = 1.0 if now >= self.end else (now - self.began) / (self.end - self.began)
        return max(step, int(self.steps * share))


def _apart(seed: int, step: int) -> Place:
    """Where a resumed run goes on by itself after `step` batches that other processes wrote."""
    return Place(Random(f"{seed}/{step}").getstate(), step, 0)


def _written_here(stream: Iterator[Sequence[Example]]) -> Generator[Written]:
    for batch in stream:
        yield Written(*collate(batch), sum(len(example.ids) for example in batch))


@dataclass(frozen=True, slots=True)
class _State:
    """The state that a run changes: its result, and the `parts` that have a `state_dict`."""

    result: SftResult
    parts: Sequence[Any]

    def save(self, place: Place, directory: Path) -> None:
        figures = {name: getattr(self.result, name) for name in _FIGURES}
        parts = [part.state_dict() for part in self.parts]
        torch.save({"parts": parts, "place": tuple(place), **figures}, directory / _STATE)

    def load(self, directory: Path) -> Place:
        held = torch.load(directory / _STATE, map_location="cpu", weights_only=True)
        for part, state in zip(self.parts, held["parts"], strict=True):
            part.load_state_dict(state)
        for name in _FIGURES:
            setattr(self.result, name, held[name])
        return Place(*held["place"])


def fastest() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def batch_loss(model: Any, batch: Sequence[Example]) -> torch.Tensor:
    """Mean cross-entropy over the learnt tokens of a batch, in nats; a scalar with gradient."""
    return written_loss(model, Written(*collate(batch), 0))


def written_loss(model: Any, batch: Written, rounded: bool = False) -> torch.Tensor:
    """`batch_loss` of a batch that is already in tensors; `rounded` multiplies in bfloat16."""
    device = model.device
    ids_B_T, learnt_B_T = batch.ids_B_T.to(device), batch.learnt_B_T.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=rounded):
        # Padding is on the right and attention is causal: no learnt position ever sees it.
        hidden_B_T_D = model.model(input_ids=ids_B_T[:, :-1]).last_hidden_state
        # The head runs on the learnt positions alone: prompts need no logits.
        learnt_B_S = learnt_B_T[:, 1:]
        logits_N_V = model.lm_head(hidden_B_T_D[learnt_B_S])
    return cross_entropy(logits_N_V.float(), ids_B_T[:, 1:][learnt_B_S])


@torch.no_grad()
def mean_loss(model: Any, held_out: Sequence[Sequence[Example]]) -> float:
    """Loss over several batches, in nats per learnt token, each batch weighed alike."""
    return sum(batch_loss(model, batch).item() for batch in held_out) / len(held_out)


def build_optimizers(model: Any, muon_lr: float, adamw_lr: float) -> list[torch.optim.Optimizer]:
    """Muon on the matrices inside the layers, AdamW on the embedding (tied head) and the norms."""
    inner = dict(model.model.layers.named_parameters())
    matrices = [p for p in inner.values() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        Muon(matrices, lr=muon_lr),
        torch.optim.AdamW(rest, lr=adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def lr_schedule(warmup: int, steps: int) -> Callable[[int], float]:
    """Factor on the learning rate by step: a linear rise, then a cosine fall to a fiftieth."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        return _FINAL_LR_SHARE + (1 - _FINAL_LR_SHARE) * (1 + math.cos(math.pi * done)) / 2

    return factor


def _validation_batches(tokenizer: Any, recipe: SftRecipe) -> list[list[Example]]:
    held_out = recipe.traces.model_copy(update={"everyday": 0.0, "tools": 0.0})  # the families
    writer = ExampleWriter(tokenizer, held_out, "validation")
    stream = batches(writer, Random(recipe.seed), recipe.optimisation.tokens_per_step, 0)
    return list(islice(stream, _VALIDATION_BATCHES))


def _meter(result: SftResult) -> str:
    speed = result.tokens / max(result.seconds, 1e-9)
    told = f"loss {result.losses[-1]:.3f}, {speed:,.0f} tokens/s"
    return told + (f", validation {result.validation[-1][1]:.3f}" if result.validation else "")
