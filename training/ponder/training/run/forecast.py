"""Forecasts a recipe's work and needs (`ponder train --dry-run`); writes nothing.

Token counts are upper bounds, and memory is an estimate: activations are computed from the widths
of a transformer block, not measured. The time is scaled from a first step, which is tried where the
model is small.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponder.engine.tokenizer import ModelFiles
from ponder.evaluation.bars import duration
from ponder.thought.contract import FILE_NAME

from ..engines.copied import rounded_kind
from ..engines.table import engine_of
from ..method.presets import Method
from ..rollout.sampler import RowBytes, bytes_of
from .checks import adapted, check_processes, check_trackers, hint_tokens, room_for_prompt
from .recipe import PolicyRecipe, Recipe, RecipeError, SftRecipe
from .sizes import WEIGHT, checkpoint_bytes, checkpoints_made, run_bytes, size, state_bytes

_GRADIENT = 4  # bytes of one, in float32
_PROMPTS_DRAWN = 64
# FLOP per second of an H100 SXM in dense bfloat16, from NVIDIA's data sheet.
_H100 = 989e12
# Python, PyTorch and transformers in a process on a CPU, before any model.
_LIBRARIES = int(0.6 * (1 << 30))

# Shapes from the publishers' config.json, for machines that cannot reach the hub.
_QWEN2_1_5B: dict[str, Any] = {
    "model_type": "qwen2",
    "vocab_size": 151936,
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
    "max_position_embeddings": 131072,
}
_QWEN3_8B: dict[str, Any] = {
    "model_type": "qwen3",
    "vocab_size": 151936,
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
    "max_position_embeddings": 40960,
}
PUBLIC_SHAPES: dict[str, dict[str, Any]] = {
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _QWEN2_1_5B,
    "agentica-org/DeepScaleR-1.5B-Preview": _QWEN2_1_5B,
    "Qwen/Qwen3-8B": _QWEN3_8B,
    "Qwen/Qwen3-8B-Base": {**_QWEN3_8B, "max_position_embeddings": 32768},
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A model by its sizes; `trained` parameters have gradients. `source` names their origin."""

    source: str
    parameters: int
    trained: int
    layers: int
    hidden: int
    intermediate: int
    cache_width: int  # keys or values of a token and layer, all heads together
    positions: int | None
    config: Any  # transformers'


@dataclass(frozen=True, slots=True)
class Tokens:
    """Most tokens of a step, over all processes."""

    prompt: int
    row: int  # a row's longest pass: prompt, completion and chunks
    rows: int
    sampled: int
    scored: int

    @property
    def trained(self) -> int:
        return self.rows * self.row

    @property
    def forward(self) -> int:
        """All work, counted in tokens of a forward pass; a token's backward pass counts two."""
        return self.sampled + self.scored + 3 * self.trained


