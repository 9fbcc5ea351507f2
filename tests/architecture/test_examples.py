"""The example in the docstring of every public seam runs."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from ponder.training.method.components import COMPONENTS

SEAMS = (
    "ponder.checkpoint.checkpoint",
    "ponder.engine.protocol",
    "ponder.protocol.dialect",
    "ponder.server.observers.protocol",
    "ponder.thought.exits.deadline",
    "ponder.thought.exits.exit",
    "ponder.thought.pace",
    "ponder.thought.thought",
    "ponder.training.method.stages",
    *(component.__module__ for component in COMPONENTS.values()),
)


@pytest.mark.parametrize("seam", SEAMS)
def test_its_example_runs(seam: str) -> None:
    tried = doctest.testmod(import_module(seam))
    assert tried.attempted > 0
    assert tried.failed == 0
