"""Recipes: training runs as data, with bounds on every number.

A recipe is a YAML file: shipped in `recipes/` and selected by name, or the user's own, selected by
its path.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ponder.errors import SetupError

from ..method.presets import Method, MethodConfig
from ..method.settings import Budgets, Rising, Tokens
from .changes import changed, sentences
from .shipped import FOLDER, shipped_recipes

Share = Annotated[float, Field(ge=0, le=1)]
Precision = Literal["float32", "bfloat16"]
TREE_KERNELS = ("sdpa", "eager", "flex_attention")
"""Attention kernels under which a row can hold a tree of summaries."""


class RecipeError(SetupError, ValueError):
    """A missing or invalid recipe; the message names the field and the remedy."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelShape(_Section):
    """Dimensions of the Qwen3-architecture model."""

    vocabulary: int = Field(ge=280, le=4096, description="entries of the tokenizer, at most")
    hidden: int = Field(ge=16, le=512, description="width of the residual stream")
    layers: int = Field(ge=1, le=12, description="transformer blocks")
    heads: int = Field(ge=1, le=16, description="heads of queries, a multiple of kv_heads")
    kv_heads: int = Field(ge=1, le=16, description="heads of keys and values")
    head_dim: int = Field(ge=8, le=128, description="width of a head")
    intermediate: int = Field(ge=16, le=2048, description="width of the feed-forward layer")
    positions: int = Field(ge=512, le=32768, description="longest sequence, in tokens")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        return self


class TraceMix(_Section):
    """The mix of written thoughts, as shares of the examples."""

    budgets: Budgets = Field(description="budgets that hints promise, in tokens, rising")
    hinted: Share = Field(description="examples that carry a budget hint")
    minimal: Share = Field(description="examples that ask for minimal tokens")
    cut: Share = Field(description="examples whose thought is cut at a random token")
    cut_at_zero: Share = Field(description="cut examples that have no thought at all")
    longest: int = Field(
        ge=32, le=4096, description="tokens of a thought; longer ones lose re-checks"
    )
    terse_until: Share = Field(description="share of the steps that see mostly terse thoughts")
    everyday: Share = Field(description="examples of what people type first: `2+2`, `hello`")
    tools: Share = Field(description="examples whose chat lists tools, a calculator among them")
    objects: Share = Field(0.0, description="questions that ask for their answer as a JSON object")
    tasks: tuple[str, ...] = Field(
        (),
        description="families taught by slow thoughts, whose hints are unrelated to their length; "
        "without any, the tiny families, by thoughts that keep to their hints",
    )

    @model_validator(mode="after")
    def _shares_fit(self) -> TraceMix:
        if self.hinted + self.minimal > 1:
            raise ValueError(
                "hinted and minimal are shares of the same examples: at most 1 together"
            )
        if self.tasks and self.minimal:
            raise ValueError("minimal asks for short thoughts, and slow ones are not: set it to 0")
        return self


class Optimisation(_Section):
    """Muon for the matrices, AdamW for the rest; linear warm-up, cosine decay to a fiftieth."""

    steps: int = Field(ge=1, le=1_000_000, description="optimizer updates")
    tokens_per_step: int = Field(
        ge=256, le=1_000_000, description="tokens of a batch, padding included"
    )
    muon_lr: float = Field(gt=0, le=1, description="learning rate of the matrices")
    adamw_lr: float = Field(gt=0, le=1, description="learning rate of embedding and norms")
    warmup_steps: int = Field(ge=0, description="steps until the full learning rate")
    clip_norm: float = Field(gt=0, description="largest gradient norm; larger ones are clipped")
    validate_every: int = Field(ge=0, description="steps between validation losses; 0 for never")
    precision: Precision = Field(
        "float32", description="of the arithmetic on a CPU; a GPU multiplies in bfloat16"
    )


class Checkpoints(_Section):
    """States from which a killed run can resume."""

    every: int = Field(ge=1, description="steps between checkpoints")
    keep: int = Field(2, ge=1, description="checkpoints kept, the newest ones")


class SftRecipe(_Section):
    """Supervised cold start of a tiny reasoner from scratch."""

    name: str = Field(min_length=1, description="of the recipe, and of the run's directory")
    seed: int = Field(ge=0, description="of the weights and of the examples")
    model: ModelShape
    traces: TraceMix
    optimisation: Optimisation
    checkpoints: Checkpoints = Checkpoints(every=100, keep=1)


