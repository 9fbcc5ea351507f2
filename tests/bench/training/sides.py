"""What is measured, each in a process of its own: `python -m tests.bench.training.sides NAME …`.

All sides learn from as many rows of the same lengths with the same model: where two trainers are
compared, no completion ends before its last token.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from ponder.tasks.problems import Problem
from ponder.tasks.tiny import TINY_TASKS
from ponder.tasks.workers import Verdict
from ponder.training.base import Base
from ponder.training.engines.protocol import Learnt
from ponder.training.engines.scoring import add_scoring, score
from ponder.training.method.brpo import BrpoConfig
from ponder.training.rollout import plans
from ponder.training.rollout.drive import Life, uniforms
from ponder.training.rollout.experience import Collector, Share
from ponder.training.rollout.plans import Reader
from ponder.training.rollout.rows import Row, collate, split_by_tokens, unpack
from ponder.training.rollout.sampler import sample
from ponder.training.run.recipe import PolicyRecipe
from ponder.training.run.run import Run

Figures = dict[str, float]

GROUP = 8
MICRO_BATCHES = 4
PASSES = 3  # over the rows of a BRPO step; separate ones take 20 seconds
LEARNING_RATE = 1e-4
NEVER = frozenset({-1})  # a stop token that no model samples


class Clock:
    """Seconds of every step but the first, which allocates; the parameters after that one.

    Later steps sample with parameters that differ by rounding, so they need not agree.
    """

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.first = torch.empty(0)
        self._began = 0.0

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self, parameters: Iterable[torch.Tensor]) -> None:
        self.steps.append(time.perf_counter() - self._began)
        if len(self.steps) == 1:
            self.first = flat(parameters)

    @property
    def seconds(self) -> float:
        later = sorted(self.steps[1:])
        return later[len(later) // 2]


class StockClock(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Clocks the steps of a trainer of transformers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._clock.begin()

    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        self._clock.end(model.parameters())


def flat(parameters: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in parameters])


def right(text: str) -> bool:
    """Half of all texts, so that groups have a signal."""
    return sum(text.encode()) % 2 == 0


def judge(items: Iterable[tuple[Problem, str]]) -> list[Verdict]:
    return [Verdict(right(text)) for _, text in items]


def recipe(options: argparse.Namespace) -> PolicyRecipe:
    return PolicyRecipe.model_validate(
        {
            "name": "bench",
            "seed": 0,
            "base": str(options.model),
            "tasks": ["tiny"],
            "method": {"method": "grpo", "group_size": GROUP, "longest": options.longest},
            "rollouts": {"prompts": options.prompts},
            "optimisation": {
                "steps": options.steps,
                "updates": 1,
                "micro_batches": MICRO_BATCHES,
                "learning_rate": LEARNING_RATE,
            },
            "validation": {"every": 1_000_000, "problems": 2},
            "checkpoints": {"every": 1_000_000},
        }
    )


def ours(options: argparse.Namespace) -> Figures:
    """Steps of a run of ours; the same on every process under torchrun."""
    run = Run(recipe(options), options.folder / "ours", judge, resume=False)
    engine, collector, clock = run.engine, run._collector, Clock()
    run.reader.tokenizer.eos_token_ids = NEVER

    # Nothing ends by itself: half of a response is read as its thought, half as its answer.
    def halved(life: Life, _: bool) -> tuple[int, bool, str]:
        sampled = life.thought._requests.made[0].sampled
        half = len(sampled) // 2
        return half, True, run.reader.text(sampled[half + 1 :])

    # A step begins with its rollouts and ends with its only update.
    norms: list[float] = []
    roll_out, update = collector.roll_out, engine.update

    def rolled(*given: Any) -> Any:
        clock.begin()
        return roll_out(*given)

    def updated(*given: Any) -> Learnt:
        learnt = update(*given)
        clock.end(parameters())
        norms.append(learnt.grad_norm)
        return learnt

    def parameters() -> list[torch.Tensor]:
        return [weight for _, weight in engine.weights()]

    plans._read = halved
    collector.roll_out, engine.update = rolled, updated  # type: ignore[method-assign]
    run.train(progress=False)
    share, agree = engine.share, 1.0
    if share.world > 1:
        # In float64, a sum tells parameters of one float32's difference apart.
        mine = float(flat(parameters()).double().sum())
        sums = engine.reduce({str(r): mine * (r == share.rank) for r in range(share.world)})
        agree = float(len(set(sums.values())) == 1)
    if run.is_main:
        torch.save(clock.first, options.folder / f"parameters-{share.world}.pt")
    if not any(norms):
        raise SystemExit("the steps had no gradient: nothing was compared")
    return {"seconds": clock.seconds, "processes_agree": agree}


def stock(options: argparse.Namespace) -> Figures:
    """Steps of TRL's own GRPO trainer with as many prompts, completions and tokens."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    rows = options.prompts * GROUP
    collector, reader = collecting(options, {"method": "grpo", "longest": options.longest})
    prompts = [
        reader.text(collector._drawn(step, 0, number).ids)
        for step in range(options.steps)
        for number in range(options.prompts)
    ]

    def reward(completions: Sequence[str], **_: Any) -> list[float]:
        return [float(right(text)) for text in completions]

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32),
        args=GRPOConfig(
            output_dir=str(options.folder / "stock"),
            max_steps=options.steps,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=rows // MICRO_BATCHES,
            gradient_accumulation_steps=MICRO_BATCHES,
            steps_per_generation=MICRO_BATCHES,
            num_generations=GROUP,
            max_completion_length=options.longest,
            generation_kwargs={"min_new_tokens": options.longest},
            epsilon_high=0.28,
            beta=0.0,
            use_cpu=not torch.cuda.is_available(),
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            logging_steps=options.steps,
        ),
        processing_class=tokenizer,
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    )
    clock = Clock()
    trainer.add_callback(StockClock(clock))
    trainer.train()
    (length,) = {h["completions/mean_length"] for h in trainer.state.log_history if "loss" in h}
    if length != options.longest:
        raise SystemExit(f"TRL's completions have {length} tokens, not {options.longest}")
    return {"seconds": clock.seconds}


