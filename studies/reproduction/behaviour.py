"""A fingerprint of this code's behaviour, by which a record says which code made it.

Each method trains a tiny model, whose weights follow a formula, for two steps; the sampled tokens
and the resulting weights are the fingerprint. A changed comment or name changes neither; a changed
reward, advantage, loss, cut or optimiser changes at least one.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ponder.tasks.problems import Problem, held_out
from ponder.tasks.sources import find_tasks
from ponder.tasks.verifiers import verify
from ponder.tasks.workers import Verdict
from ponder.training.run.recipe import PolicyRecipe

from .setting import TASKS

METHODS: Mapping[str, Mapping[str, Any]] = {
    "grpo": {"longest": 96},
    "dapo": {"longest": 96, "generation_batches": 2},
    # On the hint's tokens the advantages cancel but for rounding, which Adam would turn into steps.
    "hbpo": {"longest": 96, "budgets": (24, 72), "loss_on_hint": False, "count_hint": False},
    "length-penalty": {"longest": 96},
    "brpo": {"budgets": (24, 48, 72), "summaries": 2, "summary_tokens": 12},
    "htpo": {"longest": 96, "generation_batches": 2},
}

# Machines round float32 sums differently; a changed formula moves the numbers by more than this.
_CLOSE = 1e-3
_DIRECTIONS = 16
# Metrics of a step join its weights, because Adam's first steps hide a loss's scale.
_MEASURED = ("reward", "loss", "grad_norm", "entropy", "learnt_tokens")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """By subject: a hash of its sampled tokens, and numbers that follow from its weights.

    A subject is a method, or `tasks`: the problems of the study and their verdicts.
    """

    tokens: Mapping[str, str]
    numbers: Mapping[str, Sequence[float]]

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Behaviour:
        """The behaviour of a record's code."""
        return cls(**record["behaviour"])

    def alike(self, other: Behaviour) -> bool:
        """Whether tokens are equal, and numbers as close as those of two machines."""
        return self.tokens == other.tokens and all(
            math.isclose(ours, theirs, rel_tol=_CLOSE, abs_tol=_CLOSE / 10)
            for name, numbers in self.numbers.items()
            for ours, theirs in zip(numbers, other.numbers[name], strict=True)
        )

    @property
    def label(self) -> str:
        """Eight digits that name the behaviour in keys and reports."""
        return _sha256([self.tokens, self.numbers])[:8]


@cache
def behaviour() -> Behaviour:
    """The behaviour of this code on a CPU, by which all machines are compared; takes some seconds.

    Where there is a GPU, whose sums differ by more, a process that does not see it computes this.
    """
    import torch

    if not torch.cuda.is_available():
        return _behaviour()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_hide_gpus) as process:
        return process.submit(_behaviour).result()


def _hide_gpus() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _behaviour() -> Behaviour:
    with TemporaryDirectory() as room:
        base = Path(room) / "base"
        write_model(base)
        steps = {name: two_steps(name, base, Path(room) / name) for name in METHODS}
    return Behaviour(
        {"tasks": _tasks(), **{name: tokens for name, (tokens, _) in steps.items()}},
        {name: numbers for name, (_, numbers) in steps.items()},
    )


def two_steps(method: str, base: Path, out: Path) -> tuple[str, list[float]]:
    """Train two steps; returns a hash of all sampled tokens, and numbers of steps and weights."""
    import torch

    from ponder.training.rollout.experience import Experience
    from ponder.training.run.directory import checkpoints
    from ponder.training.run.run import Run

    sampled = hashlib.sha256()

    def observe(step: int, experience: Experience) -> None:
        for row in (row for rows in experience.updates for row in rows):
            said = [row.prompt, row.completion, row.learnt, [chunk.ids for chunk in row.chunks]]
            sampled.update(json.dumps(said).encode())

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Run(_recipe(method, base), out, _judge, resume=False, observe=observe).train(progress=False)
    finally:
        torch.set_num_threads(threads)
    lines = map(json.loads, (out / "metrics.jsonl").read_text().split("\n")[:-1])
    steps = [line[name] for line in lines if line["kind"] == "step" for name in _MEASURED]
    numbers = [*steps, *_moved(base, checkpoints(out)[-1])]
    return sampled.hexdigest(), [float(f"{number:.6g}") for number in numbers]


