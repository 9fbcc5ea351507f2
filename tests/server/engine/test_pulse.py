"""Seconds without a token, by a clock that the test turns."""

from __future__ import annotations

import pytest

from ponder.engine import pulse
from ponder.engine.pulse import Pulse


def test_silence_is_that_of_an_engine_with_work(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(pulse, "monotonic", lambda: now[0])
    heart = Pulse()
    seen = []

    def wait(seconds: float) -> None:
        now[0] += seconds
        seen.append(heart.silence())

    wait(50)  # nothing to do
    heart.begin()
    wait(5)
    heart.begin()  # another request gives no token either
    wait(5)
    heart.beat()
    wait(1)
    heart.end()
    wait(1)
    heart.end()
    wait(50)
    heart.begin()  # the silence before was no silence
    wait(3)
    assert seen == [0, 5, 10, 1, 2, 0, 3]
