"""What `ponder train --dry-run` says, against a model that is really there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ponder.training.command import Options, run
from ponder.training.run import forecast, pace
from ponder.training.run.checks import check_processes
from ponder.training.run.recipe import PolicyRecipe, SftRecipe, find_recipe, load_recipe
from ponder.training.run.sizes import state_bytes
from training.policy import METHODS, TINY, raw_recipe, write_recipe
from training.policy import recipe as small

PAPERS = {
    "hbpo-r1-distill-1.5b": 1_777_088_000,
    "brpo-r1-distill-1.5b": 1_777_088_000,
    "htpo-qwen3-8b": 8_190_735_360,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_a_plan(
    method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path / "own.yaml", raw_recipe(method))
    assert run(Options(recipe=str(path), out=tmp_path / "out", dry_run=True, threads=1)) == 0
    said = capsys.readouterr().out
    assert f"small-{method}: {method}" in said
    assert (
        "\nthoughts    by its ponder.json: <think> … </think>, opened by the chat template\n"
        in said
    )
    assert "2 of 4 prompts x 4 = 16 rows; 2 updates each, 4 in all" in said
    assert "the longest of 64 drawn" in said
    assert "checkpoints 2 of" in said
    assert re.search(r"time +about \d+ seconds, estimated from one step that was tried here", said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ("", "as think tags: <think> … </think>, opened by the chat template"),
        ("{# </think> #}", "as Qwen3: <think> … </think>, opened by the chat template"),
        (
            "{% if enable_thinking %}<|im_end|>{% endif %}{# </think> #}",
            "as Qwen3: <think> … </think>, opened for the model (enable_thinking=True)",
        ),
    ],
)
def test_a_plan_says_how_the_base_thinks(
    added: str,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(forecast, "_time", lambda *_: "")
    base = Path(shutil.copytree(TINY, tmp_path / "bare", ignore=lambda *_: ["ponder.json"]))
    with (base / "chat_template.jinja").open("a") as template:
        template.write(added)
    path = write_recipe(tmp_path / "own.yaml", raw_recipe("hbpo", base=str(base)))
    assert run(Options(recipe=str(path), dry_run=True, threads=1)) == 0
    assert f"\nthoughts    {line}\n" in capsys.readouterr().out


def test_the_shape_is_the_checkpoints(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    found = forecast.shape(small(tmp_path, "grpo"))
    held = load_file(TINY / "model.safetensors")
    assert found.parameters == found.trained == sum(value.numel() for value in held.values())
    assert (found.layers, found.hidden, found.cache_width) == (4, 160, 64)


def test_adapters_are_counted(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoConfig

    own = small(tmp_path, "grpo", lora={"rank": 4})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(TINY))
        adapted = get_peft_model(
            model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    assert forecast.shape(own).trained == adapted.get_nb_trainable_parameters()[0]


def test_a_step_is_counted_by_hand(tmp_path: Path) -> None:
    work = forecast.tokens(small(tmp_path, "brpo"), prompt=20)
    answers = 4 * 2 * 8  # budgets, summaries, tokens
    assert (work.rows, work.row) == (16, 20 + 160 + answers)
    assert work.sampled == 16 * (161 + answers)
    assert work.scored == 8 * work.row  # the first of two updates is the policy itself
    assert work.forward == work.sampled + work.scored + 3 * 16 * work.row
    assert forecast.tokens(small(tmp_path, "dapo"), 20).sampled == 2 * 16 * 160


def test_components_that_score_and_an_anchor_are_counted(tmp_path: Path) -> None:
    plain = forecast.tokens(small(tmp_path, "grpo"), 20)
    for added in ("progrpo", "d3s", "t1"):
        own = small(tmp_path, "grpo", method={"add": [{added: {}}]})
        assert forecast.tokens(own, 20).scored == plain.scored + plain.trained
        anchor = state_bytes(own, 100).get("anchor", 0)
        assert anchor == (400 if added == "t1" else 0)


def test_memory_adds_up(tmp_path: Path) -> None:
    own = small(tmp_path, "grpo")
    model, work = forecast.shape(own), forecast.tokens(own, 20)
    one, two = (forecast.memory(own, model, work, processes) for processes in (1, 2))
    assert one["weights"] == one["gradients"] == one["AdamW"] / 2 == 4 * model.parameters
    token = 4 * 2 * model.layers * model.cache_width
    picked = model.config.vocab_size * (4 + 24)
    assert one["KV cache"] == 16 * (token * (180 + 64) + picked)
    summaries = forecast.memory(small(tmp_path, "brpo"), model, work, 1)["KV cache"]
    row = token * (180 + 8 + 64) + picked
    assert summaries == (16 * 4 * 2) * row  # 4 budgets, 2 summaries of 8
    tight = small(tmp_path, "brpo", rollouts={"cache_gib": 10 * row / 2**30})
    assert forecast.memory(tight, model, work, 1)["KV cache"] == pytest.approx(10 * row)
    assert two["activations"] == one["activations"] / 2
    assert two["weights"] == one["weights"]
    saving = own.model_copy(
        update={
            "optimisation": own.optimisation.model_copy(update={"gradient_checkpointing": True})
        }
    )
    assert forecast.memory(saving, model, work, 1)["activations"] < one["activations"]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("name", "parameters"), PAPERS.items())
def test_the_papers_recipes_are_planned_without_the_hub(
    name: str,
    parameters: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def unreachable(name: str) -> None:
        raise FileNotFoundError(name)

    monkeypatch.setattr(forecast.ModelFiles, "find", unreachable)
    own = load_recipe(find_recipe(name))
    assert isinstance(own, PolicyRecipe)
    assert forecast.shape(own).parameters == parameters
    assert run(Options(recipe=name, dry_run=True, threads=1)) == 0
    said = capsys.readouterr().out
    assert "Ponder's table of public shapes, as the hub is out of reach" in said
    assert "beside vLLM's own" in said
    assert "time        unknown: divide the FLOP" in said


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(
    ("change", "named"),
    [({"tasks": ["huge"]}, "no task 'huge'"), ({"close_text": "no marker"}, "close_text")],
)
def test_a_stated_prompt_length_excuses_nothing(
    change: dict[str, Any], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = raw_recipe("hbpo", rollouts={"longest_prompt": 100}, **change)
    assert (
        run(Options(recipe=str(write_recipe(tmp_path / "own.yaml", raw)), dry_run=True, threads=1))
        == 2
    )
    assert named in capsys.readouterr().err


def test_a_cold_start_has_a_plan_too(
    recipe: SftRecipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_recipe(tmp_path / "own.yaml", recipe.model_dump(mode="json"))
    assert run(Options(recipe=str(path), out=tmp_path / "out", dry_run=True, threads=1)) == 0
    said = capsys.readouterr().out
    assert "steps       3 of at most 1,024 tokens" in said
    assert "estimated from 3 steps that were tried here" in said
    assert not (tmp_path / "out").exists()


def test_a_cold_start_takes_no_base(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Options(recipe="tiny-sft", base="x")) == 2
    assert "--base is not for a cold start" in capsys.readouterr().err


def test_a_run_is_a_step_many_times(tmp_path: Path) -> None:
    """Twice the steps with twice the validations take about twice as long, by the same step."""
    torch.set_num_threads(1)
    whole, step = pace.try_step(small(tmp_path, "brpo"))
    assert step > 0
    assert 2 * step < whole < 2 * step * 4  # two steps, and two validations of a part of one


@pytest.mark.parametrize("added", [[{"aspo": {}}, {"d3s": {}}], [{"progrpo": {}}]])
def test_a_step_that_scores_its_rollouts_is_tried_too(
    added: list[dict[str, Any]], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    whole, step = pace.try_step(small(tmp_path, "hbpo", method={"add": added}))
    assert 0 < step < whole


def test_the_docs_start_as_many_processes_as_a_recipe_divides_by() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "training.md").read_text(encoding="utf-8")
    started = r"--(?:nproc_per_node|num_processes) (\d+)(?:.|\\\n)*? train ([\w.-]+)"
    found = re.findall(started, docs)
    assert len(found) == 2
    for processes, name in found:
        own = load_recipe(find_recipe(name))
        assert isinstance(own, PolicyRecipe)
        check_processes(own, int(processes))


@pytest.mark.parametrize("name", PAPERS)
def test_the_papers_recipes_run_on_one_to_sixteen_gpus_with_a_bounded_cache(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    own = load_recipe(find_recipe(name), ["rollouts.engine=transformers"])
    assert isinstance(own, PolicyRecipe)
    shape = forecast.shape(own)
    for processes in (1, 2, 4, 8, 16):
        check_processes(own, processes)
        needed = forecast.memory(own, shape, forecast.tokens(own, 1024), processes)
        assert needed["KV cache"] <= own.rollouts.cache_bytes
