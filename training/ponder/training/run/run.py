"""A reinforcement-learning run: from a recipe and a checkpoint to a directory that can be served.

OUT/               the last weights, servable, with ponder.json
OUT/best/          the weights with the best validation accuracy, servable
OUT/checkpoints/   states to resume from
OUT/recipe.json    what was run
OUT/metrics.jsonl  a line per step and per validation
OUT/samples.jsonl  some rollouts of every step that a validation follows
OUT/training.png   the curves of the metrics
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from ponder.engine.tokenizer import ModelFiles
from ponder.tasks.problems import Task, held_out
from ponder.tasks.sources import find_tasks

from ..base import Base
from ..engines.trl import BudgetTrainer, GRPOConfig
from ..method.batch import Prompt
from ..rollout.experience import STATE, Collector, Experience, Judge
from ..rollout.plans import Reader, plain
from .checks import adapted, check_processes, check_trackers, room_for_prompt
from .directory import last_checkpoint, record
from .export import export
from .recipe import PolicyRecipe, RecipeError
from .watch import BEST, Progress, quieten

_VALIDATION_SEED = 1


class Run:
    """One run of a recipe in a directory; `resume` continues from its last complete checkpoint.

    `observe` is called with every step, counted from 0, and with what it learns from. Raises
    `RecipeError` for a base or a directory that does not fit, `Diverged` when the loss is no longer
    finite.
    """

    def __init__(
        self,
        recipe: PolicyRecipe,
        out: Path,
        judge: Judge,
        resume: bool,
        observe: Callable[[int, Experience], object] | None = None,
    ) -> None:
        self._observer = observe
        self._recipe = recipe
        self._out = out
        self._judge = judge
        self._start = last_checkpoint(out, recipe, resume)
        world = int(os.environ.get("WORLD_SIZE", "1"))  # set by torchrun and accelerate
        check_processes(recipe, world)
        check_trackers(recipe)
        tasks = _tasks(recipe)
        base = Base.find(recipe)
        positions = base.config.get("max_position_embeddings")
        room = room_for_prompt(recipe, positions, base.checkpoint.tokenizer)
        if recipe.lora is not None:
            adapted(recipe, base.on_meta())
        self._contract = base.contract
        self._reader = _reader(base)
        self._collector = _collector(recipe, tasks, self._reader, judge, room)
        self._validation = _validation(recipe, tasks, self._reader, room)
        if self._start is not None:
            _take_up(self._collector, self._start)
        quieten()
        self._trainer = self._build(base.files, world)

    def train(self, progress: bool = True) -> None:
        """Run to the last step and export; metrics of steps that are repeated are dropped."""
        recipe, trainer = self._recipe, self._trainer
        main: bool = trainer.accelerator.is_main_process
        done = int(self._start.name.rpartition("-")[2]) if self._start else 0
        if main and self._start is None:
            record(recipe, self._out)
        watch = Progress(
            self._out,
            name=recipe.name,
            steps=recipe.optimisation.steps,
            updates=recipe.optimisation.updates,
            done=done // recipe.optimisation.updates,
            main=main,
            bar=progress,
        )
        self._watch = watch
        trainer.add_callback(watch)
        trainer.add_callback(_Validate(self, recipe))
        trainer.train(resume_from_checkpoint=str(self._start) if self._start else None)
        self._export(self._out)
        watch.close()
        trainer.accelerator.wait_for_everyone()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return bool(self._trainer.accelerator.is_main_process)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know before the run starts."""
        return self._collector.method.notes

    def reached(self) -> Iterator[str]:
        """What a run that was trained has reached, in sentences."""
        return self._watch.reached()

    def validate(self, step: int) -> None:
        """Natural thinking on the validation problems; keeps the weights if none were better."""
        accelerator, plan = self._trainer.accelerator, self._recipe.validation
        mine = self._validation[accelerator.process_index :: accelerator.num_processes]
        with self._trainer.sampler() as sampler:
            longest = self._recipe.method.longest
            responses = plain(mine, plan.samples, longest, sampler, self._reader)
        verdicts = self._judge([(r.prompt.problem, r.answer) for r in responses])
        correct = sum(v.correct and r.formatted for v, r in zip(verdicts, responses, strict=True))
        sums = [float(correct), float(sum(r.thinking_tokens for r in responses)), len(responses)]
        totals = accelerator.reduce(torch.tensor(sums, device=accelerator.device), "sum").tolist()
        accuracy, thinking = totals[0] / totals[2], totals[1] / totals[2]
        # The main process alone knows the validations before a resume, and exporting is collective.
        better = [self._watch.validated(step, accuracy, thinking)]
        self._report({"eval_accuracy": accuracy, "eval_thinking_tokens": thinking})
        if broadcast_object_list(better)[0]:
            self._export(self._out / BEST)

    def _report(self, figures: dict[str, float]) -> None:
        """To the trackers; the trainer's own log would also empty what the updates have counted."""
        trainer = self._trainer
        control = trainer.control
        due = control.should_log
        trainer.callback_handler.on_log(trainer.args, trainer.state, control, figures)
        control.should_log = due  # the step's own figures are still to come

    def _observe(self, step: int, experience: Experience) -> None:
        """Some rollouts of every step that a validation follows; `step` counts from 0."""
        if self._observer:
            self._observer(step, experience)
        if (step + 1) % self._recipe.validation.every == 0:
            self._watch.sample(step + 1, experience.shown)

    def _build(self, base: ModelFiles, world: int) -> BudgetTrainer:
        recipe, plan, method = self._recipe, self._recipe.optimisation, self._collector.method
        model = AutoModelForCausalLM.from_pretrained(base.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(base.name)
        micro = plan.updates * plan.micro_batches
        args = GRPOConfig(
            output_dir=str(self._out),
            seed=recipe.seed,
            max_steps=plan.steps * plan.updates,
            learning_rate=plan.learning_rate,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=plan.warmup_updates,
            weight_decay=plan.weight_decay,
            max_grad_norm=plan.clip_norm,
            # TRL's sizes only count micro-batches: rows come from the collector.
            per_device_train_batch_size=2,
            num_generations=2,
            steps_per_generation=micro,
            gradient_accumulation_steps=plan.micro_batches,
            shuffle_dataset=False,
            beta=0.0,
            temperature=recipe.rollouts.temperature,
            max_completion_length=recipe.method.longest,
            use_vllm=recipe.rollouts.engine == "vllm",
            vllm_mode="colocate",
            vllm_importance_sampling_correction=False,
            bf16=plan.precision == "bfloat16",
            gradient_checkpointing=plan.gradient_checkpointing,
            use_cpu=not torch.cuda.is_available(),
            ddp_backend="gloo" if world > 1 and not torch.cuda.is_available() else None,
            save_strategy="steps",
            save_steps=recipe.checkpoints.every * plan.updates,
            save_total_limit=recipe.checkpoints.keep,
            logging_strategy="steps",
            logging_steps=plan.updates,
            report_to=list(recipe.report_to) or "none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        )
        return BudgetTrainer(
            model=model,
            args=args,
            processing_class=tokenizer,
            reward_funcs=_unused_reward,
            train_dataset=_steps(plan.steps * micro * world),
            peft_config=_lora(recipe),
            collector=self._collector,
            objective=method.objective,
            constant_tokens=method.constant_tokens,
            observe=self._observe,
        )

    def _export(self, directory: Path) -> None:
        accelerator = self._trainer.accelerator
        state = accelerator.get_state_dict(self._trainer.model_wrapped)
        if not accelerator.is_main_process:
            return
        model = accelerator.unwrap_model(self._trainer.model)
        staged = directory.with_name(directory.name + ".partial")
        shutil.rmtree(staged, ignore_errors=True)
        if self._recipe.lora is not None:
            model = _merged(model)
            state = model.state_dict()
        export(staged, model, self._trainer.processing_class, self._contract, state)
        directory.mkdir(parents=True, exist_ok=True)
        for path in staged.iterdir():
            path.replace(directory / path.name)
        staged.rmdir()


class _Validate(TrainerCallback):  # type: ignore[misc]  # transformers is untyped
    """Validates before the first step, after every so many, and after the last."""

    def __init__(self, run: Run, recipe: PolicyRecipe) -> None:
        self._run = run
        self._recipe = recipe

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0:
            self._run.validate(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, rest = divmod(state.global_step, self._recipe.optimisation.updates)
        last = step == self._recipe.optimisation.steps
        if rest == 0 and (last or step % self._recipe.validation.every == 0):
            self._run.validate(step)


def _take_up(collector: Collector, checkpoint: Path) -> None:
    try:
        collector.load(checkpoint)
    except FileNotFoundError as error:
        raise RecipeError(
            f"--resume: {checkpoint} lacks {STATE}: an earlier version wrote it; start again "
            "without --resume, into another directory"
        ) from error


def _unused_reward(**_: Any) -> list[float]:
    raise AssertionError("rewards come from the collector")


def _steps(rows: int) -> Any:
    """A data set that only counts: TRL wants one prompt per two of its rows."""
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [""] * rows})


def _lora(recipe: PolicyRecipe) -> Any:
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    modules = recipe.lora.target_modules
    return LoraConfig(
        r=recipe.lora.rank,
        lora_alpha=recipe.lora.alpha,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )


def _merged(model: Any) -> Any:
    """A copy of a PEFT model with its adapters in the weights."""
    from copy import deepcopy

    return deepcopy(model).merge_and_unload()


def _tasks(recipe: PolicyRecipe) -> tuple[Task, ...]:
    try:
        return find_tasks(recipe.tasks)
    except ValueError as error:
        raise RecipeError(f"tasks: {error}") from error


def _reader(base: Base) -> Reader:
    try:
        return Reader(base.checkpoint)
    except ValueError as error:
        raise RecipeError(f"base: {error}") from error


def _collector(
    recipe: PolicyRecipe, tasks: Sequence[Task], reader: Reader, judge: Judge, room: int | None
) -> Collector:
    try:
        return Collector(
            recipe.method,
            tasks,
            reader,
            judge,
            prompts=recipe.rollouts.prompts,
            updates=recipe.optimisation.updates,
            seed=recipe.seed,
            longest_prompt=recipe.rollouts.longest_prompt or room,
        )
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _validation(
    recipe: PolicyRecipe, tasks: Sequence[Task], reader: Reader, room: int | None
) -> list[Prompt]:
    try:
        problems = held_out(tasks, recipe.validation.problems, "validation", _VALIDATION_SEED)
    except ValueError as error:
        raise RecipeError(f"validation.problems: {error}") from error
    prompts = [reader.prompt(problem, f"validation/{problem.id}") for problem in problems]
    longest = max(len(prompt.ids) for prompt in prompts)
    if room is not None and longest > room:
        raise RecipeError(
            f"method.longest: a validation problem's prompt has {longest} tokens, and the "
            f"positions of {recipe.base} leave {room}: lower it, or the budgets"
        )
    return prompts
