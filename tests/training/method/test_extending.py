"""The component of docs/extending/method.md works as it stands there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

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


def test_the_page_names_every_place() -> None:
    table = PAGE.partition("## Places")[2].partition("## Columns")[0]
    assert [place for place in PLACES if f"| `{place}` |" not in table] == []