def write_model(directory: Path) -> None:
    """Write a Qwen3 of 20,000 weights over bytes that ends some thoughts and answers by itself."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from ponder.thought.contract import Contract, tokenizer_sha256
    from ponder.training.coldstart.thoughts import CLOSE_TEXT, HINT
    from ponder.training.coldstart.tokenizer import (
        THINK_END,
        THINK_START,
        TURN_END,
        train_tokenizer,
    )

    tokenizer = train_tokenizer([], 261, 512)
    end, turn_end, *digits = tokenizer.convert_tokens_to_ids([THINK_END, TURN_END, *"0123456789"])
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        intermediate_size=32,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        eos_token_id=turn_end,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if "norm" in name:
                weight.fill_(1.0)
            else:
                scale = 0.08 if "layers" in name else 0.2
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
        # A Qwen3's head has no bias; two dimensions replace it. Every token sets the first, and
        # the tokens after which an answer goes on or ends set the second.
        into, out = model.model.embed_tokens.weight, model.lm_head.weight
        into[:, :2] = torch.tensor([1.0, 0.0])
        into[[end, *digits], 1] = 1.0
        out[:, :2] = 0.0
        out[end, 0] = 0.7
        out[digits, :2] = torch.tensor([-1.0, 2.4])
        out[turn_end, :2] = torch.tensor([-1.0, 2.5])
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    Contract(
        think_start=THINK_START,
        think_end=THINK_END,
        close_text=CLOSE_TEXT,
        opened_by="template",
        tokenizer_sha256=tokenizer_sha256(directory),
        method="none",
        recipe="none",
        seed=0,
        budget_hint=HINT,
    ).save(directory)


def _recipe(method: str, base: Path) -> PolicyRecipe:
    return PolicyRecipe.model_validate(
        {
            "name": f"behaviour-{method}",
            "seed": 3,
            "base": str(base),
            "tasks": ["tiny"],
            "method": {"method": method, "group_size": 4, **METHODS[method]},
            "rollouts": {"prompts": 4},
            # At this rate the second update's ratios leave the clip.
            "optimisation": {"steps": 2, "updates": 2, "micro_batches": 2, "learning_rate": 1e-2},
            "validation": {"every": 2, "problems": 4},
            "checkpoints": {"every": 1},
        }
    )


def _judge(asked: Sequence[tuple[Problem, str]]) -> list[Verdict]:
    """Judge by a hash: the model knows nothing, and yet the verdicts of a group must differ."""
    return [Verdict(int(_sha256([problem.id, text]), 16) % 2 == 0) for problem, text in asked]


def _moved(base: Path, trained: Path) -> list[float]:
    """The length of the weights' change, and its components in fixed directions as shares of it."""
    import torch
    from safetensors.torch import load_file

    before, after = (load_file(path / "model.safetensors") for path in (base, trained))
    names = sorted(before)
    change_D = torch.cat([(after[n].double() - before[n].double()).flatten() for n in names])
    generator = torch.Generator().manual_seed(1)
    shape = (_DIRECTIONS, len(change_D))
    directions_KD = torch.randn(shape, generator=generator, dtype=torch.float64)
    length = float(change_D.norm())
    return [length, *(directions_KD @ change_D / max(length, 1e-30)).tolist()]


def _tasks() -> str:
    """A hash of the study's problems, with verdicts on right and wrong answers to each."""
    from .measure import test_problems

    validation = held_out(find_tasks(TASKS), 170, "validation", 1)
    said = [
        [problem.id, problem.question, [verify(problem, text) for text in _answers(problem)]]
        for problem in (*test_problems(), *validation)
    ]
    return _sha256(said)


def _answers(problem: Problem) -> list[str]:
    answer = problem.answer
    return [
        answer,
        f"The answer is {answer}.",
        f"{answer}0",
        f"7, no: {answer}",
        f"{answer}, no: 7",
    ]


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
