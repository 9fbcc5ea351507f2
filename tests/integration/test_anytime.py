"""The benchmark of early ends on a real engine and a real server, with few problems."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.anytime.rows import Row

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SMALL = ["--n", "8", "--seeds", "1", "--tasks", "sum", "--caps", "64", "128", "--rounds", "1"]


def test_it_measures_every_rule(tmp_path: Path) -> None:
    out = tmp_path / "anytime.json"
    files = ["--rows", str(tmp_path), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.anytime", *SMALL, *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (model,) = json.loads(out.read_text())["models"]
    methods = [one["method"] for one in model["findings"]]
    assert methods == [
        "auto", "predictor", "agreement", "entropy", "deadline", "self_consistency", "particles"
    ]  # fmt: skip
    assert model["wall"]["ratios"]["cap free"]["1"]["median"] > 0
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
