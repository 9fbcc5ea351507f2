"""Whole runs of the loop, as short as they can be."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ponder.tasks.workers import Verdict
from ponder.thought.contract import Contract, tokenizer_sha256
from ponder.training.command import Options
from ponder.training.command import run as command
from ponder.training.method.kernel import LossInputs, Objective, PerToken
from ponder.training.method.presets import PRESETS
from ponder.training.method.settings import Preset
from ponder.training.run.recipe import RecipeError
from ponder.training.run.recipe_hash import recipe_sha256
from ponder.training.run.run import Run
from ponder.training.run.sizes import checkpoint_bytes
from training.policy import (
    MEASURED,
    METHODS,
    TINY,
    furthest,
    metrics,
    quiet,
    raw_recipe,
    recipe,
    train,
    weights,
    write_recipe,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("method", METHODS)
def test_two_steps_of_every_method(method: str, tmp_path: Path) -> None:
    own, out = recipe(tmp_path, method), tmp_path / "out"
    train(own, out)

    assert sorted(path.name for path in (out / "checkpoints").iterdir()) == [
        "checkpoint-2",
        "checkpoint-4",
    ]
    assert not list(out.glob("*.partial")) and not (out / "staging").exists()
    assert json.loads((out / "recipe.json").read_text()) == own.model_dump(mode="json")
    steps = metrics(out, "step")
    assert [line["step"] for line in steps] == [1, 2]
    for line in steps:
        assert set(line) >= MEASURED
        assert all(torch.isfinite(torch.tensor(float(line[name]))) for name in MEASURED)
        assert 0 < line["thinking_tokens"] <= 160
    assert any(line["grad_norm"] > 0 for line in steps)
    assert [line["step"] for line in metrics(out, "validation")] == [0, 2]
    assert (out / "training.png").read_bytes().startswith(b"\x89PNG")
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert samples and {"problem", "thought", "answered"} <= set(samples[0])
    assert {sample["step"] for sample in samples} == {2}
    if method == "hbpo":
        assert len({sample["hint"] for sample in samples}) == len(METHODS[method]["budgets"])

    base, last = weights(TINY), weights(out)
    assert furthest(base, last) > 0
    saved = sum(f.stat().st_size for f in (out / "checkpoints" / "checkpoint-4").iterdir())
    trained = sum(weight.numel() for weight in base.values())
    assert saved == pytest.approx(checkpoint_bytes(own, trained), rel=0.02)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
    assert all(torch.equal(model.state_dict()[name], value) for name, value in last.items())
    assert model.lm_head.weight is model.model.embed_tokens.weight
    trained = weights(out / "checkpoints" / "checkpoint-4")
    rounded = {name: value.to(torch.bfloat16) for name, value in trained.items()}
    assert furthest(rounded, last) == 0
    assert AutoTokenizer.from_pretrained(out).chat_template

    contract = Contract.load(out)
    assert contract is not None
    assert (contract.method, contract.recipe, contract.seed) == (method, own.name, 3)
    assert contract.recipe_sha256 == recipe_sha256(own)
    assert contract.base_model == TINY.name
    assert contract.tokenizer_sha256 == tokenizer_sha256(out)
    budgets = METHODS[method].get("budgets", [40, 80, 160, 200])
    assert contract.trained_budgets == tuple(budgets)
    assert Contract.load(out / "best") == contract


def test_a_step_without_a_signal_changes_nothing(tmp_path: Path) -> None:
    own = recipe(tmp_path, "dapo", optimisation={"steps": 1})
    wrong = Run(own, tmp_path / "out", lambda asked: [Verdict(False) for _ in asked], False)
    wrong.train(progress=False)
    assert furthest(weights(TINY), weights(tmp_path / "out")) == 0
    (line,) = metrics(tmp_path / "out", "step")
    assert (line["zero_variance_share"], line["loss"], line["grad_norm"]) == (1, 0, 0)


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    """An update's gradient is that of its rows, however many passes and batches it takes."""
    ways: dict[str, dict[str, Any]] = {
        "whole": {"optimisation": {"steps": 1, "micro_batches": 1}},
        "parts": {"optimisation": {"steps": 1, "micro_batches": 4}},
        "tokens": {
            "optimisation": {"steps": 1, "micro_batches": 1, "tokens_per_pass": 300},
            "rollouts": {"cache_gib": 0.002},
        },
    }
    for name, sections in ways.items():
        train(recipe(tmp_path, "hbpo", **sections), tmp_path / name)
    checkpoint = Path("checkpoints") / "checkpoint-2"
    whole = weights(tmp_path / "whole" / checkpoint)
    (line,) = metrics(tmp_path / "whole", "step")
    for name in ("parts", "tokens"):
        assert furthest(whole, weights(tmp_path / name / checkpoint)) < 1e-5
        (other,) = metrics(tmp_path / name, "step")
        assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)
        assert line["entropy"] == pytest.approx(other["entropy"], rel=1e-4)
        assert line["sampled_tokens"] == other["sampled_tokens"]


