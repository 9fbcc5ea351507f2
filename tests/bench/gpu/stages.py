"""One stage in a process: `python -m tests.bench.gpu.stages NAME --folder F` writes figures.json.

agreement           the CPU and the GPU, in float32: scores, one gradient, samples
method:NAME         two steps of a method, then again from its checkpoint
speed:SIZE:KIND     a step of 64 x 16 rows of up to 256 tokens, and what it spends its time on
graphs:SIZE:KIND    sampling with and without CUDA graphs
cold-start:SIZE     supervised training from scratch, in tokens a second
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ponder.tasks.workers import VerifierPool
from ponder.training.base import Base
from ponder.training.coldstart.model import build_model
from ponder.training.coldstart.sft import train_sft
from ponder.training.engines.scoring import add_scoring, score
from ponder.training.method.kernel import aggregate
from ponder.training.method.presets import Method
from ponder.training.rollout import decoding
from ponder.training.rollout.cache import grouped_attention
from ponder.training.rollout.decoding import Decoding
from ponder.training.rollout.drive import Sampler, uniforms
from ponder.training.rollout.experience import Collector, Share
from ponder.training.rollout.plans import Reader
from ponder.training.rollout.rows import Row, collate, loss_inputs
from ponder.training.rollout.sampler import sample
from ponder.training.run.export import export
from ponder.training.run.recipe import (
    ModelShape,
    PolicyRecipe,
    SftRecipe,
    find_recipe,
    load_recipe,
)
from ponder.training.run.run import Run

from ..scenario import BUNDLED
from .methods import VARIANTS, recipe_of

Figures = dict[str, Any]

SHAPE_31M = ModelShape(
    vocabulary=1024,
    hidden=512,
    layers=8,
    heads=8,
    kv_heads=2,
    head_dim=64,
    intermediate=2048,
    positions=4096,
)
# Float32 sums in another order: far below what a wrong mask or a lost row would give.
_LOG_PROB, _GRADIENT = 2e-3, 2e-3
# A row differs where a number falls between two tokens' shares that differ by rounding.
_SAME_ROWS = 0.9


def policy(name: str, *changes: str, base: Path = BUNDLED) -> PolicyRecipe:
    recipe = load_recipe(find_recipe(name), (f"base={base}", *changes))
    assert isinstance(recipe, PolicyRecipe)
    return recipe


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# -- agreement -----------------------------------------------------------------------------


def agreement(options: argparse.Namespace) -> Figures:
    """The CPU's float32 is the reference; brpo's rows have the tree mask."""
    found: Figures = {}
    for name in ("hbpo", "brpo", "htpo"):
        changes = ("rollouts.prompts=2", "optimisation.updates=1", "optimisation.micro_batches=1")
        found[name] = _compared(policy(f"tiny-{name}", *changes))
        print(f"agreement: {name} {found[name]}", flush=True)
    return found


def _compared(recipe: PolicyRecipe) -> Figures:
    base = Base.find(recipe)
    here, there = (_model(base, kind) for kind in (torch.device("cpu"), device()))
    reader, method = Reader(base.checkpoint), Method.of(recipe.method)
    rows: dict[str, list[Row]] = {}
    with VerifierPool(1) as pool:
        for side, model in (("cpu", here), ("gpu", there)):
            collector = _collector(recipe, reader, pool.judge)
            rows[side] = collector.collect(0, _sampler(model), Share()).updates[0]
    same = sum(a.completion == b.completion for a, b in zip(rows["cpu"], rows["gpu"], strict=True))
    scores, gradients = [], []
    for model in (here, there):
        add_scoring(model)
        batch = {k: v.to(model.device) for k, v in collate(rows["cpu"], 0).items()}
        log_probs, entropies = score(model, batch)
        # As if the weights that sampled were others, so that some tokens are clipped.
        batch["old_log_probs"] = log_probs.detach() * 1.05
        objective = method.objective(loss_inputs(batch, log_probs, entropies))
        torch.autograd.backward(-aggregate(objective.per_token_BT, batch["loss_mask"], 1000.0))
        scores.append(torch.stack((log_probs, entropies)).detach().cpu())
        gradients.append(torch.cat([p.grad.flatten().cpu() for p in model.parameters()]))
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    figures = {
        "rows": len(rows["cpu"]),
        "same_rows": same / len(rows["cpu"]),
        "log_prob": float((scores[1] - scores[0])[0].abs().max()),
        "entropy": float((scores[1] - scores[0])[1].abs().max()),
        "gradient": float(difference),
    }
    wrong = figures["log_prob"] > _LOG_PROB or figures["gradient"] > _GRADIENT
    if wrong or figures["same_rows"] < _SAME_ROWS:
        raise SystemExit(f"the devices disagree: {figures}")
    return figures


def _model(base: Base, where: torch.device) -> Any:
    return AutoModelForCausalLM.from_pretrained(base.files.name, dtype=torch.float32).to(where)


def _sampler(model: Any) -> Sampler:
    return lambda prompts, noise_BT, stop_ids: sample(model, prompts, noise_BT, stop_ids=stop_ids)


def _collector(recipe: PolicyRecipe, reader: Reader, judge: Any) -> Collector:
    from ponder.tasks.sources import find_tasks

    return Collector(
        recipe.method,
        find_tasks(recipe.tasks),
        reader,
        judge,
        prompts=recipe.rollouts.prompts,
        updates=recipe.optimisation.updates,
        seed=recipe.seed,
    )


# -- methods -------------------------------------------------------------------------------


def method(variant: str, options: argparse.Namespace) -> Figures:
    """Two steps with a checkpoint after each, the last one again from the first's."""
    small = (
        f"rollouts.prompts={max(2, int(4 * options.scale))}",
        "optimisation.updates=2",
        "optimisation.warmup_updates=0",
        "optimisation.steps=2",
        "validation.problems=4",
        "validation.samples=1",
        "checkpoints.every=1",
    )
    recipe, out = policy(recipe_of(variant), *small, *VARIANTS[variant]), options.folder / "run"
    with VerifierPool(1) as pool:
        Run(recipe, out, pool.judge, resume=False).train(progress=False)
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        Run(recipe, out, pool.judge, resume=True).train(progress=False)
    steps = [line for line in lines if line["kind"] == "step"]
    numbers = [v for line in steps for v in line.values() if isinstance(v, float)]
    if len(steps) != 2 or not all(map(math.isfinite, numbers)):
        raise SystemExit(f"not two finite steps: {steps}")
    trained = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    before = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32)
    pairs = zip(trained.parameters(), before.parameters(), strict=True)
    moved = max(float((a - b).abs().max()) for a, b in pairs)
    return {
        "loss": [line["loss"] for line in steps],
        "grad_norm": [line["grad_norm"] for line in steps],
        "accuracy": [line["accuracy"] for line in steps],
        "moved": moved,
    }


