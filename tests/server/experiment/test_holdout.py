"""The draw: stable, keyed, of the share that was asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.experiment.holdout import Holdout

NAMES = [f"conversation {index}" for index in range(20_000)]


@given(st.text(), st.binary(min_size=1), st.floats(0, 1))
def test_a_conversation_keeps_its_arm(name: str, key: bytes, share: float) -> None:
    assert Holdout(share, key).assign(name) == Holdout(share, bytes(key)).assign(name)


def test_the_draw_is_this_one_on_every_replica() -> None:
    """Written down: an upgrade that draws otherwise would mix the arms of a running experiment."""
    assert Holdout(0.5, b"key").assign("one").conversation == "74ecef7099c639df5859e0c1bedb40d0"


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 1.0])
def test_the_share_is_kept(share: float) -> None:
    holdout = Holdout(share, b"key")
    drawn = sum(holdout.assign(name).arm == "holdout" for name in NAMES)
    deviation = (share * (1 - share) / len(NAMES)) ** 0.5
    assert abs(drawn / len(NAMES) - share) <= 4 * deviation


@given(st.text(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_holds_out_the_same_and_more(name: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    if Holdout(small, b"key").assign(name).arm == "holdout":
        assert Holdout(large, b"key").assign(name).arm == "holdout"


def test_another_key_draws_others_under_other_pseudonyms() -> None:
    one, other = Holdout(0.5, b"one"), Holdout(0.5, b"other")
    same = sum(one.assign(name).arm == other.assign(name).arm for name in NAMES)
    assert 0.47 < same / len(NAMES) < 0.53
    assert not {one.assign(n).conversation for n in NAMES} & {
        other.assign(n).conversation for n in NAMES
    }


def test_the_pseudonym_says_nothing_of_the_arm() -> None:
    """Or whoever reads the state file could tell how a share was drawn from it."""
    drawn = [Holdout(0.05, b"key").assign(name) for name in NAMES]
    firsts = [int(a.conversation[:8], 16) / 2**32 for a in drawn if a.arm == "holdout"]
    assert 0.45 < sum(firsts) / len(firsts) < 0.55
