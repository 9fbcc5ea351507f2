"""An exit of a user's own, from its file and its row to everything that speaks of causes."""

from __future__ import annotations

import httpx
import pytest
from after import ROW, TIME, After

from ponder.cli.meter import summary
from ponder.protocol.response import PonderReport
from ponder.server.model import ServedModel
from ponder.thought.exits import causes

from .conftest import Serve


@pytest.mark.parametrize("stream", [False, True])
def test_a_thought_is_closed_by_the_clock(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setitem(causes.CAUSES, TIME, ROW)  # type: ignore[arg-type]
    monkeypatch.setattr(ServedModel, "exits", lambda *_: [After(0.2)])
    running = serve("thinking and thinking " * 400, "The answer is 42.", delay=0.01)
    reply = running.ask(budget=2000, stream=stream)
    choice = reply[-1].choices[0] if stream else reply.choices[0]
    report = choice.ponder
    assert (report["end_cause"], report["answer_forced"]) == ("time", True)
    assert 0 < report["thinking_tokens"] < 100
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_truncations_total{arm="policy",cause="time"} 1.0' in metrics
    assert httpx.get(running.url).json()["causes"]["time"] == ROW.brief
    assert ROW.brief in summary(PonderReport(**report), choice.finish_reason)
