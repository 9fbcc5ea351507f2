import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ponder.evaluation.evaluate import MODES
from ponder.evaluation.plots import (
    accuracy_by_tokens,
    anytime_curve,
    length_by_difficulty,
    plot_evaluation,
    plot_training,
)

from .measured import Oracle, measure

PNG = b"\x89PNG"


def test_curves_hold_what_was_measured() -> None:
    samples = measure(Oracle())
    by_tokens = {curve.label: curve for curve in accuracy_by_tokens(samples)}
    assert set(by_tokens) == set(MODES)
    assert list(by_tokens["hinted"].x) == [44.0, 48.0]
    assert list(by_tokens["truncated"].names) == ["0", "20", "40", "free"]
    (curve,) = anytime_curve(samples)
    assert list(curve.x) == [0, 20, 40]
    assert [y.mean for y in curve.y] == pytest.approx([0, 2 / 7, 4 / 7])
    lengths = {curve.label: curve for curve in length_by_difficulty(samples)}
    assert list(lengths) == ["natural", "efficient", "hint 40", "hint 80"]
    assert [y.mean for y in lengths["natural"].y] == [10.0 * level for level in range(1, 8)]


def test_what_failed_at_one_difficulty_is_left_out_of_the_curves() -> None:
    lost = {"correct": False, "thinking_tokens": None, "end_cause": "error"}
    samples = [
        replace(s, **lost) if s.problem.difficulty == 7 else s
        for s in measure(Oracle(), ["natural"])
    ]
    (curve,) = length_by_difficulty(samples)
    assert (list(curve.x), [y.mean for y in curve.y]) == ([*range(1, 7)], [*range(10, 70, 10)])
    (curve,) = accuracy_by_tokens(samples)
    assert len(curve.x) == 1


def test_every_figure_comes_as_png_and_svg_and_always_the_same(tmp_path: Path) -> None:
    samples = measure(Oracle())
    files = plot_evaluation(samples, tmp_path / "one")
    again = plot_evaluation(samples, tmp_path / "two")
    assert [file.name for file in files] == [
        f"{stem}.{kind}"
        for stem in ("accuracy-tokens", "anytime", "length-difficulty")
        for kind in ("png", "svg")
    ]
    for first, second in zip(files, again, strict=True):
        assert first.read_bytes() == second.read_bytes()
        if first.suffix == ".png":
            assert first.read_bytes().startswith(PNG)
        else:
            assert ElementTree.parse(first).getroot().tag.endswith("svg")


def test_what_was_not_measured_is_not_drawn(tmp_path: Path) -> None:
    unreported = measure(Oracle(reports_tokens=False), ["natural"])
    assert plot_evaluation(unreported, tmp_path) == []
    natural = measure(Oracle(), ["natural"])
    names = {file.stem for file in plot_evaluation(natural, tmp_path)}
    assert names == {"accuracy-tokens", "length-difficulty"}


def test_training_curves_over_steps(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    entries: list[dict[str, object]] = [
        {"kind": "validation", "step": 0, "accuracy": 0.7, "jsonl:a\u2028b/accuracy": 0.5},
        {"kind": "step", "step": 1, "reward": 0.5, "accuracy": 0.6, "loss": 1.0},
        {"kind": "step", "step": 2, "reward": 0.7, "accuracy": 0.8, "loss": 2.0},
    ]
    lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries]
    metrics.write_text("".join([*lines, '{"kind": "st']), encoding="utf-8")  # a kill's half line
    png, svg = plot_training(metrics, tmp_path / "curves-1.5b")
    assert (png.name, svg.name) == ("curves-1.5b.png", "curves-1.5b.svg")
    assert png.read_bytes().startswith(PNG)
    root = ElementTree.parse(svg).getroot()
    assert len([g for g in root.iter() if g.get("id", "").startswith("axes_")]) == 2


def test_metrics_without_a_curve_are_said(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"kind": "step", "step": 1, "loss": 0.5}\n')
    with pytest.raises(ValueError, match="none of reward"):
        plot_training(metrics, tmp_path / "x")
