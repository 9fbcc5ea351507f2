"""The benchmark of early ends on a real engine and a real server, with few problems."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench.anytime import __main__ as command
from bench.anytime import wall
from bench.anytime.rows import Row

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]


def test_it_measures_every_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wall, "PROBLEMS", {1: 1, 16: 2})
    monkeypatch.setattr(wall, "ROUNDS", 1)
    out = tmp_path / "anytime.json"
    options = ["--n", "8", "--seeds", "1", "--tasks", "sum", "--caps", "64", "128"]
    files = ["--rows", str(tmp_path), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["anytime", *options, *files])
    assert command.main() == 0
    (model,) = json.loads(out.read_text())["models"]
    methods = [one["method"] for one in model["findings"]]
    assert methods[:2] == ["auto", "predictor"]
    assert {"agreement", "entropy", "deadline"} <= set(methods)
    _, *lines = (tmp_path / "tiny.jsonl").read_text().splitlines()
    rows = [Row(*json.loads(line)) for line in lines]
    early = [row for row in rows if row.arm.startswith("agreement")]
    assert sum(row.probe for row in early) > 0
    for row in rows:
        assert row.tokens >= row.thinking + row.answer + row.probe
    # A rule that watches leaves a thought as it would have been, but for the engine's rounding.
    free = {row.problem: row.thinking for row in rows if row.arm == "cap free"}
    natural = [row.thinking == free[row.problem] for row in early if row.end_cause == "natural"]
    assert natural.count(True) >= 0.8 * len(natural)
