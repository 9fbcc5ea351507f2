"""What a run takes of its disk, and what is said where the disk has less."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from ponder.training.run import sizes
from training.policy import recipe as small

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    ("plan", "held"),
    [
        ({"optimizer": "SGD"}, {"SGD": 0}),
        ({"optimizer": "SGD", "optimizer_options": {"momentum": 0.9}}, {"SGD": 400}),
        ({"optimizer": "torch.optim:Adam"}, {"Adam": 800}),
    ],
)
def test_an_optimizer_holds_its_averages(
    plan: dict[str, Any], held: dict[str, int], tmp_path: Path
) -> None:
    assert sizes.state_bytes(small(tmp_path, "grpo", optimisation=plan), 100) == held


def test_a_directory_is_counted_while_it_is_largest(tmp_path: Path) -> None:
    """2 steps with a checkpoint each, 2 kept: a third is never written."""
    checkpoint = 3 * 4 * 100
    for keep, held in ((1, 2), (2, 2), (5, 2)):
        own = small(tmp_path, "grpo", checkpoints={"every": 1, "keep": keep})
        assert sizes.run_bytes(own, 1000, 100) == held * checkpoint + 3 * 2 * 1000
    rare = small(tmp_path, "grpo", checkpoints={"every": 9})
    assert sizes.run_bytes(rare, 1000, 100) == checkpoint + 3 * 2 * 1000


def test_a_disk_without_room_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, out = small(tmp_path, "grpo"), tmp_path / "new" / "out"
    needed, asked = sizes.run_bytes(own, 1000, 100), []

    def usage(place: Path) -> Usage:
        asked.append(place)
        return Usage(0, 0, needed - 1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    said = sizes.shortage(own, 1000, 100, out)
    assert said is not None and "lower checkpoints.keep" in said and str(out) in said
    out.mkdir(parents=True)
    (out / "weights").write_bytes(b"w")  # of an earlier part of the run
    assert sizes.shortage(own, 1000, 100, out) is None
    assert asked == [tmp_path, out]