def shape(recipe: PolicyRecipe) -> Shape:
    """The base's shape, from its config.json, or from the table if the hub is out of reach."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(ModelFiles.find(recipe.base).directory)
        source = "its config.json"
    except (FileNotFoundError, OSError) as error:
        if recipe.base not in PUBLIC_SHAPES:
            raise RecipeError(f"base: {error}; --base names another checkpoint") from error
        config = AutoConfig.for_model(**PUBLIC_SHAPES[recipe.base])
        source = "Ponder's table of public shapes, as the hub is out of reach"
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    parameters = sum(p.numel() for p in model.parameters())
    heads = config.num_attention_heads
    head = getattr(config, "head_dim", None) or config.hidden_size // heads
    return Shape(
        source,
        parameters,
        parameters if recipe.lora is None else _adapters(recipe, model),
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.num_key_value_heads * head,
        getattr(config, "max_position_embeddings", None),
        config,
    )


def _adapters(recipe: PolicyRecipe, model: Any) -> int:
    """Parameters of the low-rank matrices."""
    assert recipe.lora is not None
    sides = sum(module.in_features + module.out_features for module in adapted(recipe, model))
    return recipe.lora.rank * int(sides)


def tokens(recipe: PolicyRecipe, prompt: int) -> Tokens:
    """The most tokens that a step samples, scores and learns, with prompts of `prompt` tokens."""
    method, plan = recipe.method, recipe.optimisation
    rows = recipe.rollouts.prompts * method.group_size
    answers = method.branches * method.branch_tokens
    row = method.longest + hint_tokens(method) + answers
    # A truncated thought is sampled to one token past its largest budget.
    sampled = method.longest + (1 + answers if answers else 0)
    sampled *= rows * method.attempts
    if method.branches and not engine_of(plan.engine).costs.trees:
        # Each summary is a row of its own, behind a copy of the thought before its cut.
        row -= answers - method.branch_tokens
        rows *= 1 + method.branches
    later = rows * (plan.updates - 1) // plan.updates
    # A component may score all rollouts; an anchor scores the rows of every update.
    again = sum(it.component.rescores for it in method.add) + (method.anchor is not None)
    return Tokens(prompt, prompt + row, rows, sampled, (later + again * rows) * (prompt + row))


def memory(recipe: PolicyRecipe, model: Shape, work: Tokens, processes: int) -> dict[str, float]:
    """Bytes that one of `processes` needs for each purpose, nothing sharded."""
    import torch

    plan = recipe.optimisation
    width = 2 if plan.precision == "bfloat16" else 4
    mine = work.rows / processes
    micro = mine / plan.updates / plan.micro_batches * work.row
    if plan.tokens_per_pass is not None:
        micro = min(micro, max(plan.tokens_per_pass, work.row))
    # Inputs of the projections, keys, values, norms and residuals; three of the feed-forward layer.
    block = 12 * model.hidden + 2 * model.cache_width + 3 * model.intermediate
    kept = model.layers * block
    if plan.gradient_checkpointing:
        kept = model.layers * model.hidden + block
    found = {
        "weights": (2 if plan.weights == "bfloat16" else WEIGHT) * model.parameters,
        "gradients": _GRADIENT * model.trained,
        **state_bytes(recipe, model.trained),
        "activations": width * micro * kept,
    }
    if not torch.cuda.is_available():
        found["libraries"] = _LIBRARIES
    if recipe.method.branches and engine_of(plan.engine).costs.trees:
        # Booleans, row by row, of at most one micro-batch at a time.
        found["tree mask"] = micro * work.row
    if recipe.rollouts.engine == "transformers":
        drawn, here = width, torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if plan.precision == "bfloat16":
            drawn = rounded_kind(here, model.parameters).itemsize
            found["sampled from"] = drawn * model.parameters
        needs = bytes_of(model.config, drawn, here.type)
        found["KV cache"] = _cached(recipe, needs, work, processes)
    return {name: float(value) for name, value in found.items()}


def _cached(recipe: PolicyRecipe, needs: RowBytes, work: Tokens, processes: int) -> float:
    """Bytes of the sampler's largest batch: of rollouts, summaries or a validation."""
    method, watched = recipe.method, recipe.validation
    longest = work.prompt + method.longest
    asked = work.prompt + (watched.longest or method.longest + method.branch_tokens)
    batches = [(work.rows, longest), (watched.problems * watched.samples, asked)]
    if method.branches:
        batches.append((work.rows * method.branches, longest + method.branch_tokens))
    room = recipe.rollouts.cache_bytes
    return max(min(rows / processes * needs(row), max(room, needs(row))) for rows, row in batches)


def lines(recipe: PolicyRecipe, model: Shape, prompt: int, prompt_source: str) -> Iterator[str]:
    """The plan as text."""
    method, plan = recipe.method, recipe.optimisation
    work = tokens(recipe, prompt)
    added = "".join(f" + {addition.name}" for addition in method.add)
    kind = Method.of(method).plan.kind
    yield f"{recipe.name}: {method.method}{added} ({kind} rollouts) on {recipe.base}"
    part = "" if recipe.lora is None else f", {model.trained / 1e6:,.1f}M of them trained (LoRA)"
    yield f"model       {model.parameters / 1e6:,.1f}M parameters{part}, by {model.source}"
    yield from (f"note        {note}" for note in Method.of(method).notes)
    yield f"tasks       {', '.join(recipe.tasks)}"
    yield (
        f"steps       {plan.steps:,} of {recipe.rollouts.prompts} prompts x {method.group_size} = "
        f"{work.rows:,} rows; {plan.updates} updates each, {plan.steps * plan.updates:,} in all"
    )
    again = f", in {method.attempts} batches" if method.attempts > 1 else ""
    yield f"a step      at most (prompts of {prompt:,} tokens: {prompt_source})"
    yield f"  sampled   {work.sampled:,} tokens{again}"
    yield f"  scored    {work.scored:,} tokens forward, for later updates and method.add"
    yield f"  learnt    {work.trained:,} tokens forward and backward"
    flops = 2.0 * model.parameters * work.forward
    yield (
        f"  together  {work.forward:,} tokens forward (a backward token costs two), "
        f"{flops:.1e} FLOP; {flops * plan.steps:.1e} the whole run"
    )
    saved, state = checkpoints_made(recipe), checkpoint_bytes(recipe, model.trained)
    yield (
        f"checkpoints {saved} of {size(state)}, the last {min(saved, recipe.checkpoints.keep)} "
        f"kept; two exports of {size(2 * model.parameters)}; at most "
        f"{size(run_bytes(recipe, model.parameters, model.trained))} on the disk"
    )
    if recipe.rollouts.engine == "vllm":
        yield "memory      a process, estimated, beside vLLM's own"
    else:
        yield "memory      a process, estimated"
    costs = engine_of(plan.engine).costs
    for processes in (1, 2, 4, 8, 16):
        try:
            if not costs.sharded:
                check_processes(recipe, processes)
        except RecipeError:
            continue  # a run would refuse it
        needed = memory(recipe, model, work, processes)
        parts = ", ".join(f"{name} {size(value)}" for name, value in needed.items())
        yield f"  {processes} process{'es' if processes > 1 else ''}: {parts}"
        sharded = sum(
            needed[name] for name in ("weights", "gradients", *state_bytes(recipe, model.trained))
        )
        whole = sum(needed.values())
        spread = whole - sharded * (1 - 1 / processes)
        both = f", {size(spread)} sharded (FSDP2, ZeRO-3)" if processes > 1 else ""
        if costs.sharded:
            yield f"    together {size(spread)}, as weights, gradients and optimizer are sharded"
        else:
            yield f"    together {size(whole)}{both}"