def packing(options: argparse.Namespace) -> Figures:
    """A forward and backward pass over a BRPO step's rows: packed, and a row for each summary."""
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    longest = options.longest
    budgets = [longest // 4, longest // 2, 3 * longest // 4, longest]
    config = BrpoConfig(budgets=tuple(budgets), summary_tokens=16, group_size=GROUP)
    collector, _ = collecting(options, config.model_dump())
    rows = collector.collect(0, sampler(model), Share()).updates[0]
    separate = [part for row in rows for part in unpack(row)]
    add_scoring(model)
    tokens, apart = (sum(row.tokens for row in side) for side in (rows, separate))
    parts = max(1, len(rows) // 8)

    def learn(side: list[Row], batches: int) -> float:
        began = time.perf_counter()
        for part in split_by_tokens(side, batches):
            batch = collate(part, pad_id=0)
            log_probs, _ = score(model, batch)
            (log_probs * batch["advantages"]).sum().backward()
        model.zero_grad()
        return time.perf_counter() - began

    alone = max(parts, round(parts * apart / tokens))  # as many tokens in a batch
    return {
        "packed_tokens": tokens,
        "separate_tokens": apart,
        "packed_seconds": middle(lambda: learn(rows, parts), PASSES),
        "separate_seconds": middle(lambda: learn(separate, alone), PASSES),
    }


def sampling(options: argparse.Namespace) -> Figures:
    """Tokens a second of rollouts that end by themselves: ours, and `model.generate`."""
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    collector, reader = collecting(options, {"method": "grpo", "longest": options.longest})
    asked = [collector._drawn(0, 0, n).ids for n in range(options.prompts) for _ in range(GROUP)]
    width, pad = max(map(len, asked)), min(reader.tokenizer.eos_token_ids)
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in asked])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in asked])
    noise = uniforms("bench", len(asked), options.longest)
    stops = reader.tokenizer.eos_token_ids

    def mine() -> float:
        began = time.perf_counter()
        written = sample(model, asked, noise, stop_ids=stops)
        return sum(map(len, written)) / (time.perf_counter() - began)

    @torch.no_grad()
    def theirs() -> float:
        began = time.perf_counter()
        written = model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=options.longest,
            do_sample=True,
            top_k=0,
            pad_token_id=pad,
        )[:, width:]
        seconds = time.perf_counter() - began
        ends = torch.isin(written, torch.tensor(sorted(stops)))
        before = ends.cumsum(1) - ends.long() == 0  # the first end counts, what follows is padding
        return int(before.sum()) / seconds

    mine(), theirs()
    return {"ours": middle(mine, options.steps), "generate": middle(theirs, options.steps)}


def collecting(options: argparse.Namespace, method: dict[str, Any]) -> tuple[Collector, Reader]:
    raw = recipe(options).model_dump() | {"method": {**method, "group_size": GROUP}}
    own = PolicyRecipe.model_validate(raw)
    base = Base.find(own)
    reader = Reader(base.checkpoint)
    rollouts = {"prompts": own.rollouts.prompts, "updates": own.optimisation.updates}
    return Collector(own.method, TINY_TASKS, reader, judge, **rollouts, seed=own.seed), reader


def sampler(model: Any) -> Callable[..., list[list[int]]]:
    return lambda prompts, noise, stops: sample(model, prompts, noise, stop_ids=stops)


def middle(measure: Callable[[], float], times: int) -> float:
    return sorted(measure() for _ in range(times))[times // 2]


SIDES = {"ours": ours, "stock": stock, "packing": packing, "sampling": sampling}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--prompts", type=int, required=True)
    parser.add_argument("--longest", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options.folder.mkdir(parents=True, exist_ok=True)
    figures = SIDES[options.side](options)
    figures["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if os.environ.get("RANK", "0") == "0":
        (options.folder / "figures.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