# -- speed ---------------------------------------------------------------------------------


class Clock:
    """Seconds by what they were spent on; the device has done its work when one is read."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def time(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any, **named: Any) -> Any:
            began = _now()
            try:
                return work(*given, **named)
            finally:
                self.seconds[name] += _now() - began

        return timed


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def speed(size: str, precision: str, options: argparse.Namespace) -> Figures:
    """Steps of HBPO at the paper's batch; the first one is dropped."""
    prompts = max(4, int(64 * options.scale) // 4 * 4)
    base = BUNDLED if size == "tiny" else _untrained(options.folder / "base")
    recipe = policy(
        "tiny-hbpo",
        f"rollouts.prompts={prompts}",
        "method.longest=256",
        "method.budgets=[32, 64, 96, 160]",
        "optimisation.steps=3",
        "optimisation.micro_batches=1",
        f"optimisation.precision={precision}",
        "validation.problems=4",
        "validation.samples=1",
        "validation.every=1000",
        "checkpoints.every=1000",
        base=base,
    )
    clock = Clock()
    ended: list[float] = []
    with VerifierPool(1) as pool:
        run = Run(
            recipe,
            options.folder / "run",
            clock.time("judging", pool.judge),
            resume=False,
        )
        engine, collector = run.engine, run._collector
        collect = clock.time("collecting", collector.collect)

        def collected(step: int, sampler: Sampler, share: Share) -> Any:
            ended.append(_now())
            if step == 1:
                clock.seconds.clear()
            return collect(step, clock.time("sampling", sampler), share)

        collector.collect = collected  # type: ignore[method-assign]
        engine.pack = clock.time("scoring", engine.pack)  # type: ignore[method-assign]
        engine.update = clock.time("updates", engine.update)  # type: ignore[method-assign]
        run.train(progress=False)
        ended.append(_now())
    lines = [json.loads(x) for x in (options.folder / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    later = len(steps) - 1
    seconds = {name: round(total / later, 3) for name, total in clock.seconds.items()}
    seconds["collecting"] -= seconds["sampling"] + seconds["judging"]
    figures = {
        "parameters": sum(p.numel() for p in engine.model.parameters()),
        "rows": prompts * 16,
        "first_step_s": round(ended[1] - ended[0], 2),
        "step_s": round((ended[-2] - ended[1]) / (later - 1), 3),
        "spent_s": seconds,
        "sampled_tokens": steps[-1]["sampled_tokens"],
        "accuracy": [line["accuracy"] for line in steps],
        "loss": [line["loss"] for line in steps],
    }
    if torch.cuda.is_available():
        figures["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
    return figures


def _untrained(directory: Path) -> Path:
    """A model of random weights with the bundled checkpoint's tokenizer and contract."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    contract = Base.find(policy("tiny-grpo")).checkpoint.contract
    assert contract is not None
    export(directory, build_model(SHAPE_31M, tokenizer), tokenizer, contract)
    return directory


# -- sampling ------------------------------------------------------------------------------


def graphs(size: str, precision: str, options: argparse.Namespace) -> Figures:
    """1,024 rows of 256 tokens: kernels replayed, started one by one, and started as on a CPU."""
    base = BUNDLED if size == "tiny" else _untrained(options.folder / "base")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=getattr(torch, precision))
    model = model.to(device()).eval()
    rows = max(16, int(1024 * options.scale))
    asked = [[2 + i // 16 % 200] * (8 + i // 16 % 9) for i in range(rows)]
    noise = uniforms("graphs", rows, 256)

    def timed(slots: bool) -> tuple[float, list[list[int]]]:
        # Without a stop token all rows run to the end.
        with torch.no_grad(), grouped_attention(model):
            Decoding(model, asked, noise[:, :80], frozenset({-1}), 1.0, slots=slots).finish()
            began = _now()
            drawn = Decoding(model, asked, noise, frozenset({-1}), 1.0, slots=slots).finish()
            return _now() - began, drawn

    replayed, found = timed(slots=True)
    decoding._uncaptured.add(model)
    one_by_one, _ = timed(slots=True)
    started, expected = timed(slots=False)
    same = sum(a == b for a, b in zip(found, expected, strict=True)) / rows
    return {
        "replayed_s": round(replayed, 3),
        "one_by_one_s": round(one_by_one, 3),
        "started_s": round(started, 3),
        "ratio": round(replayed / one_by_one, 3),
        "same_rows": same,
    }


# -- the cold start ------------------------------------------------------------------------


def cold_start(size: str, options: argparse.Namespace) -> Figures:
    """Some steps of the shipped cold start, and of a larger one in larger batches."""
    changes = ["optimisation.validate_every=0", "traces.terse_until=0"]
    if size == "tiny":
        changes += [f"optimisation.steps={max(4, int(150 * options.scale))}"]
    else:
        changes += [f"optimisation.steps={max(2, int(60 * options.scale))}"]
        changes += [f"optimisation.tokens_per_step={int(65536 * options.scale) + 4096}"]
        changes += [f"model={SHAPE_31M.model_dump_json()}"]
    recipe = load_recipe(find_recipe("tiny-sft"), changes)
    assert isinstance(recipe, SftRecipe)
    result = train_sft(recipe, progress=False)
    return {
        "tokens_per_second": round(result.tokens / result.seconds),
        "trained_s": round(result.seconds, 1),
        "loss": [round(result.losses[0], 3), round(result.losses[-1], 3)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here: --device cpu tries the stages without one")
    torch.set_num_threads(1)
    name, *given = options.stage.split(":")
    stages: dict[str, Callable[..., Figures]] = {
        "agreement": agreement,
        "method": method,
        "speed": speed,
        "graphs": graphs,
        "cold-start": cold_start,
    }
    figures = stages[name](*given, options)
    (options.folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