def prompt_tokens(recipe: PolicyRecipe) -> tuple[int, str]:
    """The longest prompt's tokens, and their source: the recipe, or some drawn problems."""
    from ponder.tasks.draws import Source
    from ponder.tasks.sources import find_tasks

    from ..base import Base

    given = recipe.rollouts.longest_prompt
    # Ask the hub only where its problems are needed.
    named = [name for name in recipe.tasks if given is None or not name.startswith("hf:")]
    try:
        tasks = find_tasks(named)
    except ValueError as error:
        raise RecipeError(f"tasks: {error}") from error
    if given is not None and not Path(recipe.base).is_dir():
        return given, "rollouts.longest_prompt"
    base = Base.find(recipe)
    if given is not None:
        return given, "rollouts.longest_prompt"
    try:
        source = Source(tasks, recipe.seed, _PROMPTS_DRAWN, 0, lambda _: True)
        reader = base.reader(recipe)
        drawn = [source.problem(0, 0, n, f"plan/{n}") for n in range(_PROMPTS_DRAWN)]
    except ValueError as error:
        raise RecipeError(f"tasks: {error}") from error
    longest = max(len(reader.prompt(problem, "").ids) for problem in drawn)
    return longest, f"the longest of {_PROMPTS_DRAWN} drawn"


def describe(recipe: Recipe, threads: int) -> str:
    """The whole plan as text. Raises `RecipeError` where the recipe is invalid."""
    import torch

    torch.set_num_threads(threads)
    if isinstance(recipe, SftRecipe):
        return "\n".join(_cold_start(recipe))
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    engine_of(recipe.optimisation.engine).check(recipe, 1)
    check_trackers(recipe)
    model = shape(recipe)
    room_for_prompt(recipe, model.positions)
    prompt, source = prompt_tokens(recipe)
    plan = [*lines(recipe, model, prompt, source), _time(recipe, model, prompt)]
    if Path(recipe.base).is_dir() or recipe.rollouts.longest_prompt is None:  # else unseen so far
        plan.insert(1, _thought(recipe))
    return "\n".join(plan)


def _thought(recipe: PolicyRecipe) -> str:
    """A line on the base's thoughts: their family, their markers, who opens them, their switch."""
    from ponder.checkpoint.traits import HELLO, opening, tail

    from ..base import Base

    base = Base.find(recipe)
    checkpoint, traits = base.checkpoint, base.checkpoint.traits
    form = checkpoint.form
    assert form is not None
    _, end = tail(checkpoint.tokenizer, HELLO, traits.on)
    who = "by the chat template" if opening(form, end) == "open" else "for the model"
    given = ", ".join(f"{name}={value!r}" for name, value in traits.on.items())
    opened = f"opened {who}{f' ({given})' if given else ''}"
    known = f"as {family}" if (family := base.contract.family) else f"by its {FILE_NAME}"
    return f"thoughts    {known}: {form.start} … {form.end}, {opened}"


def _time(recipe: PolicyRecipe, model: Shape, prompt: int) -> str:
    from .pace import LARGEST, can_try, try_step

    if not can_try(recipe, model.parameters):
        learnt = tokens(recipe, prompt).forward - tokens(recipe, prompt).sampled
        flops = 2.0 * model.parameters * learnt * recipe.optimisation.steps
        return (
            "time        unknown: divide the FLOP of the whole run by your machine's FLOP a second "
            f"(a step is tried for local bases of at most {LARGEST / 1e6:.0f}M parameters); "
            f"scoring and learning take at least {flops / _H100 / 3600:,.0f} H100-hours, if all "
            "rows have their full length and the GPUs reach their peak"
        )
    whole, step = try_step(recipe)
    return (
        f"time        about {duration(whole)}, estimated from one step that was tried here "
        f"({step:.1f} s)"
    )


def _cold_start(recipe: SftRecipe) -> Iterator[str]:
    from .pace import try_cold_start

    whole, tried = try_cold_start(recipe)
    plan, saved = recipe.optimisation, recipe.checkpoints
    parameters = sum(p.numel() for p in tried.model.parameters())
    yield f"{recipe.name}: cold start from scratch"
    yield f"model       {parameters / 1e6:,.1f}M parameters"
    yield (
        f"steps       {plan.steps:,} of at most {plan.tokens_per_step:,} tokens; "
        f"{plan.steps * plan.tokens_per_step / 1e6:,.1f}M tokens in all"
    )
    yield (
        f"checkpoints every {saved.every:,} steps, the last {saved.keep} kept; an export of "
        f"{size(2 * parameters)}"
    )
    yield (
        f"time        about {duration(whole)}, estimated from {len(tried.losses)} steps that were "
        f"tried here ({tried.seconds:.1f} s)"
    )
