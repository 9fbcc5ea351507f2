"""The sides of `make bench-train` that need nothing beside Ponder still measure what they say."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from bench.scenario import BUNDLED
from bench.training.sides import SIDES
from ponder.training.rollout import plans

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("side", "above", "below"),
    [
        ("ours", "processes_agree", None),
        ("packing", "separate_tokens", "packed_tokens"),
        ("sampling", "ours", None),
    ],
)
def test_a_side_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str, above: str, below: str | None
) -> None:
    monkeypatch.setattr(plans, "_read", plans._read)  # `ours` replaces it
    asked = {"model": BUNDLED, "folder": tmp_path, "prompts": 2, "longest": 16, "steps": 2}
    figures = SIDES[side](argparse.Namespace(**asked))
    assert figures[above] > (figures[below] if below else 0)
