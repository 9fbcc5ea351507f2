"""The operator's judge: its scores count by arm, and its faults are its own."""

from __future__ import annotations

import asyncio
import multiprocessing.connection
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest

from ponder.cage import landlock
from ponder.errors import VerifierError
from ponder.server.observers import verifier
from ponder.server.observers.judging import Judging
from ponder.server.observers.verifier import Verifier
from waiting import wait_until

from .conftest import Running, Serve
from .test_savings import savings, series

JUDGES = """
import os, time
from fractions import Fraction

def knows(messages, answer):
    print("a verifier may print")
    return float("42" in answer and messages[-1] == {"role": "user", "content": "What is 40 + 2?"})

def abstains(messages, answer): return None
def raises(messages, answer): raise ValueError("a private answer")
def exaggerates(messages, answer): return 2.0
def hangs(messages, answer): time.sleep(0 if "fast" in messages[0]["content"] else 60); return 1.0
def dies(messages, answer): os._exit(3)
def agrees(messages, answer): return True
def divides(messages, answer): return Fraction(1, 4)
def answers(messages, answer): return lambda: 1.0
def speaks(messages, answer): return "0.5"
def is_nan(messages, answer): return float("nan")

def spies(messages, answer):
    secrets = ("PONDER_API_KEY", "PONDER_HOLDOUT_KEY", "A_SECRET")
    seen = [name for name in secrets if name in os.environ]
    return float(seen == [] and os.environ.get("NAMED") == "for the verifier")

def peeks(messages, answer):
    for name in ("environ", "mem"):
        try:
            open(f"/proc/{os.getppid()}/{name}", "rb").close()
        except PermissionError:
            continue
        return 1.0
    return 0.0

def remembers(messages, answer, seen=[]):
    seen.append(answer)
    if len(seen) == 2:
        bytearray(2**40)
    return 1.0 if len(seen) == 1 else 0.0
"""


@pytest.fixture(autouse=True)
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "judges.py").write_text(JUDGES)
    monkeypatch.chdir(tmp_path)


def failures(running: Running) -> dict[str, float]:
    """Those that happened; a server begins with zeros for all reasons."""
    counted = series(running, "ponder_verifier_failures_total")
    assert counted.keys() == {f'reason="{reason}"' for reason in verifier.REASONS}
    return {reason: count for reason, count in counted.items() if count}


def test_scores_are_counted_whole_and_streamed(serve: Serve) -> None:
    running = serve(verifier="judges:knows")
    running.ask(n=2)
    running.ask(stream=True)
    running.ask("What else?")

    def judged() -> dict[str, float]:
        found: dict[str, float] = savings(running)["quality"]["verifier"]["policy"]
        return found

    wait_until(lambda: judged()["count"] == 4)
    label = 'arm="policy",signal="verifier"'
    assert series(running, "ponder_holdout_quality_sum")[label] == 3
    # The two answers of the first request belong together.
    assert series(running, "ponder_holdout_quality_conversations")[label] == 3
    assert series(running, "ponder_holdout_quality_count_squares")[label] == 2**2 + 1 + 1
    assert failures(running) == {}


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        ("raises", "error"),
        ("exaggerates", "invalid"),
        ("answers", "invalid"),
        ("speaks", "invalid"),
        ("is_nan", "invalid"),
        ("dies", "error"),
    ],
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
    process = running.observer(Judging)._verifier._child._process
    assert process.pid is not None
    os.kill(process.pid, number)
    running.ask()
    wait_until(lambda: savings(running)["quality"]["verifier"]["policy"]["count"] == 1)
    assert failures(running) == {}


def test_no_opinion_is_no_score_and_no_failure(serve: Serve) -> None:
    running = serve(verifier="judges:abstains")
    running.ask()
    wait_until(lambda: not running.observer(Judging)._tasks)
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


@pytest.mark.parametrize(("judge", "score"), [("agrees", 1.0), ("divides", 0.25)])
def test_what_is_like_a_number_is_a_score(serve: Serve, judge: str, score: float) -> None:
    running = serve(verifier=f"judges:{judge}")
    running.ask()
    wait_until(lambda: not running.observer(Judging)._tasks)
    label = 'arm="policy",signal="verifier"'
    assert series(running, "ponder_holdout_quality_count")[label] == 1
    assert series(running, "ponder_holdout_quality_sum")[label] == score


def test_it_gets_the_variables_that_are_named_and_no_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PONDER_API_KEY", "PONDER_HOLDOUT_KEY", "A_SECRET"):
        monkeypatch.setenv(name, "a secret of the server")
    monkeypatch.setenv("NAMED", "for the verifier")
    running = serve(verifier="judges:spies", verifier_env=["NAMED"], api_key=[])
    running.ask()
    wait_until(lambda: not running.observer(Judging)._tasks)
    assert series(running, "ponder_holdout_quality_sum")['arm="policy",signal="verifier"'] == 1


def test_it_cannot_read_the_server(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = serve(verifier="judges:peeks")
    running.ask()
    wait_until(lambda: savings(running)["quality"]["verifier"]["policy"]["count"] == 1)
    open_to_it = landlock.version() == 0
    scores = series(running, "ponder_holdout_quality_sum")
    assert scores['arm="policy",signal="verifier"'] == open_to_it
    assert ("/proc" in caplog.text) is open_to_it


def test_a_variable_that_is_not_there_and_one_of_the_servers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NAMED", raising=False)
    monkeypatch.setenv("PONDER_API_KEY", "a secret of the server")
    for name in ("NAMED", "PONDER_API_KEY"):
        with pytest.raises(VerifierError, match=f"--verifier-env {name}"):
            Verifier("judges:knows", environment=[name])


def test_its_memory_has_a_limit_and_it_is_started_anew_beyond_it(serve: Serve) -> None:
    running = serve(verifier="judges:remembers", verifier_memory=1024)
    for _ in range(3):  # the second fails, and the third finds a process that remembers nothing
        running.ask()
        wait_until(lambda: not running.observer(Judging)._tasks)
    assert failures(running) == {'reason="error"': 1}
    report = savings(running)["quality"]["verifier"]["policy"]
    assert (report["count"], report["mean"]["value"]) == (2, 1.0)


def test_what_it_says_is_not_unpickled(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(multiprocessing.connection._ForkingPickler, "loads", refuse)
    running = serve(verifier="judges:agrees")
    running.ask()
    wait_until(lambda: not running.observer(Judging)._tasks)
    assert savings(running)["quality"]["verifier"]["policy"]["count"] == 1


def test_a_request_that_waits_for_its_score_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    judge, begin, scored = Verifier("judges:agrees"), threading.Event(), list[str]()

    def score(_: object, answer: str) -> float:
        begin.wait(60)
        scored.append(answer)
        return 1.0

    monkeypatch.setattr(judge, "_score", score)

    async def ask() -> None:
        sent = [asyncio.create_task(judge.score([], f"sent {n}")) for n in range(3)]
        await asyncio.sleep(0)
        gone, waits = (
            asyncio.create_task(judge.score([], name, awaited=True)) for name in ("gone", "waits")
        )
        await asyncio.sleep(0)
        gone.cancel()
        begin.set()
        await asyncio.gather(*sent, waits)

    asyncio.run(ask())
    judge.close()
    assert scored == ["sent 0", "waits", "sent 1", "sent 2"]


@pytest.mark.parametrize("path", ["judges", "judges:nobody", "no_such_module:f", "judges.knows"])
def test_one_that_cannot_be_loaded_is_said_at_the_start(path: str) -> None:
    with pytest.raises(VerifierError, match="--verifier"):
        Verifier(path)
