"""Judging in workers, with verifiers that hang, raise, die and eat memory."""

import logging
import multiprocessing.connection
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import pytest

from ponder.errors import VerifierError
from ponder.tasks import workers
from ponder.tasks.problems import Problem
from ponder.tasks.verifiers import Verifier
from ponder.tasks.workers import Failure, Verdict, VerifierPool
from tasks.judges import PROBLEM, VERIFIERS, told


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


@pytest.mark.parametrize("verifier", ["obeys", "shares"])
@pytest.mark.parametrize(
    ("deed", "failure"),
    [
        ("hang", "time"),
        ("hang in C", "time"),
        ("hang without an alarm", "time"),
        ("raise", "error"),
        ("recurse", "error"),
        ("exit", "death"),
        ("leave", "death"),
    ],
)
def test_a_failure_costs_a_wrong_score_and_nothing_else(
    pool: VerifierPool, verifier: str, deed: str, failure: Failure
) -> None:
    texts = ["right", "wrong", "right", deed, "right", "wrong"]
    verdicts = pool.judge(told(text, verifier) for text in texts)
    assert verdicts == [
        Verdict(text == "right", failure if text == deed else None) for text in texts
    ]
    assert pool.failures == {failure: 1}


@pytest.mark.parametrize("verifier", ["obeys", "shares"])
@pytest.mark.parametrize("deed", ["eat", "graze"])
def test_memory_has_a_limit(verifier: str, deed: str) -> None:
    with VerifierPool(1, time_limit_s=60, memory_limit_mb=256, verifiers=VERIFIERS) as pool:
        verdicts = pool.judge(told(text, verifier) for text in ("right", deed, "right"))
    assert verdicts == [Verdict(True), Verdict(False, "memory"), Verdict(True)]
    assert pool.failures == {"memory": 1}


def test_verdicts_keep_the_order_of_the_answers(pool: VerifierPool) -> None:
    texts = ["nap", *["right", "wrong"] * 40, "hang", "right"]
    verdicts = pool.judge(told(text, "shares") for text in texts)
    assert [v.correct for v in verdicts] == [text == "right" for text in texts]
    assert pool.judge([]) == []


def test_an_answer_finds_nothing_of_another(pool: VerifierPool) -> None:
    verdicts = pool.judge([told("remember", "forgets")] * 8)
    assert verdicts == [Verdict(True)] * 8


def test_an_answer_that_its_judge_is_wrong_after_is_alone_in_the_wrong(
    pool: VerifierPool, caplog: pytest.LogCaptureFixture
) -> None:
    """Where answers share a process, the canaries notice one that reached the judge."""
    texts = ["right", "wrong", "hack", "wrong", "wrong", "right", "wrong"]
    verdicts = pool.judge(told(text, "shares") for text in texts)
    assert verdicts == [
        Verdict(text == "right", "canary" if text == "hack" else None) for text in texts
    ]
    assert pool.failures == {"canary": 1}
    assert "wrong about known answers" in caplog.text


def test_a_judge_that_is_wrong_about_canaries_is_replaced_and_then_refused(
    pool: VerifierPool, caplog: pytest.LogCaptureFixture
) -> None:
    before = children()
    with pytest.raises(VerifierError, match=r"two judges in a row.*lies"):
        pool.judge([told("right", "lies"), told("wrong", "lies")])
    assert caplog.text.count("judged anew") >= 1
    assert children() == before
    assert pool.judge([told("right")]) == [Verdict(True)]


def test_a_trusted_judge_that_raises_counts_the_answer_as_wrong(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raises(_: Problem, text: str) -> bool:
        raise OverflowError(text)

    with VerifierPool(verifiers={"raises": Verifier(raises, trusted=True)}) as pool:
        verdicts = pool.judge([told("one", "raises"), told("two", "raises")])
        assert verdicts == [Verdict(False, "error")] * 2
        assert pool.failures == {"error": 2}
    assert caplog.text.count("OverflowError") == 1


def test_what_a_worker_says_is_not_unpickled(
    pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(multiprocessing.connection._ForkingPickler, "loads", refuse)
    assert pool.judge([told("right"), told("raise")])[0] == Verdict(True)


def test_a_kernel_without_filters_is_warned_of_once(
    pool: VerifierPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workers._Worker, "receive", lambda self, _: b'{"filtered": false}')
    for _ in range(2):
        pool._idle.append(pool._hand_over(workers._Job(VERIFIERS["obeys"], {})))
        pool.close()
    assert caplog.text.count("seccomp") == 1


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


def test_a_worker_that_falls_silent_is_replaced(
    pool: VerifierPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = children()
    pool.judge([told("right")])
    (silent,) = children() - before
    os.kill(silent, signal.SIGSTOP)
    monkeypatch.setattr(workers, "LOADING_LIMIT_S", 1.0)
    monkeypatch.setattr(pool, "_time_limit_s", -1.0)
    assert pool.judge([told("right")]) == [Verdict(False, "death")]
    assert silent not in children()


def test_loading_is_outside_the_time_limit(pool: VerifierPool) -> None:
    item = replace(PROBLEM, verifier="loads"), "right"
    assert pool.judge([item]) == [Verdict(True)]


def test_a_worker_killed_while_idle_blames_no_answer(pool: VerifierPool) -> None:
    before = children()
    pool.judge([told("nap"), told("nap")])
    killed = children() - before
    assert len(killed) == 2
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert soon(lambda: all(psutil.Process(p).status() == psutil.STATUS_ZOMBIE for p in killed))
    assert pool.judge([told("right")] * 4) == [Verdict(True)] * 4
    assert not pool.failures
    assert not killed & children()


def test_workers_start_when_needed_and_are_used_again(pool: VerifierPool) -> None:
    before = children()
    pid = str(os.getpid())
    here = replace(PROBLEM, verifier="here")
    assert pool.judge([(here, pid), (here, "0")]) == [Verdict(True), Verdict(False)]
    assert children() == before
    pool.judge([told("nap"), told("nap")])
    workers = children() - before
    assert len(workers) == 2
    for _ in range(3):
        pool.judge([told("right"), told("raise"), told("wrong")] * 4)
    assert children() - before == workers


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


def test_what_a_full_worker_cannot_load_a_new_one_can() -> None:
    problems = [replace(PROBLEM, verifier="fills", id=f"test:{n}", family=f"{n}") for n in range(3)]
    with VerifierPool(1, verifiers=VERIFIERS) as pool:
        verdicts = pool.judge((problem, "right") for problem in problems)
    assert verdicts == [Verdict(True)] * 3
    assert not pool.failures


def test_workers_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        VerifierPool(1, verifiers=VERIFIERS) as pool,
        pytest.raises(VerifierError, match="did not start"),
    ):
        pool.judge([told("right")])


def test_workers_and_cells_end_with_a_parent_that_was_killed() -> None:
    code = (
        "from tasks.judges import VERIFIERS, told;"
        "from ponder.tasks.workers import VerifierPool;"
        "pool = VerifierPool(2, time_limit_s=60.0, verifiers=VERIFIERS);"
        "pool.judge([told('right'), told('right')]);"
        "print('judging', flush=True);"
        "pool.judge([told('hang'), told('hang without an alarm')])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-P", "-c", code], env=environment, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        family = psutil.Process(parent.pid)
        assert soon(lambda: len(family.children(recursive=True)) == 4)  # two workers, two cells
        pids = [child.pid for child in family.children(recursive=True)]
        parent.kill()
    assert soon(lambda: not any(_runs(pid) for pid in pids))


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