class Rollouts(_Section):
    """The samples of a step."""

    prompts: int = Field(ge=1, le=65536, description="problems per step")
    temperature: float = Field(1.0, gt=0, le=10, description="at which rollouts are sampled")
    engine: Literal["transformers", "vllm", "http"] = Field(
        "transformers",
        description="what samples; vllm shares the trainer's GPU, http asks servers",
    )
    servers: tuple[str, ...] = Field((), description="URLs of vLLM servers that load new weights")
    transfer: Literal["checkpoint", "nccl"] = Field(
        "checkpoint",
        description="how servers get new weights: checkpoint has them load a directory that they "
        "share with the trainer, nccl broadcasts from GPU to GPU",
    )
    steps_ahead: Literal[0, 1] = Field(
        0,
        description="1: servers draw the next step's rollouts during a step's updates, with "
        "weights that are one step older",
    )
    vllm_options: tuple[str, ...] = Field(
        (),
        description="vLLM's own options, such as --gpu-memory-utilization=0.5; unless given, three "
        "tenths of the memory, as many sequences as rows (at most 1,024) and as much context as "
        "the recipe needs",
    )
    sampler_cap: float | None = Field(
        2.0,
        ge=1,
        le=1000,
        description="largest weight p/q of a token that vLLM drew with probability q and to which "
        "the trainer gives p (truncated importance sampling); null for no weights",
    )
    cache_gib: float = Field(
        4.0,
        gt=0,
        le=4096,
        description="GiB of keys and values that the transformers engine holds; further rows wait "
        "for the next batch",
    )
    verifiers: int = Field(2, ge=1, le=64, description="workers that judge untrusted answers")
    longest_prompt: int | None = Field(
        None,
        ge=1,
        description="tokens; problems with longer prompts are left out",
    )

    @property
    def cache_bytes(self) -> float:
        return self.cache_gib * (1 << 30)


class PolicyOptimisation(_Section):
    """AdamW with linear warm-up, then a constant learning rate, unless the fields name others.

    Counts are optimizer updates.
    """

    engine: str = Field(
        "accelerate", description="what trains: accelerate, verl on Ray, or package.module:Name"
    )
    workers: int | None = Field(None, ge=1, description="of verl; one per GPU unless given")
    steps: int = Field(ge=1, le=1_000_000, description="rollout steps")
    updates: int = Field(ge=1, le=64, description="optimizer updates per step")
    micro_batches: int = Field(
        1, ge=1, le=4096, description="passes of each update; more passes save memory"
    )
    tokens_per_pass: int | None = Field(
        None,
        ge=1,
        description="most tokens of a process's pass, padding included: an update takes as many "
        "passes as it needs, on any number of GPUs; a longer row has a pass of its own",
    )
    learning_rate: float = Field(gt=0, le=1, description="after the warm-up")
    warmup_updates: int = Field(0, ge=0, description="updates until the full learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's")
    clip_norm: float = Field(
        1.0, gt=0, description="largest gradient norm; larger ones are clipped"
    )
    optimizer: str = Field(
        "AdamW",
        description="a class of torch.optim, or package.module:Name, such as "
        "bitsandbytes.optim:AdamW8bit",
    )
    optimizer_options: dict[str, Any] = Field(
        {}, description="the optimizer's arguments beside learning_rate and weight_decay"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="of the learning rate after the warm-up; the others fall to 0"
    )
    precision: Precision = Field("float32", description="of the arithmetic")
    weights: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="of the weights; bfloat16 only with lora, which leaves them unchanged",
    )
    attention: str | None = Field(
        None,
        description="kernel by transformers' name, such as sdpa, eager, flex_attention or "
        "flash_attention_2; transformers' choice unless given",
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations twice instead of keeping them"
    )

    @model_validator(mode="after")
    def _options_are_no_fields(self) -> Self:
        for option, field in (("lr", "learning_rate"), ("weight_decay", "weight_decay")):
            if option in self.optimizer_options:
                raise ValueError(f"optimizer_options: set optimisation.{field} instead of {option}")
        return self


class Validation(_Section):
    """Validations of a run: natural thinking on problems that training never sees."""

    every: int = Field(ge=1, description="steps between validations")
    problems: int = Field(ge=1, le=100_000, description="problems asked each time")
    samples: int = Field(1, ge=1, le=1024, description="responses per problem (mean@k)")
    longest: int | None = Field(
        None,
        ge=1,
        description="tokens of a response; method.longest unless given, and brpo's summary_tokens",
    )
    greedy: bool = Field(
        False, description="take the likeliest token, instead of rollouts.temperature"
    )
    also: tuple[str, ...] = Field(
        (),
        description="other tasks to validate on, as many problems of each, under their own names",
    )
    hints: tuple[Tokens, ...] = Field((), description="budgets to hint at, one after the other")
    budgets: Rising = Field((), description="budgets at which to cut thoughts, rising")
    answer_tokens: int = Field(
        128, ge=1, le=1_000_000, description="tokens of an answer to a truncated thought"
    )


class Lora(_Section):
    """Train low-rank adapters (PEFT) instead of all weights; the export merges them."""

    rank: int = Field(16, ge=1, le=1024, description="of the two matrices of an adapter")
    alpha: int = Field(32, ge=1, le=4096, description="an adapter counts alpha / rank times")
    target_modules: Annotated[tuple[str, ...], Field(min_length=1)] | Literal["all-linear"] = Field(
        "all-linear", description="names of the layers that get an adapter"
    )


