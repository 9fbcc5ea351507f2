"""Recipes that follow from a look at the base: `ponder train METHOD --base … --tasks …`."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ponder.tasks.sources import find_tasks
from ponder.training.base import Base
from ponder.training.command import ADVISED, run
from ponder.training.command import Options as Command
from ponder.training.method.presets import PRESETS
from ponder.training.run import advised
from ponder.training.run.checks import room_for_prompt
from ponder.training.run.directory import record
from ponder.training.run.look import Look, Seen
from ponder.training.run.recipe import PolicyRecipe, load_recipe, recipe_from
from training.policy import TINY, metrics

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def problems(tmp_path: Path) -> str:
    lines = [{"prompt": f"What is {n} + 2?", "answer": f"{n + 2}"} for n in range(30, 90)]
    path = tmp_path / "my.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"jsonl:{path}"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponder.training.run.look.LONGEST", 200)


def seen(**change: Any) -> Look:
    """What a base of middling skill shows: 200 to 575 tokens, 40 of them the answer."""
    natural = tuple(Seen(200 + 25 * n, 160 + 25 * n, True, n % 3 > 0) for n in range(16))
    told = tuple(replace(it, thinking=it.thinking - 10) for it in natural)
    look = Look(10**9, 4000, 60, 4000, natural, {64: told, 320: told}, ("1 + 1?", "2", "2."))
    return replace(look, **change)


@pytest.mark.parametrize("method", PRESETS)
def test_every_method_gets_a_recipe_that_holds(
    method: str, problems: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advised, "look", lambda *_: seen())
    raw, look, warnings = advised.advised(method, str(TINY), [problems], 0, ["seed=4"])
    text = advised.as_yaml(raw, list(advised.told(look)), ["mind the gap"])
    assert text.startswith(f"# {method} on {TINY}") and "# warning: mind the gap" in text
    own = recipe_from(raw, "own")
    assert isinstance(own, PolicyRecipe)
    mean, settings = look.mean, own.method
    if method == "brpo":
        assert settings.longest == round(look.thinking)
        assert settings.branch_tokens >= 2 * 40
    elif method in ("dapo", "htpo"):
        assert settings.longest == look.length(0.95) > mean
    else:
        assert 0.75 * mean <= settings.longest < mean
        assert look.beyond(settings.longest) <= 0.6
    assert own.seed == 4
    assert own.validation.longest is not None and own.validation.longest >= settings.longest
    assert own.validation.problems <= 60
    assert not [line for line in warnings if "learnt by heart" not in line]


@pytest.mark.parametrize(
    ("change", "method", "said"),
    [
        ({"natural": (Seen(4000, 4000, False, False),) * 4}, "hbpo", "no thought ended"),
        ({"natural": (Seen(90, 60, True, False),) * 4}, "hbpo", "0% of the answers are right.*'2'"),
        ({"natural": (Seen(90, 60, True, True),) * 4}, "grpo", "next to nothing to learn"),
        ({"natural": (Seen(9, 6, True, True),) * 4}, "hbpo", "little to shorten"),
        (
            {"natural": (*[Seen(4000, 4000, False, False)] * 2, *[Seen(90, 60, True, True)] * 2)},
            "grpo",
            "50% of the responses did not end",
        ),
        (
            {"hinted": {9: (Seen(30, 20, True, True),), 99: (Seen(99, 90, True, True),)}},
            "hbpo",
            "flat",
        ),
        (
            {"hinted": {9: (Seen(30, 20, True, True),), 99: (Seen(30, 21, True, True),)}},
            "hbpo",
            "without one",
        ),
    ],
)
def test_where_a_setting_cannot_work_it_is_said(
    change: dict[str, Any], method: str, said: str, problems: str
) -> None:
    look = seen(**change)
    longest = round(0.75 * look.mean)
    warned = list(advised._warnings(method, longest, look, find_tasks(["tiny"])))
    assert len([line for line in warned if re.search(said, line)]) == 1, warned
    assert not list(advised._warnings(method, 400, seen(), find_tasks(["tiny"])))


def test_a_cap_of_ones_own_is_warned_of(problems: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advised, "look", lambda *_: seen())
    for change, warned in (("seed=4", 0), ("method.longest=210", 1)):
        _, _, warnings = advised.advised("grpo", str(TINY), [problems], 0, [change])
        assert sum("few are rewarded; raise it" in line for line in warnings) == warned


@pytest.mark.parametrize("method", ["hbpo", "dapo"])
def test_a_validation_leaves_room_for_hint_and_longer_prompts(
    method: str, problems: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(advised, "look", lambda *_: seen(prompt=60, room=500))
    raw, _, _ = advised.advised(method, str(TINY), [problems], 0, [])
    own = recipe_from(raw, "own")
    assert isinstance(own, PolicyRecipe)
    left = room_for_prompt(own, 560, Base.find(own).checkpoint)
    assert left is not None and 119 <= left <= 121


def test_a_run_without_a_recipe_writes_the_one_that_it_ran(
    problems: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    changes = ["optimisation.steps=1", "optimisation.updates=1", "rollouts.prompts=1"]
    changes += ["validation.problems=2", "instruction=' Think.'"]
    given: dict[str, Any] = {"base": str(TINY), "tasks": [problems], "threads": 1}
    given |= {"recipe": "hbpo", "out": out, "set": changes}
    assert run(Command(**given)) == 0
    said = capsys.readouterr().err
    assert "looking at" in said and "% right" in said and "learnt by heart" in said
    own = load_recipe(out / ADVISED)
    assert isinstance(own, PolicyRecipe)
    assert json.loads((out / "recipe.json").read_text()) == own.model_dump(mode="json")
    assert (own.instruction, own.optimisation.steps) == (" Think.", 1)
    assert len(metrics(out, "step")) == 1
    (out / ADVISED).write_text("name: changed by hand\n")
    assert run(Command(**given, resume=True)) == 0  # its last checkpoint, without another look
    assert "looking at" not in capsys.readouterr().err
    assert run(Command(**{**given, "set": []}, resume=True)) == 0


@pytest.fixture
def begun(problems: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A command, whose run has a checkpoint; nothing is sampled from here on."""
    given = {"recipe": "grpo", "base": str(TINY), "tasks": [problems], "out": tmp_path / "out"}
    monkeypatch.setattr(advised, "look", lambda *_: seen())
    raw, _, _ = advised.advised("grpo", str(TINY), [problems], 3, [])
    record(recipe_from(raw, "own"), tmp_path / "out")
    (tmp_path / "out" / "checkpoints" / "checkpoint-4").mkdir(parents=True)
    monkeypatch.setattr(advised, "look", None)
    return given