def test_adapters_are_merged_into_what_is_served(tmp_path: Path) -> None:
    own = recipe(tmp_path, "grpo", lora={"rank": 4}, optimisation={"learning_rate": 1e-2})
    train(own, tmp_path / "out")
    base, last = weights(TINY), weights(tmp_path / "out")
    assert base.keys() == last.keys()
    moved = {name for name in base if not torch.equal(base[name], last[name])}
    assert moved and all("proj" in name for name in moved)


def test_trackers_get_steps_and_validations(tmp_path: Path) -> None:
    """TensorBoard's own event files, read back by TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watched = {"greedy": True, "hints": [40, 200], "budgets": [20, 60], "also": ["24"]}
    own = recipe(tmp_path, "grpo", report_to=["tensorboard"], validation=watched)
    run = train(own, tmp_path / "out")
    (events,) = (tmp_path / "out" / "runs").glob("*/events.*")
    read = EventAccumulator(str(events))
    read.Reload()
    steps, validations = (metrics(tmp_path / "out", kind) for kind in ("step", "validation"))
    for tag, lines, name in (
        ("train/accuracy", steps, "accuracy"),
        ("train/grad_norm", steps, "grad_norm"),
        ("eval/accuracy", validations, "accuracy"),
        ("eval/thinking_tokens", validations, "thinking_tokens"),
        *(
            (f"eval/{kind}/{name}", validations, f"{kind}/{name}")
            for kind in ("hint_40", "hint_200", "cut_20", "cut_60", "24")
            for name in ("accuracy", "thinking_tokens")
        ),
    ):
        scalars = read.Scalars(tag)
        assert [(it.step // 2, pytest.approx(it.value)) for it in scalars] == [
            (line["step"], line[name]) for line in lines
        ], tag
    (last,) = read.Tensors("samples/0/text_summary")
    (text,) = last.tensor_proto.string_val
    assert last.step == 4 and b"**problem**" in text and b"**thought**" in text
    assert all(line["cut_20/thinking_tokens"] <= 20 for line in validations)
    assert validations[0]["hint_40/thinking_tokens"] < validations[0]["hint_200/thinking_tokens"]
    assert all(line["seconds_rollout"] > 0 for line in _lines(tmp_path / "out", "step"))
    assert "time in steps: rollout " in list(run.reached())[-1]


def _lines(out: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


@pytest.mark.parametrize(
    ("watched", "said"),
    [
        ({"also": ["huge"]}, "validation.also: no task 'huge'"),
        ({"budgets": [4000]}, "do not fit the 4096 positions"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    watched: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        train(recipe(tmp_path, "brpo", validation=watched), tmp_path / "out")


def test_a_tracker_that_is_not_installed_names_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    with pytest.raises(RecipeError, match="report_to: wandb is not installed: pip install wandb"):
        train(recipe(tmp_path, "grpo", report_to=["wandb"]), tmp_path / "out")


# -- resuming ----------------------------------------------------------------------------------


def ponder_train(*arguments: object) -> list[str]:
    words = [str(argument) for argument in arguments]
    return [sys.executable, "-m", "ponder.cli.main", "train", *words, "--threads", "1"]


@pytest.mark.timeout(900)  # two processes import what takes half a minute on a quiet machine
def test_a_killed_run_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    own = recipe(tmp_path, "hbpo", optimisation={"steps": 3})
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(own, whole)

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            ponder_train(tmp_path / "own.yaml", "--out", killed), stderr=log, env=quiet()
        )
        try:
            while not (killed / "checkpoints" / "checkpoint-2").exists():
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.01)
        finally:
            process.kill()
            status = process.wait()
    assert status == -signal.SIGKILL
    assert "Loading weights" not in (tmp_path / "log").read_text()
    assert not (killed / "model.safetensors").exists()
    # What a kill can leave behind: half a checkpoint, half a line, lines of a step not kept.
    half = killed / "staging" / "checkpoint-4"
    half.mkdir(parents=True, exist_ok=True)
    (half / "model.safetensors").write_bytes(b"half")
    with (killed / "metrics.jsonl").open("a") as file:
        file.write(
            '{"kind": "step", "step": 2, "reward": 9}\n{"kind": "step", "step": 1, "parts": {}}'
        )

    train(own, killed, resume=True)
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert names == {path.relative_to(killed) for path in killed.rglob("*") if path.is_file()}
    for name in ("model.safetensors", "checkpoints/checkpoint-6/model.safetensors"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    assert metrics(killed) == metrics(whole)

    train(own, killed, resume=True)  # nothing is left to do
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert metrics(killed) == metrics(whole)


def poisoned(preset: Preset, good: int, gradient: bool) -> Preset:
    """The preset, its objective NaN after `good` calls: in the value, or in the gradient alone."""

    class Poisoned:
        reads: frozenset[str] = frozenset()

        def __init__(self, inner: Objective) -> None:
            self.inner = inner
            self.calls = 0

        def __call__(self, rows: LossInputs) -> PerToken:
            self.calls += 1
            found = self.inner(rows)
            if self.calls <= good:
                return found
            value = found.per_token_BT
            bad = value + torch.sqrt(value - value) if gradient else value * float("nan")
            return PerToken(bad, found.stats)

    return replace(preset, objective=lambda config: Poisoned(preset.objective(config)))


@pytest.mark.parametrize(("gradient", "said"), [(False, "the loss is nan"), (True, "the gradient")])
def test_a_run_that_diverges_stops_before_it_spoils_the_weights(
    gradient: bool,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, out = write_recipe(tmp_path / "own.yaml", raw_recipe("hbpo")), tmp_path / "out"
    # Six calls are good: the seventh is the second step's last update.
    monkeypatch.setitem(PRESETS, "hbpo", poisoned(PRESETS["hbpo"], 6, gradient))
    assert command(Options(recipe=str(path), out=out, threads=1)) == 1
    error = capsys.readouterr().err
    assert said in error and "at update 4" in error and "smaller learning_rate" in error
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert checkpoint.name == "checkpoint-2"
    assert all(torch.isfinite(value).all() for value in weights(checkpoint).values())
    assert not (out / "model.safetensors").exists()


# -- what does not hold ------------------------------------------------------------------------


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base": "nowhere/at-all"}, "base: 'nowhere/at-all' is neither"),
        ({"base": "tiny-sft"}, "no directory tiny-sft here: run `ponder train tiny-sft` first"),
        ({"tasks": ["huge"]}, "tasks: no task 'huge'"),
        ({"rollouts": {"longest_prompt": 2}}, "tasks: .* raise rollouts.longest_prompt"),
        ({"rollouts": {"prompts": 5}}, "prompts = 5 must be a multiple of optimisation.updates"),
        ({"rollouts": {"steps_ahead": 1}}, "steps_ahead needs rollouts.engine = http"),
        ({"optimisation": {"micro_batches": 9}}, "micro_batches = 9 must be at most the 8 rows"),
        ({"close_text": "no marker"}, "close_text: .*'</think>' exactly once"),
        ({"method": {"longest": 4090}}, "do not fit the 4096 positions"),
        (
            {"rollouts": {"longest_prompt": 32}, "validation": {"also": ["maze"]}},
            "validation on maze: 4 of 4 .* more than 32 tokens; raise rollouts.longest_prompt",
        ),
        (
            {"method": {"longest": 4050}, "validation": {"also": ["maze"]}},
            "validation on maze: 4 of 4 .* lower method.longest, or the budgets",
        ),
        ({"lora": {"target_modules": ["q"]}}, "lora.target_modules: .* no q: name .* q_proj"),
        ({"optimisation": {"workers": 2}}, "workers is for optimisation.engine = verl: set it to"),
        ({"report_to": ["nosuch"]}, "report_to: nosuch"),
        (
            {"rollouts": {"longest_prompt": 2000}, "method": {"longest": 3000}},
            "method.longest: .* prompts of 2000 .* lower it, or rollouts.longest_prompt",
        ),
        ({"validation": {"longest": 4096}}, "validation.longest: the 4106 tokens"),
        ({"validation": {"budgets": [4086], "answer_tokens": 8}}, "validation.budgets: .*: lower"),
        ({"method": {"longest": 4070, "add": [{"t1": {}}]}}, "method.longest: the 4115"),
        ({"method": {"longst": 3}}, r"method\.longst: no such field: did you mean method\.longest"),
        ({"optimiser": {}}, "optimiser: no such field: did you mean optimisation"),
    ],
)
def test_bad_recipes_fail_before_a_model_loads(
    change: dict[str, Any],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    path = write_recipe(tmp_path / "own.yaml", raw_recipe("hbpo", **change))
    assert command(Options(recipe=str(path), out=tmp_path / "out", threads=1)) == 2
    error = capsys.readouterr().err
    assert error.startswith("ponder train: ")
    assert re.search(named, error), error
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_model")
def test_too_few_problems_to_validate_are_said(tmp_path: Path) -> None:
    problems = tmp_path / "few.jsonl"
    problems.write_text("".join(f'{{"prompt": "{i}?", "answer": "{i}"}}\n' for i in range(20)))
    own = recipe(tmp_path, "grpo", tasks=[f"jsonl:{problems}"], validation={"problems": 20})
    with pytest.raises(RecipeError, match=r"validation\.problems: only"):
        train(own, tmp_path / "out")


@pytest.mark.usefixtures("no_model")
def test_a_base_of_no_known_family_is_refused(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    for file in TINY.iterdir():
        if file.name not in ("ponder.json", "model.safetensors"):
            (base / file.name).write_bytes(file.read_bytes())
    template = base / "chat_template.jinja"
    template.write_text(template.read_text().replace("think>", "ponder>"))
    own = recipe(tmp_path, "grpo", base=str(base))
    with pytest.raises(RecipeError, match=r"base: .* has no ponder.json"):
        train(own, tmp_path / "out")


@pytest.mark.usefixtures("no_model")
def test_processes_must_divide_the_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match=r"rollouts.prompts = 4 .* processes = 2 x 3"):
        train(recipe(tmp_path, "hbpo"), tmp_path / "out")


@pytest.mark.usefixtures("no_model")
def test_a_directory_of_another_run_is_left_alone(tmp_path: Path) -> None:
    own, out = recipe(tmp_path, "hbpo"), tmp_path / "out"
    (out / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    with pytest.raises(RecipeError, match="pass --resume to continue it"):
        train(own, out)
    with pytest.raises(RecipeError, match=r"recipe.json .* cannot be read"):
        train(own, out, resume=True)
    (out / "recipe.json").write_text(own.model_copy(update={"seed": 9}).model_dump_json())
    with pytest.raises(RecipeError, match=r"another recipe \(seed differ\)"):
        train(own, out, resume=True)
