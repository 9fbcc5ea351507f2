"""Judging in workers, with verifiers that hang, raise, die and eat memory."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from ponder.training.tasks import workers
from ponder.training.tasks.workers import Failure, Verdict, VerifierError, VerifierPool
from training.tasks.judges import PROBLEM, VERIFIERS, noted, told


@pytest.fixture
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(2, time_limit_s=2.0, memory_limit_mb=512, verifiers=VERIFIERS) as pool:
        yield pool


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


def soon(happened: Callable[[], object]) -> bool:
    """Whether it happens within ten seconds."""
    until = time.monotonic() + 10
    while not happened() and time.monotonic() < until:
        time.sleep(0.02)
    return bool(happened())


@pytest.mark.parametrize(
    ("deed", "failure"),
    [
        ("hang", "time"),
        ("hang in C", "time"),
        ("raise", "error"),
        ("recurse", "error"),
        ("exit", "death"),
        ("leave", "death"),
        ("die", "death"),
    ],
)
def test_a_failure_costs_a_wrong_score_and_nothing_else(
    pool: VerifierPool, deed: str, failure: Failure
) -> None:
    verdicts = pool.judge([told("right"), told(deed), told("right"), told("wrong")])
    assert verdicts == [Verdict(True), Verdict(False, failure), Verdict(True), Verdict(False)]
    assert pool.failures == {failure: 1}


@pytest.mark.parametrize("deed", ["eat", "graze"])
def test_memory_has_a_limit(deed: str) -> None:
    with VerifierPool(1, time_limit_s=60, memory_limit_mb=256, verifiers=VERIFIERS) as pool:
        verdicts = pool.judge([told(deed), told("right")])
    assert verdicts == [Verdict(False, "memory"), Verdict(True)]
    assert pool.failures == {"memory": 1}


def test_verdicts_keep_the_order_of_the_answers(pool: VerifierPool) -> None:
    texts = ["nap", *["right", "wrong"] * 40, "hang", "right"]
    verdicts = pool.judge(map(told, texts))
    assert [v.correct for v in verdicts] == [text == "right" for text in texts]
    assert pool.judge([]) == []


def test_failures_are_counted_and_each_kind_is_told_once(
    pool: VerifierPool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        pool.judge([told("raise"), told("exit"), told("raise")])
        pool.judge([told("raise"), told("right")])
    assert pool.failures == {"error": 3, "death": 1}
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert any("KeyError('no such key')" in m and "test:1" in m for m in messages)
    assert any("its process ended with 3" in m for m in messages)


def test_a_verifier_that_switches_the_alarm_off_is_ended_from_outside(
    pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool.judge([told("right")])
    monkeypatch.setattr(workers, "_LOADING_LIMIT_S", 1.0)
    assert pool.judge([told("hang without an alarm")]) == [Verdict(False, "time")]


def test_loading_is_outside_the_time_limit(pool: VerifierPool) -> None:
    item = replace(PROBLEM, verifier="loads"), "right"
    assert pool.judge([item]) == [Verdict(True)]


def test_a_worker_killed_while_idle_blames_no_answer(pool: VerifierPool, tmp_path: Path) -> None:
    pool.judge([noted(tmp_path, "nap"), noted(tmp_path, "nap")])
    killed = {int(path.name) for path in tmp_path.iterdir()}
    assert len(killed) == 2
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert soon(lambda: all(psutil.Process(p).status() == psutil.STATUS_ZOMBIE for p in killed))
    assert pool.judge([told("right")] * 4) == [Verdict(True)] * 4
    assert not pool.failures
    assert not killed & children()


def test_workers_start_when_needed_and_are_used_again(pool: VerifierPool, tmp_path: Path) -> None:
    before = children()
    pid = str(os.getpid())
    here = replace(PROBLEM, verifier="here")
    assert pool.judge([(here, pid), (here, "0")]) == [Verdict(True), Verdict(False)]
    assert children() == before
    for _ in range(3):
        pool.judge([noted(tmp_path, "right")] * 10)
    assert len(list(tmp_path.iterdir())) <= 2
    assert pid not in [path.name for path in tmp_path.iterdir()]


def test_what_a_verifier_prints_is_lost(
    pool: VerifierPool, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pool.judge([told("print"), told("right")]) == [Verdict(False), Verdict(True)]
    assert capfd.readouterr() == ("", "")


def test_no_process_is_left() -> None:
    before = children()
    with VerifierPool(2, time_limit_s=0.3, verifiers=VERIFIERS) as pool:
        pool.judge(map(told, ["right", "hang", "exit", "right"]))
        assert children() > before
    assert children() == before


def test_an_interrupted_batch_leaves_no_process_and_no_stale_verdict(
    pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()

    def interrupt(*_: object) -> list[object]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workers, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pool.judge([told("right"), told("right")])
    assert children() == before
    assert pool.judge([told("wrong")]) == [Verdict(False)]


def test_what_cannot_be_loaded_is_an_error_not_a_wrong_score() -> None:
    before = children()
    item = replace(PROBLEM, verifier="lacks"), "right"
    with (
        VerifierPool(2, verifiers=VERIFIERS) as pool,
        pytest.raises(VerifierError, match=r"no_such_library.*ponder\[train\]"),
    ):
        pool.judge([item, told("right")])
    assert children() == before


def test_what_a_full_worker_cannot_load_a_new_one_can(tmp_path: Path) -> None:
    problem = replace(PROBLEM, verifier="fills", evidence=str(tmp_path))
    with VerifierPool(1, verifiers=VERIFIERS) as pool:
        assert pool.judge([(problem, "right")] * 3) == [Verdict(True)] * 3
    assert not pool.failures
    assert len(list(tmp_path.iterdir())) == 3


def test_workers_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        VerifierPool(1, verifiers=VERIFIERS) as pool,
        pytest.raises(VerifierError, match="did not start"),
    ):
        pool.judge([told("right")])


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = (
        "from training.tasks.judges import VERIFIERS, noted;"
        "from ponder.training.tasks.workers import VerifierPool;"
        "from pathlib import Path; import sys;"
        "pool = VerifierPool(2, time_limit_s=2.0, verifiers=VERIFIERS);"
        "path = Path(sys.argv[1]);"
        "pool.judge([noted(path, 'nap'), noted(path, 'nap'), noted(path, 'hang')])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-P", "-c", code, str(tmp_path)], env=environment)
    try:
        assert soon(lambda: len(list(tmp_path.iterdir())) == 2)
        time.sleep(0.6)  # now one worker is idle and the other hangs
        pids = [int(path.name) for path in tmp_path.iterdir()]
        assert all(psutil.pid_exists(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
    assert soon(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
