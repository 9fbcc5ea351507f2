"""Stages run by place, and what cannot work is refused before it runs."""

from __future__ import annotations

from typing import ClassVar

import pytest

from ponder.training.method.batch import Batch, Context
from ponder.training.method.stages import PLACES, Component, Place, check, ordered, run
from training.method.scored import context, scored


class Note(Component):
    """Writes its place into the state."""

    at: ClassVar[Place]

    def __call__(self, batch: Batch, context: Context) -> Batch:
        context.state.setdefault("ran", []).append(self.at)
        return batch


def note(place: Place) -> Note:
    return type("NoteAt", (Note,), {"at": place, "__annotations__": {}})()


def test_stages_run_in_the_order_of_their_places() -> None:
    stages = ordered(note(place) for place in reversed(PLACES))
    seen = context()
    run(stages, PLACES, scored([1], correct=[True]), seen)
    assert seen.state["ran"] == list(PLACES)
    again = context()
    run(stages, ("credit",), scored([1], correct=[True]), again)
    assert again.state["ran"] == ["credit"]


class Needs(Note):
    at: ClassVar[Place] = "credit"
    reads: ClassVar[frozenset[str]] = frozenset({"reward", "length"})
    makes: ClassVar[frozenset[str]] = frozenset({"advantage"})


class Rewards(Note):
    at: ClassVar[Place] = "reward"
    makes: ClassVar[frozenset[str]] = frozenset({"reward"})


def test_what_is_read_has_to_be_made_before() -> None:
    columns = frozenset({"length"})
    assert check(ordered([Needs(), Rewards()]), columns, True) == {"length", "reward", "advantage"}
    with pytest.raises(ValueError, match=r"Needs \(at credit\) reads reward, .* are length"):
        check([Needs()], columns, True)
    with pytest.raises(ValueError, match="no stage makes `advantage`"):
        check([Rewards()], columns, True)
    with pytest.raises(ValueError, match="allocates rollouts, and here their number is fixed"):
        check([note("allocate"), Rewards(), Needs()], columns, False)


def test_a_component_without_a_place_has_no_stage() -> None:
    class Wraps(Component):
        """Only wraps the objective."""

    assert Wraps().stages() == ()
    with pytest.raises(NotImplementedError, match="Wraps has no stage"):
        Wraps()(scored([1], correct=[True]), context())
