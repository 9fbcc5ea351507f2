from pathlib import Path

import pytest
import torch

from ponder.tasks.derivations import TAUGHT_GYM
from ponder.tasks.problems import Split, split_of
from ponder.tasks.sources import find_tasks
from ponder.training.coldstart.sft import SftResult
from ponder.training.method.hbpo import HbpoConfig
from ponder.training.run.export import cold_start_contract, export
from ponder.training.run.recipe import PolicyRecipe, SftRecipe, find_recipe, load_recipe
from studies.reproduction.__main__ import main
from studies.reproduction.acceptance import accept
from studies.reproduction.setting import BUDGETS, HELD_OUT, LONGEST, TASKS, problems
from training.fixtures import recipe, tokenizer, trained
from training.method.scored import after, scored

__all__ = ["recipe", "tokenizer", "trained"]

ARMS = ("reasoner-hbpo", "reasoner-grpo", "reasoner-length-penalty")


@pytest.fixture(scope="module")
def cold_start(
    tmp_path_factory: pytest.TempPathFactory, recipe: SftRecipe, trained: SftResult
) -> Path:
    directory = tmp_path_factory.mktemp("cold")
    export(directory, trained.model, trained.tokenizer, cold_start_contract(recipe))
    return directory


def test_arms_share_all_but_their_method() -> None:
    said = []
    for name in ARMS:
        arm = load_recipe(find_recipe(name))
        assert isinstance(arm, PolicyRecipe)
        assert arm.tasks == TASKS
        assert (arm.method.longest, arm.validation.longest) == (192, LONGEST)
        said.append(arm.model_dump(exclude={"name", "method"}))
    assert said[0] == said[1] == said[2]


def test_the_cold_start_is_taught_the_arms_tasks_and_hints() -> None:
    taught = load_recipe(find_recipe("reasoner-sft"))
    hbpo = load_recipe(find_recipe("reasoner-hbpo"))
    assert isinstance(taught, SftRecipe)
    assert isinstance(hbpo, PolicyRecipe)
    assert isinstance(hbpo.method, HbpoConfig)
    assert taught.traces.tasks == TASKS
    assert taught.traces.budgets == BUDGETS == hbpo.method.budgets
    assert taught.traces.cut == 0
    held_out = {task.name for task in find_tasks(HELD_OUT)}
    assert not held_out & {task.name for task in find_tasks([*TASKS, "calculator"])}
    assert len(TAUGHT_GYM) >= 6


def test_a_right_answer_is_pushed_down_for_its_hint() -> None:
    """The figures of docs/findings.md: sixteen right answers of 70 tokens, and none is skipped."""
    arm = load_recipe(find_recipe("reasoner-hbpo"))
    assert isinstance(arm, PolicyRecipe) and isinstance(arm.method, HbpoConfig)
    answers = scored(
        [16],
        correct=torch.ones(16).bool(),
        formatted=torch.ones(16).bool(),
        length=[70] * 16,
        budget=arm.method.row_budgets,
    )
    rewards_HG = after(arm.method, answers, "reward")["reward"].view(4, 4)
    assert rewards_HG[:, 0].tolist() == pytest.approx([3.12, 3.25, 2.83, 2.22], abs=0.005)
    advantage_B = after(arm.method, answers, "reward", "credit")["advantage"]
    assert advantage_B[-1].item() == pytest.approx(-1.55, abs=0.005)


def test_problems_are_of_validation_and_of_every_level() -> None:
    split: Split = "validation"
    asked = problems(2, ["tiny", "maze"])
    assert {split_of(worked.problem) for worked in asked} == {split}
    assert len({worked.problem.id for worked in asked}) == len(asked) == 2 * (5 * 7 + 6)


def test_what_does_not_end_is_not_accepted(cold_start: Path) -> None:
    found = accept(cold_start, problems(1, ["sum", "24"]), longest=24)
    assert not found.accepted
    assert found.unended == 1.0
    assert found.accuracy == found.accuracy_capped == found.accuracy_closed == 0.0
    assert {level.family for level in found.levels} == {"sum", "24"}
    assert found.shortest_tokens > 10
    said = list(found.lines())
    assert any(line.startswith("FAILS  natural mean: ") for line in said)
    assert any(line.startswith("holds  megabytes: ") for line in said)
    assert found.as_json()["accepted"] is False


def test_accept_names_the_recipe_that_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["accept", str(tmp_path)]) == 2
    assert "ponder train reasoner-sft" in capsys.readouterr().err