class PolicyRecipe(_Section):
    """Reinforcement learning from a checkpoint, by the method that `method` names."""

    name: str = Field(min_length=1, description="of the recipe, and of the run's directory")
    seed: int = Field(ge=0, description="of problems, rollouts and adapters")
    base: str = Field(
        min_length=1,
        description="directory or hub name of a checkpoint with ponder.json, or of a known family",
    )
    close_text: str | None = Field(
        None, description="text that closes a thought, with its end marker; the base's unless given"
    )
    answer_prefix: str | None = Field(
        None, description="text that begins the answer after a close; the base's unless given"
    )
    tasks: tuple[str, ...] = Field(min_length=1, description="where the problems come from")
    system_prompt: str | None = Field(
        None, min_length=1, description="the chat's system message; none unless given"
    )
    instruction: str = Field(
        "",
        description="text appended to every question unchanged, so it begins with a space or a "
        "line break; clients of the trained checkpoint must add it, too",
    )
    method: MethodConfig
    rollouts: Rollouts
    optimisation: PolicyOptimisation
    validation: Validation
    checkpoints: Checkpoints
    lora: Lora | None = None
    report_to: tuple[str, ...] = Field(
        (), description="trackers beside metrics.jsonl: tensorboard, wandb, mlflow, …"
    )

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        prompts, updates = self.rollouts.prompts, self.optimisation.updates
        if prompts % updates:
            raise ValueError(
                f"rollouts.prompts = {prompts} must be a multiple of optimisation.updates = "
                f"{updates}: every update learns from whole groups"
            )
        plan = self.optimisation
        if (self.rollouts.engine == "http") != bool(self.rollouts.servers):
            raise ValueError("rollouts.servers and rollouts.engine = http belong together")
        if self.rollouts.transfer != "checkpoint" and not self.rollouts.servers:
            raise ValueError(
                "rollouts.transfer is how rollouts.servers get weights: name some, or omit it"
            )
        if self.rollouts.steps_ahead and not (self.rollouts.servers and self.rollouts.sampler_cap):
            raise ValueError(
                "rollouts.steps_ahead needs rollouts.engine = http, whose servers draw while the "
                "trainer learns, and rollouts.sampler_cap, which weighs what older weights drew"
            )
        if self.rollouts.vllm_options and self.rollouts.engine != "vllm":
            raise ValueError(
                "rollouts.vllm_options are for rollouts.engine = vllm: set it, or leave them out"
            )
        if plan.weights == "bfloat16" and self.lora is None:
            raise ValueError(
                "optimisation.weights = bfloat16 is for lora: updates of so small a learning rate "
                "are lost when a weight is rounded; leave it out, or add lora"
            )
        if self.method.branches and plan.attention not in (None, *TREE_KERNELS):
            raise ValueError(
                f"optimisation.attention = {plan.attention}: the summaries of "
                f"{self.method.method} need a mask of their own, which only "
                f"{', '.join(TREE_KERNELS)} take"
            )
        rows = prompts // updates * self.method.group_size
        if self.optimisation.micro_batches > rows:
            raise ValueError(
                f"optimisation.micro_batches = {self.optimisation.micro_batches} must be at most "
                f"the {rows} rows of an update"
            )
        return self


Recipe = SftRecipe | PolicyRecipe


def find_recipe(name_or_path: str) -> Path:
    """The file of a shipped name or a YAML path; `RecipeError` lists the names otherwise."""
    shipped = shipped_recipes()
    if name_or_path in shipped:
        return FOLDER / f"{name_or_path}.yaml"
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise RecipeError(f"{path}: no such file")
    close = difflib.get_close_matches(name_or_path, shipped, n=1)
    raise RecipeError(
        f"no recipe {name_or_path!r}: {f'did you mean {close[0]}? N' if close else 'n'}ame one of "
        f"{', '.join(shipped)}, or give the path of a file that ends in .yaml"
    )


def load_recipe(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `changes` (`dotted.key=value`), and check it.

    `RecipeError` names every wrong field.
    """
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    return recipe_from(raw, str(path), changes)


def recipe_from(raw: Any, where: str, changes: Sequence[str] = ()) -> Recipe:
    """The recipe from `raw`, the YAML's data; errors name `where` it comes from."""
    kind = _kind(raw)
    try:
        recipe = kind.model_validate(changed(raw, changes) if changes else raw)
        if isinstance(recipe, PolicyRecipe):
            Method.of(recipe.method)  # the components must fit
        return recipe
    except ValidationError as error:
        raise RecipeError(f"{where}: {sentences(error, kind)}") from error
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _kind(raw: object) -> type[Recipe]:
    return SftRecipe if isinstance(raw, dict) and "traces" in raw else PolicyRecipe