@pytest.mark.parametrize("changed", [{}, {"seed": 9}, {"set": ["optimisation.steps=400"]}])
def test_a_refused_command_leaves_what_it_would_overwrite(
    changed: dict[str, Any], begun: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = begun["out"] / ADVISED
    recipe.write_text("of the run")
    assert run(Command(**begun, **changed)) == 2
    assert "pass --resume to continue it, or another --out" in capsys.readouterr().err
    assert recipe.read_text() == "of the run"


def test_a_resumed_run_has_no_recipe_to_write(
    begun: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "own.yaml"
    assert run(Command(**begun, resume=True, write=written)) == 2
    assert "leave one of them out" in capsys.readouterr().err
    assert not written.exists()


def test_a_recipe_is_written_beside_its_plan(
    begun: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(advised, "look", lambda *_: seen())
    written = tmp_path / "own.yaml"
    assert run(Command(**begun, dry_run=True, write=written)) == 0
    assert isinstance(load_recipe(written), PolicyRecipe)
    assert "memory" in capsys.readouterr().out


def test_a_recipe_overwrites_none_under_a_name_that_was_set(
    begun: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run's directory is only known when its recipe is."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(advised, "look", lambda *_: seen())
    assert run(Command(**{**begun, "out": None}, set=["name=out"])) == 2
    assert "pass --resume to continue it, or another --out" in capsys.readouterr().err
    assert not (tmp_path / "out" / ADVISED).exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"set": ["optimisation.steps=400"]}, r"another recipe \(optimisation differ\): resume it"),
        ({"seed": 9}, r"another recipe \(seed differ\): .*recipe\.json, or choose another --out"),
        ({"tasks": ["tiny"]}, r"another recipe \(tasks differ\)"),
        ({"recipe": "hbpo"}, "with grpo and not hbpo: .* or choose another --out"),
        ({"set": ["optimisation.stps=4"]}, "did you mean optimisation.steps"),
    ],
)
def test_a_resume_that_asks_for_another_recipe_is_refused(
    changed: dict[str, Any], said: str, begun: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Command(**{**begun, **changed}, resume=True)) == 2
    assert re.search(said, error := capsys.readouterr().err), error


def test_what_a_method_needs_is_said(problems: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(Command(recipe="hbpo", base=str(TINY))) == 2
    assert "--base MODEL --tasks jsonl:my.jsonl" in capsys.readouterr().err
    given: dict[str, Any] = {"recipe": "hbpo", "base": str(TINY), "tasks": [problems]}
    assert run(Command(**given, set=["instructions=x"])) == 2
    assert "did you mean instruction" in capsys.readouterr().err
