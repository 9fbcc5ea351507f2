"""Variances that are put in are found, and a larger plan finds smaller differences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from studies.reproduction.__main__ import main
from studies.reproduction.arms import PROTOCOL_VERSION
from studies.reproduction.power import Spread, spread

from . import fakes


def test_the_variances_that_were_put_in_are_found() -> None:
    rng = np.random.default_rng(0)
    seeds, problems = 400, 600
    made_SP = (
        rng.normal(0, 0.02, (seeds, 1))
        + rng.normal(0, 0.2, (1, problems))
        + rng.normal(0, 0.1, (seeds, problems))
    )
    found = spread(made_SP)
    assert found.seed == pytest.approx(0.02**2, rel=0.2)
    assert found.problem == pytest.approx(0.2**2, rel=0.2)
    assert found.rest == pytest.approx(0.1**2, rel=0.02)


def test_what_varies_by_problems_alone_is_not_told_by_more_seeds() -> None:
    found = Spread(0.0, 0.04, 0.0)
    assert found.detected(3, 300) == found.detected(5, 300)
    assert found.detected(3, 1200) == pytest.approx(found.detected(3, 300) / 2)


def test_the_command_reads_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    others = [{**fakes.scored()[0], "key": "earlier", "protocol": PROTOCOL_VERSION - 1}]
    fakes.write(tmp_path / "earlier", others)
    assert main(["power", "--results", str(tmp_path / "earlier")]) == 0
    assert not capsys.readouterr().out
    fakes.write(tmp_path / "results", [*fakes.scored()])
    command = ["power", "--results", str(tmp_path / "results"), "--seeds", "3", "9"]
    assert main(command) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == [
        "hbpo less grpo",
        "hbpo less length-penalty",
        "brpo less grpo",
    ]
    assert "with 3" in said[0] and "with 9 seeds" in said[0]
