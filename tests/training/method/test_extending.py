"""The component of docs/extending/method.md works as it stands there."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ponder.tasks.problems import Problem
from ponder.training.method.grpo import GrpoConfig
from ponder.training.method.stages import PLACES
from ponder.training.run.recipe import PolicyRecipe, load_recipe
from training.method.scored import after, scored
from training.policy import metrics, raw_recipe, train, write_recipe

EXTENDING = Path(__file__).parents[3] / "docs" / "extending"
EXAMPLES = Path(__file__).parents[3] / "examples" / "extending"
PAGE = (EXTENDING / "method.md").read_text()


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.delitem(sys.modules, "harder", raising=False)


def added() -> list[dict[str, Any]]:
    """What the page adds to its recipe."""
    section = PAGE.partition("```yaml\n")[2].partition("```")[0]
    added: list[dict[str, Any]] = yaml.safe_load(section)["method"]["add"]
    return added


def test_hard_prompts_count_whole() -> None:
    config = GrpoConfig(group_size=3, add=added()[1:])
    shares = [1 / 3] * 3 + [2 / 3] * 3
    seen = scored([3, 3], correct=[1, 0, 0, 1, 1, 0], group_accuracy=shares)
    plain, found = after(GrpoConfig(group_size=3), seen), after(config, seen)
    expected = [
        a * w for a, w in zip(plain["advantage"].tolist(), [1.0] * 3 + [0.1] * 3, strict=True)
    ]
    assert found["advantage"].tolist() == pytest.approx(expected)


def test_it_trains_from_a_recipe(tmp_path: Path) -> None:
    raw = raw_recipe("grpo", method={"add": added()}, validation={"every": 1, "problems": 2})
    own = load_recipe(write_recipe(tmp_path / "own.yaml", raw))
    assert isinstance(own, PolicyRecipe)
    assert [addition.name for addition in own.method.add] == ["aspo", "harder:Harder"]
    train(own, tmp_path / "out")
    assert all("advantage_length" in line for line in metrics(tmp_path / "out", "step"))


def test_ones_own_reward_on_ones_own_problems_with_ones_own_verifier(tmp_path: Path) -> None:
    problems = tmp_path / "mine.jsonl"
    lines = [
        {"prompt": f"What is {n} + 1?", "answer": f"{n + 1}", "verifier": "tolerant:close"}
        for n in range(150, 210)
    ]
    problems.write_text("".join(json.dumps(line) + "\n" for line in lines))
    raw = raw_recipe(
        "grpo",
        tasks=[f"jsonl:{problems}"],
        instruction=" Think well.",
        method={"add": [{"terse:Terse": {"words": 0, "cost": 0.125}}]},
        optimisation={"steps": 1},
        validation={"every": 1, "problems": 2},
    )
    own = load_recipe(write_recipe(tmp_path / "own.yaml", raw))
    assert isinstance(own, PolicyRecipe)
    run = train(own, tmp_path / "out")
    (step,) = metrics(tmp_path / "out", "step")
    assert step["unjudged_answers"] == 0
    assert step["accuracy"] > 0 and step["reward"] < step["accuracy"]
    asked = run.reader.prompt(Problem("a:1", "a", 0, "1 + 1?", "2"), "key").ids
    assert "1 + 1? Think well." in run.reader.text(asked)


def test_the_page_names_every_place() -> None:
    table = PAGE.partition("## Places")[2].partition("## Columns")[0]
    assert [place for place in PLACES if f"| `{place}` |" not in table] == []
