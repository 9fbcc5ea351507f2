"""A record's fingerprint follows what the code does, not how it is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from ponder.evaluation import plots
from ponder.training.algorithms import hbpo
from ponder.training.algorithms.kernel import Objective
from ponder.training.algorithms.outcomes import Advantages
from ponder.training.methods import METHODS, Method
from studies.reproduction import behaviour
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


def scaled(value: Any) -> Any:
    """A reward, advantages or an objective, made 2 % larger."""
    if isinstance(value, Tensor):
        return value * 1.02
    if isinstance(value, Objective):
        return replace(value, per_token_BT=value.per_token_BT * 1.02)
    assert isinstance(value, Advantages)
    return replace(value, segments_BS=value.segments_BS * 1.02)


@pytest.mark.parametrize("part", ["reward", "advantage", "objective"])
@pytest.mark.parametrize("method", METHODS)
def test_a_changed_formula_shows(
    method: str, part: str, now: Steps, again: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, spec = now(method), METHODS[method]
    formula = getattr(spec, part)
    changed = replace(spec, **{part: lambda *given: scaled(formula(*given))})
    monkeypatch.setitem(METHODS, method, changed)
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
    spec = spec_from_file_location(f"{hbpo.__package__}.rewritten", tmp_path / "rewritten.py")
    assert spec and spec.loader
    rewritten = module_from_spec(spec)
    spec.loader.exec_module(rewritten)
    method: Method[Any, Any] = replace(
        METHODS["hbpo"], reward=rewritten.reward, advantage=rewritten.advantage
    )
    monkeypatch.setitem(METHODS, "hbpo", method)
    assert again("hbpo") == before


def test_every_method_has_a_fingerprint() -> None:
    assert set(behaviour.METHODS) == set(METHODS)


def test_machines_may_round_differently() -> None:
    made = Behaviour({"a": "x"}, {"a": [1.0, -20.0]})
    assert made.alike(Behaviour({"a": "x"}, {"a": [1.00001, -20.001]}))
    assert not made.alike(Behaviour({"a": "x"}, {"a": [1.01, -20.0]}))
    assert not made.alike(Behaviour({"a": "y"}, {"a": [1.0, -20.0]}))


def test_protocol_3_knew_code_by_its_files() -> None:
    made = Behaviour.recorded({"code_sha256": "c0de" * 16})
    assert made.label == "c0dec0de"
    assert made.alike(Behaviour.recorded({"code_sha256": "c0de" * 16}))
    assert not made.alike(Behaviour.recorded({"code_sha256": "beef" * 16}))
    now = Behaviour({"a": "x"}, {"a": [1.0]})
    assert not made.alike(now) and not now.alike(made)
