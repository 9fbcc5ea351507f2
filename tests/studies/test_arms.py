"""The plan of runs is the protocol's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from ponder.training.run.recipe import find_recipe
from studies.reproduction.arms import ARMS, LEARNING_RATES, STAGES, plan, scored_runs, tuning_runs

from . import fakes

BASE = fakes.BASE
ANOTHER = replace(BASE, sha256="1" * 64)
RATES = {arm.name: 1e-4 for arm in ARMS if arm.kind == "main"}


def test_every_main_arm_gets_the_same_trials() -> None:
    trials = Counter(run.arm.name for run in tuning_runs(BASE))
    assert set(trials) == {"grpo", "hbpo", "brpo", "length-penalty", "dapo", "htpo"}
    assert set(trials.values()) == {len(LEARNING_RATES)}
    scored = {run.recipe.seed for run in scored_runs(BASE, RATES)}
    assert not scored & {run.recipe.seed for run in tuning_runs(BASE)}


def test_seeds_are_the_protocols() -> None:
    seeds = Counter(run.arm.name for run in scored_runs(BASE, RATES) if run.kind == "main")
    five, three = ("hbpo", "grpo", "length-penalty"), ("brpo", "dapo", "htpo")
    assert seeds == dict.fromkeys(five, 5) | dict.fromkeys(three, 3)
    assert all(
        run.recipe.seed in (0,) for run in scored_runs(BASE, RATES) if run.kind == "ablation"
    )


def test_arms_share_everything_but_their_method() -> None:
    """Within a stage; tasks, base and validation in all of them. Exploratory arms may differ."""
    shared = {"optimisation", "rollouts", "validation", "tasks", "base"}
    runs = [run for run in scored_runs(BASE, RATES) if run.arm.rate is None]
    assert all(arm.name.startswith("exploratory-") for arm in ARMS if arm.rate is not None)
    for stage in range(len(STAGES)):
        recipes = [run.recipe for run in runs if run.arm.stage == stage]
        assert len({r.model_dump_json(include=shared) for r in recipes}) == 1
        assert recipes[0].optimisation.updates >= 4
    everywhere = {"validation", "tasks", "base"}
    assert len({run.recipe.model_dump_json(include=everywhere) for run in runs}) == 1


def test_a_stage_is_tuned_and_run_before_the_next() -> None:
    stages = [(run.arm.stage, run.kind) for run in plan(BASE, RATES)]
    order = [key for key, _ in groupby(stages)]
    kinds = ("tuning", "main", "ablation")
    assert order == [(stage, kind) for stage in range(len(STAGES)) for kind in kinds]


def test_the_protocol_cuts_without_grace() -> None:
    runs = [*tuning_runs(BASE), *scored_runs(BASE, RATES)]
    graces = {run.recipe.method.grace for run in runs if run.recipe.method.method == "brpo"}
    assert graces == {0}


def test_a_run_is_known_by_what_it_runs() -> None:
    runs = [*tuning_runs(BASE), *scored_runs(BASE, RATES)]
    assert len({run.key for run in runs}) == len(runs)
    other = scored_runs(ANOTHER, RATES)
    assert not {run.key for run in other} & {run.key for run in runs}
    moved = replace(BASE, path=Path("elsewhere"))
    assert {run.key for run in tuning_runs(moved)} == {run.key for run in tuning_runs(BASE)}
    changed = replace(BASE, behaviour=replace(BASE.behaviour, tokens={"grpo": "1" * 64}))
    assert not {run.key for run in tuning_runs(changed)} & {run.key for run in tuning_runs(BASE)}


def test_an_arm_waits_for_its_tuning_and_an_ablation_takes_it() -> None:
    runs = scored_runs(BASE, {"hbpo": 3e-4})
    assert {run.arm.name for run in runs} == {arm.name for arm in ARMS if arm.tuned == "hbpo"}
    assert len(runs) == 17
    own = {run.arm.name: run.recipe.optimisation.learning_rate for run in runs}
    assert own.pop("exploratory-hbpo-slower") == 3e-5
    assert set(own.values()) == {3e-4}


def test_recipes_are_shipped() -> None:
    assert all(find_recipe(arm.recipe).exists() for arm in ARMS)
