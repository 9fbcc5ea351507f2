"""A record's fingerprint follows what the code does, not how it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from ponder.evaluation import plots
from ponder.training.method import hbpo
from ponder.training.method.batch import Batch, Context
from ponder.training.method.kernel import LossInputs, Objective, PerToken
from ponder.training.method.presets import PRESETS
from ponder.training.method.settings import Preset
from ponder.training.method.stages import Stage
from studies.reproduction import behaviour
from studies.reproduction.arms import ARMS
from studies.reproduction.behaviour import Behaviour

Steps = Callable[[str], Behaviour]


@pytest.fixture(scope="module", autouse=True)
def no_curves() -> Iterator[None]:
    """Drawing takes twice as long as training here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot_training", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("behaviour") / "base"
    behaviour.write_model(directory)
    return directory


@pytest.fixture(scope="module")
def now(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Steps:
    """What a method does as it stands, made once."""
    return cache(lambda method: two_steps(method, base, tmp_path_factory.mktemp("now")))


@pytest.fixture
def again(base: Path, tmp_path: Path) -> Steps:
    """What a method does now."""
    return lambda method: two_steps(method, base, tmp_path)


def two_steps(method: str, base: Path, out: Path) -> Behaviour:
    tokens, numbers = behaviour.two_steps(method, base, out / "out")
    return Behaviour({method: tokens}, {method: numbers})


class ScaledStage:
    """A stage that makes a column 2 % larger."""

    def __init__(self, inner: Stage, column: str) -> None:
        self.inner, self.column = inner, column
        self.at, self.reads, self.makes = inner.at, inner.reads, inner.makes

    def __call__(self, batch: Batch, context: Context) -> Batch:
        made = self.inner(batch, context)
        return made.with_columns(**{self.column: made[self.column] * 1.02})


class ScaledObjective:
    """An objective that is 2 % larger."""

    def __init__(self, inner: Objective) -> None:
        self.inner, self.reads = inner, inner.reads

    def __call__(self, rows: LossInputs) -> PerToken:
        made = self.inner(rows)
        return replace(made, per_token_BT=made.per_token_BT * 1.02)


def scaled(preset: Preset, part: str) -> Preset:
    if part == "objective":
        return replace(preset, objective=lambda config: ScaledObjective(preset.objective(config)))

    def stage(make: Callable[[Any], Stage], config: Any) -> Stage:
        made = make(config)
        return ScaledStage(made, part) if part in made.makes else made

    return replace(preset, stages=tuple(partial(stage, make) for make in preset.stages))


@pytest.mark.parametrize("part", ["reward", "advantage", "objective"])
@pytest.mark.parametrize("method", behaviour.METHODS)
def test_a_changed_formula_shows(
    method: str, part: str, now: Steps, again: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = now(method)
    monkeypatch.setitem(PRESETS, method, scaled(PRESETS[method], part))
    assert not again(method).alike(before)


def test_a_comment_or_another_name_does_not_show(
    now: Steps, again: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = now("hbpo")
    source = Path(hbpo.__file__).read_text()
    text = '"""Another docstring."""\n# A comment.\n' + source.partition('"""\n\n')[2]
    text = text.replace("above_budget", "beyond").replace("earned_B", "worth_B")
    assert "beyond" in text
    (tmp_path / "rewritten.py").write_text(text)
    name = f"{hbpo.__package__}.rewritten"
    spec = spec_from_file_location(name, tmp_path / "rewritten.py")
    assert spec and spec.loader
    rewritten = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, rewritten)
    spec.loader.exec_module(rewritten)
    stages = (rewritten.BudgetReward, rewritten.WithinAndAcross)
    monkeypatch.setitem(PRESETS, "hbpo", replace(PRESETS["hbpo"], stages=stages))
    assert again("hbpo") == before


def test_every_method_of_the_study_has_a_fingerprint() -> None:
    assert {arm.tuned for arm in ARMS} == set(behaviour.METHODS) <= set(PRESETS)


def test_machines_may_round_differently() -> None:
    made = Behaviour({"a": "x"}, {"a": [1.0, -20.0]})
    assert made.alike(Behaviour({"a": "x"}, {"a": [1.00001, -20.001]}))
    assert not made.alike(Behaviour({"a": "x"}, {"a": [1.01, -20.0]}))
    assert not made.alike(Behaviour({"a": "y"}, {"a": [1.0, -20.0]}))
