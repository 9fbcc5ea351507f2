"""The operator's judge: its scores count by arm, and its faults are its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import pytest

from ponder.server import verifier
from ponder.server.verifier import Verifier, VerifierError
from waiting import wait_until

from .conftest import Running, Serve
from .test_savings import savings, series

JUDGES = """
import os, time

def knows(messages, answer):
    print("a verifier may print")
    return float("42" in answer and messages[-1] == {"role": "user", "content": "What is 40 + 2?"})

def abstains(messages, answer): return None
def raises(messages, answer): raise ValueError("a private answer")
def exaggerates(messages, answer): return 2.0
def hangs(messages, answer): time.sleep(0 if "fast" in messages[0]["content"] else 60); return 1.0
def dies(messages, answer): os._exit(3)
"""


@pytest.fixture(autouse=True)
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    monkeypatch.chdir(tmp_path)


def failures(running: Running) -> dict[str, float]:
    return series(running, "ponder_verifier_failures_total")


def test_scores_are_counted_whole_and_streamed(serve: Serve) -> None:
    running = serve(verifier="judges:knows")
    running.ask(n=2)
    running.ask(stream=True)
    running.ask("What else?")

    def judged() -> dict[str, float]:
        found: dict[str, float] = savings(running)["quality"]["verifier"]["policy"]
        return found

    wait_until(lambda: judged()["count"] == 4)
    assert series(running, "ponder_holdout_quality_sum")['arm="policy",signal="verifier"'] == 3
    assert failures(running) == {}


@pytest.mark.parametrize(
    ("judge", "reason"), [("raises", "error"), ("exaggerates", "invalid"), ("dies", "error")]
)
def test_a_failing_verifier_is_counted_and_the_answer_stands(
    serve: Serve, judge: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(verifier=f"judges:{judge}")
    for _ in range(2):
        assert running.ask().choices[0].message.content == "The answer is 42."
    wait_until(lambda: failures(running) == {f'reason="{reason}"': 2})
    assert savings(running)["quality"]["verifier"]["policy"]["count"] == 0
    assert "private" not in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_signals_does_not_end_it(serve: Serve, number: signal.Signals) -> None:
    running = serve(verifier="judges:knows")
    verifier = running.service._verifier
    assert verifier is not None
    assert verifier._process.pid is not None
    os.kill(verifier._process.pid, number)
    running.ask()
    wait_until(lambda: savings(running)["quality"]["verifier"]["policy"]["count"] == 1)
    assert failures(running) == {}


def test_no_opinion_is_no_score_and_no_failure(serve: Serve) -> None:
    running = serve(verifier="judges:abstains")
    running.ask()
    wait_until(lambda: not running.service._judged)
    assert savings(running)["quality"]["verifier"]["policy"]["count"] == 0
    assert failures(running) == {}


def test_one_that_hangs_is_ended_and_started_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "JUDGE_SECONDS", 2.0)
    running = serve(verifier="judges:hangs")
    began = time.monotonic()
    running.ask()
    assert time.monotonic() - began < 2.0  # the answer does not wait for its judge
    running.ask("fast")
    wait_until(lambda: failures(running) == {'reason="timeout"': 1})
    wait_until(lambda: savings(running)["quality"]["verifier"]["policy"]["count"] == 1)


def test_too_many_waiting_are_not_judged(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifier, "MAX_WAITING", 1)
    running = serve(verifier="judges:hangs")
    running.ask(n=3)
    wait_until(lambda: failures(running) == {'reason="busy"': 2})
    answer = httpx.get(f"{running.url}/readyz")
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["judges", "judges:nobody", "no_such_module:f", "judges.knows"])
def test_one_that_cannot_be_loaded_is_said_at_the_start(path: str) -> None:
    with pytest.raises(VerifierError, match="--verifier"):
        Verifier(path)
