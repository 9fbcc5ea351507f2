"""Which problems and hints a run is validated on, and what it says of those that it leaves out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ponder.tasks.sources import find_tasks
from ponder.training.base import Base
from ponder.training.command import Options, run
from ponder.training.rollout.experience import Share
from ponder.training.run import validation
from ponder.training.run.checks import room_for_prompt
from ponder.training.run.recipe import RecipeError
from ponder.training.run.validation import Watched
from training.policy import TINY, metrics, raw_recipe, recipe, write_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def watched(path: Path, method: str, processes: int = 1, /, **sections: Any) -> Watched:
    """What a run of such a recipe is validated on: four prompts of 22 to 32 tokens."""
    own = recipe(path, method, **sections)
    base = Base.find(own)
    room = room_for_prompt(own, base.config["max_position_embeddings"], base.checkpoint)
    return Watched(
        own,
        find_tasks(own.tasks),
        base.reader(own),
        lambda _: [],
        hint=base.hint,
        longest_prompt=own.rollouts.longest_prompt or room,
        processes=processes,
    )


def test_overlong_prompts_are_left_out_of_every_set_and_counted(tmp_path: Path) -> None:
    assert watched(tmp_path, "grpo").notes == []
    sections = {"rollouts": {"longest_prompt": 41}, "validation": {"also": ["24"]}}
    own, also = watched(tmp_path, "grpo", tasks=["countdown"], **sections).notes
    assert own == (
        "validation: 1 of 4 problems are left out: their prompts have more than 41 tokens; raise "
        "rollouts.longest_prompt"
    )
    assert also.startswith("validation on 24: 3 of 4 problems are left out: ")
    (note,) = watched(tmp_path, "grpo", method={"longest": 4070}).notes
    assert note.startswith("validation: 1 of 4 problems are left out: their prompts have more than")
    assert note.endswith(
        f"the positions of {TINY} leave no more: lower method.longest, or the budgets"
    )


def test_every_process_keeps_a_problem(tmp_path: Path) -> None:
    left = {"rollouts": {"longest_prompt": 22}}
    assert len(watched(tmp_path, "grpo", 2, **left).notes) == 1
    with pytest.raises(RecipeError, match=r"2 of 4 problems are left out: .* raise rollouts"):
        watched(tmp_path, "grpo", 3, **left)


def test_hints_need_a_base_that_has_one(tmp_path: Path) -> None:
    hints = {"validation": {"hints": [40]}}
    for method in ("grpo", "brpo"):  # BRPO exports no hint, but its base may have one
        assert watched(tmp_path, method, **hints).notes == []
    base = tmp_path / "base"
    base.mkdir()
    for file in TINY.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    contract = json.loads((base / "ponder.json").read_text())
    (base / "ponder.json").write_text(json.dumps({**contract, "budget_hint": None}))
    with pytest.raises(RecipeError, match=r"validation\.hints: neither the base nor the method"):
        watched(tmp_path, "brpo", base=str(base), **hints)


@pytest.mark.parametrize(
    ("method", "change", "grace"),
    [("brpo", {"grace": 0}, 0), ("brpo", {}, None), ("grpo", {}, None)],
)
def test_thoughts_are_cut_as_the_method_cuts_them(
    method: str,
    change: dict[str, Any],
    grace: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int | None] = []

    def truncated(*_: Any, grace: int | None, **__: Any) -> list[Any]:
        asked.append(grace)
        return []

    monkeypatch.setattr(validation, "truncated", truncated)
    monkeypatch.setattr(validation, "plain", lambda *_: [])
    cut = {"method": change, "validation": {"budgets": [40]}}
    watched(tmp_path, method, **cut).ask(lambda *_: [], Share())
    assert asked == [grace]


@pytest.mark.parametrize(("method", "longest"), [("brpo", 160 + 8), ("grpo", 160)])
def test_natural_thoughts_have_room_for_their_answers(
    method: str, longest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def plain(*given: Any) -> list[Any]:
        asked.append(given[2])
        return []

    monkeypatch.setattr(validation, "plain", plain)
    watched(tmp_path, method).ask(lambda *_: [], Share())
    assert asked == [longest]


def test_a_run_goes_on_without_its_overlong_problem(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sections: dict[str, Any] = {
        "optimisation": {"steps": 1},
        "rollouts": {"longest_prompt": 31},
        "validation": {"every": 1, "hints": [40]},
    }
    path = write_recipe(tmp_path / "own.yaml", raw_recipe("brpo", **sections))
    assert run(Options(recipe=str(path), out=tmp_path / "out", threads=1)) == 0
    assert "note: validation: 1 of 4 problems are left out" in capsys.readouterr().err
    for line in metrics(tmp_path / "out", "validation"):
        assert {round(3 * line[name], 9) % 1 for name in ("accuracy", "hint_40/accuracy")} == {0}
