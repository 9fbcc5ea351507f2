"""A test finds the environment that the suite began with."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="module")
def shared() -> None:
    """Sets a variable for good, as a shared engine does."""
    os.environ["OF_A_SHARED_FIXTURE"] = "1"


def test_what_a_shared_fixture_sets_is_gone(shared: None) -> None:
    assert "OF_A_SHARED_FIXTURE" not in os.environ
    os.environ["OF_A_TEST"] = "1"


def test_what_a_test_sets_is_gone() -> None:
    assert "OF_A_TEST" not in os.environ
