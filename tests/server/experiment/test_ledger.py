"""The ledger under locks, restarts, full disks, and files that are deleted, replaced or damaged."""

from __future__ import annotations

import asyncio
import os
import resource
import secrets
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponder.experiment import file as file_module
from ponder.experiment import ledger as ledger_module
from ponder.experiment.file import FileStore
from ponder.experiment.holdout import Arm, Assignment
from ponder.experiment.ledger import Ledger
from ponder.experiment.moments import Moments
from ponder.experiment.store import Entry, StateError

SETTINGS = '{"model": "tiny"}'


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_module, "LOCK_SECONDS", 0.01)
    monkeypatch.setattr(ledger_module, "RETRY_SECONDS", 0.0)


def response() -> str:
    return f"chatcmpl-{secrets.token_hex(16)}"


def single(tokens: float = 5.0, id: str | None = None, arm: Arm = "policy") -> Entry:
    """A request that names no conversation."""
    return Entry(Assignment(None, arm), {"tokens": (1.0, tokens)}, id)


def said(conversation: int, tokens: float, arm: Arm = "policy", id: str | None = None) -> Entry:
    return Entry(Assignment(f"{conversation:032x}", arm), {"tokens": (1.0, tokens)}, id)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process writes, for as long as it likes."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def run(path: Path, work: Callable[[Ledger], object]) -> None:
    """An asynchronous `work` with an open ledger."""

    async def go() -> None:
        with closing(Ledger(path, SETTINGS)) as ledger:
            await work(ledger)  # type: ignore[misc]

    asyncio.run(go())


async def until(happened: Callable[[], object]) -> None:
    """Wait for what a thread does, at most half a minute."""
    for _ in range(3000):
        if happened():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


def written(path: Path) -> dict[tuple[str, str], Moments]:
    with closing(FileStore(path, SETTINGS)) as store:
        return dict(store.totals())


# -- totals are sums -----------------------------------------------------------------------------

NUMBERS = st.integers(0, 100).map(float)
ARMS = st.sampled_from(["policy", "holdout"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("single"), NUMBERS, ARMS),
        st.tuples(st.just("said"), st.integers(0, 2), NUMBERS),
        st.tuples(st.just("rate"), st.integers(0, 9), st.sampled_from([0.0, 0.25, 1.0])),
        st.tuples(st.just("write")),
        st.tuples(st.just("lock")),
        st.tuples(st.just("restart")),
        st.tuples(st.just("delete")),
        st.tuples(st.just("other")),
    ),
    max_size=30,
)


class Model:
    """The sums by their definition: every conversation and every request on its own."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
        self._scores: dict[str, float] = {}
        self._of: dict[str, Entry] = {}
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self._entries.append(entry)
        if entry.response is not None:
            self._of[entry.response] = entry

    def rate(self, id: str, score: float) -> None:
        self._scores[id] = score

    @property
    def responses(self) -> list[str]:
        return list(self._of)

    def totals(self) -> dict[tuple[str, str], Moments]:
        sums: dict[tuple[str, str, object], tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
        charges = [
            (entry, measure, count, total)
            for entry in self._entries
            for measure, (count, total) in entry.measures.items()
        ]
        charges += [(self._of[id], "feedback", 1.0, score) for id, score in self._scores.items()]
        for entry, measure, count, total in charges:
            unit: object = entry.assignment.conversation or id_of(entry)
            key = entry.assignment.arm, measure, unit
            sums[key] = sums[key][0] + count, sums[key][1] + total
        totals: dict[tuple[str, str], Moments] = defaultdict(Moments)
        for (arm, measure, _), (count, total) in sums.items():
            totals[arm, measure] += Moments.of(count, total)
        return dict(totals)


id_of: Callable[[object], int] = id


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(STEPS)
def test_totals_are_the_same_whatever_happens_in_between(steps: list[tuple[object, ...]]) -> None:
    """Batches, locks, restarts, other processes and deleted files change nothing."""
    with TemporaryDirectory() as folder:
        asyncio.run(_play(Path(folder) / "state.sqlite3", steps))


async def _play(path: Path, steps: list[tuple[object, ...]]) -> None:
    model = Model()
    ledger, other = Ledger(path, SETTINGS), Ledger(path, SETTINGS)
    try:
        for step in steps:
            match step:
                case ("single", float(tokens), ("policy" | "holdout") as arm):
                    entry = single(tokens, response(), arm)
                    model.add(entry)
                    ledger.record(entry)
                case ("said", int(conversation), float(tokens)):
                    entry = said(conversation, tokens, "policy", response())
                    model.add(entry)
                    ledger.record(entry)
                case ("other",):
                    entry = said(0, 7.0, "policy", response())
                    await other.refresh()
                    other.record(entry)
                    await other.refresh()
                    model.add(entry)
                case ("rate", int(number), float(score)) if model.responses:
                    id = model.responses[number % len(model.responses)]
                    assert await ledger.rate(id, score)
                    model.rate(id, score)
                case ("write",):
                    await ledger.refresh()
                case ("lock",):
                    await ledger.refresh()
                    ledger.record(entry := single(3.0, response()))
                    model.add(entry)
                    with locked(path), pytest.raises(StateError, match="another process holds it"):
                        await ledger.refresh()
                case ("restart",):
                    ledger.close()
                    ledger = Ledger(path, SETTINGS)
                case ("delete",):
                    await asyncio.to_thread(path.unlink)
                    await ledger.refresh()
        assert dict(await ledger.refresh()) == model.totals()
        assert (ledger.lost, ledger.pending) == (0, 0)
    finally:
        ledger.close()
        other.close()
    assert written(path) == model.totals()


# -- locks ---------------------------------------------------------------------------------------


def test_a_batch_that_met_a_lock_is_written_when_it_is_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"

    async def work(ledger: Ledger) -> None:
        with locked(path):
            for _ in range(42):
                ledger.record(single())
            await until(lambda: ledger.failures)  # its own timer tries
            assert ledger.pending == 42
        await until(lambda: not ledger.pending)  # and tries again

    run(path, work)
    assert written(path)["policy", "tokens"].count == 42
    said_once = [r for r in caplog.records if "could not be written" in r.getMessage()]
    assert len(said_once) == 1
    assert "can be written again" in caplog.text


def test_a_lock_is_met_at_once_and_not_by_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure nothing waits for the lock again, until it is tried anew."""
    monkeypatch.setattr(ledger_module, "RETRY_SECONDS", 3600.0)
    waited: list[int] = []
    path, id = tmp_path / "state", response()

    async def work(ledger: Ledger) -> None:
        ledger.record(single(id=id))
        await ledger.refresh()
        ledger.record(single())
        write = ledger._store.write
        monkeypatch.setattr(
            ledger._store,
            "write",
            lambda batch, name: (waited.append(len(batch)), write(batch, name)),
        )
        with locked(path):
            for _ in range(20):
                with pytest.raises(StateError, match="another process"):
                    await ledger.rate(id, 1.0)
                with pytest.raises(StateError, match="another process"):
                    await ledger.refresh()
            assert ledger.totals["policy", "tokens"].count == 1  # what was written is read
        assert len(waited) == 1
        monkeypatch.setattr(ledger_module, "RETRY_SECONDS", 0.0)
        ledger._retry_at = 0.0

    run(path, work)
    assert written(path)["policy", "tokens"].count == 2


def test_what_waits_has_a_bound_and_what_is_lost_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_module, "MAX_PENDING", 10)
    path = tmp_path / "state"

    async def work(ledger: Ledger) -> None:
        with locked(path):
            for _ in range(25):
                ledger.record(single())
            assert (ledger.pending, ledger.lost) == (10, 15)
        await ledger.refresh()
        ledger.record(single())

    run(path, work)
    assert written(path)["policy", "tokens"].count == 11
    assert caplog.text.count("further ones are lost") == 1


def test_what_cannot_be_written_at_the_end_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_module, "CLOSING_SECONDS", 0.0)
    path = tmp_path / "state"

    async def work(ledger: Ledger) -> None:
        ledger.record(single())
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        ledger.close()
        holder.close()
        assert ledger.lost == 1

    async def go() -> None:
        await work(Ledger(path, SETTINGS))

    asyncio.run(go())
    assert "the savings of 1 requests are lost" in caplog.text


# -- the size of the file ------------------------------------------------------------------------


def test_a_request_without_a_conversation_takes_a_hundred_bytes(tmp_path: Path) -> None:
    path, requests = tmp_path / "state", 20_000
    ids = [response() for _ in range(requests)]
    measures = {
        "tokens": (1.0, 123.0),
        "seconds": (1.0, 0.12345),
        "empty": (1.0, 0.0),
        "forced": (1.0, 1.0),
    }
    with closing(FileStore(path, SETTINGS)) as store:
        for start in range(0, requests, 50):
            store.write(
                Entry(Assignment(None, "policy"), measures, id) for id in ids[start : start + 50]
            )
        assert store.rate(ids[7], 1.0)
    size = path.stat().st_size
    assert size / requests <= 100, f"{size / requests:.1f} bytes a request"


# -- old files -----------------------------------------------------------------------------------


def version_1(path: Path) -> str:
    """A file as the first version left it, with a conversation whose response can be rated."""
    id = response()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.executescript(file_module._SCHEMA[0])
        database.execute("PRAGMA user_version = 1")
        database.execute("INSERT INTO experiments VALUES ('0a0b0c0d', ?, 1000.0)", (SETTINGS,))
        database.execute(
            "INSERT INTO totals VALUES ('0a0b0c0d', 'policy', 'tokens', 1, 2, 30, 900, 60, 4)"
        )
        database.execute(
            "INSERT INTO conversations VALUES ('0a0b0c0d', ?, 'tokens', 2, 30, ?)",
            (f"{1:032x}", time.time()),
        )
        database.execute(
            "INSERT INTO responses VALUES (?, '0a0b0c0d', ?, 'policy', ?, NULL)",
            (id, f"{1:032x}", time.time()),
        )
    return id


def test_a_file_of_the_first_version_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "state"
    old = version_1(path)

    async def work(ledger: Ledger) -> None:
        assert (ledger.experiment, ledger.started_at) == ("0a0b0c0d", 1000.0)
        ledger.record(said(1, 12.0))
        assert await ledger.rate(old, 0.5)
        assert await ledger.rate(old, 1.0)

    run(path, work)
    assert written(path) == {
        ("policy", "tokens"): Moments.of(3.0, 42.0),
        ("policy", "feedback"): Moments.of(1.0, 1.0),
    }


def test_a_process_of_the_first_version_may_still_write(tmp_path: Path) -> None:
    """Servers are replaced one after the other, and share the file meanwhile."""
    path = tmp_path / "state"
    version_1(path)
    new, id = FileStore(path, SETTINGS), response()
    with closing(new), closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.execute(
            "INSERT INTO responses VALUES (?, '0a0b0c0d', ?, 'policy', 2e9, NULL)",
            (id, f"{1:032x}"),
        )
        old.execute("UPDATE totals SET count = count + 1 WHERE measure = 'tokens'")
        assert new.rate(id, 1.0)
        assert new.totals()["policy", "tokens"].count == 3


def test_answers_can_be_rated_for_a_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [response(), "an id of another form", "chatcmpl-ABCDEF", f"chatcmpl-{'A' * 32}"]
    with closing(FileStore(tmp_path / "state", SETTINGS)) as store:
        now = time.time()
        store.write([single(id=id) for id in ids])
        monkeypatch.setattr(time, "time", lambda: now + 6.9 * 86_400)
        store.write([single()])
        assert all(store.rate(id, 1.0) for id in ids)
        assert not store.rate("chatcmpl-abcdef", 1.0)
        monkeypatch.setattr(time, "time", lambda: now + 9 * 86_400)
        store.write([single()])
        assert not any(store.rate(id, 0.0) for id in ids)
        assert store.totals()["policy", "feedback"].total == len(ids)


# -- the file under the path ---------------------------------------------------------------------


@pytest.mark.parametrize("all_of_them", [False, True])
def test_a_file_that_is_deleted_is_written_anew_with_all_that_was_in_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, all_of_them: bool
) -> None:
    path, id = tmp_path / "deep" / "state", response()

    async def work(ledger: Ledger) -> None:
        ledger.record(single(id=id))
        ledger.record(said(1, 4.0))
        await ledger.refresh()
        experiment = ledger.experiment
        for file in list(path.parent.iterdir()) if all_of_them else [path]:
            file.unlink()
        if all_of_them:
            path.parent.rmdir()
        ledger.record(said(1, 5.0))
        await ledger.refresh()
        assert ledger.experiment == experiment
        assert await ledger.rate(id, 1.0)

    run(path, work)
    assert written(path) == {
        ("policy", "tokens"): Moments.of(1.0, 5.0) + Moments.of(2.0, 9.0),
        ("policy", "feedback"): Moments.of(1.0, 1.0),
    }
    assert caplog.text.count("was deleted") == 1
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_processes_that_start_together_share_one_file(tmp_path: Path) -> None:
    rounds, writers = 20, 8
    together = threading.Barrier(writers, timeout=60)

    def start(number: int) -> str:
        together.wait()
        with closing(FileStore(tmp_path / f"{number // writers}", SETTINGS)) as store:
            return store.experiment

    with ThreadPoolExecutor(writers) as pool:
        found = list(pool.map(start, range(rounds * writers)))
    for number in range(rounds):
        assert len(set(found[number * writers : (number + 1) * writers])) == 1


def test_processes_that_share_a_deleted_file_go_on_in_one(tmp_path: Path) -> None:
    path, writers = tmp_path / "state", 4
    opened, deleted = (threading.Barrier(writers + 1, timeout=60) for _ in range(2))

    def live() -> None:
        with closing(FileStore(path, SETTINGS)) as store:
            _until_written(store)
            opened.wait()
            deleted.wait()
            for _ in range(10):
                _until_written(store)

    threads = [threading.Thread(target=live) for _ in range(writers)]
    for thread in threads:
        thread.start()
    opened.wait()
    path.unlink()
    deleted.wait()
    for thread in threads:
        thread.join()
    assert written(path)["policy", "tokens"].count == writers * 11


def _until_written(store: FileStore) -> None:
    for _ in range(3000):
        try:
            return store.write([single()])
        except (sqlite3.OperationalError, StateError):
            time.sleep(0.01)
    raise AssertionError("it was never written")


def test_a_file_that_is_replaced_is_taken_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = tmp_path / "state", tmp_path / "other"
    with closing(FileStore(other, SETTINGS)) as store:
        store.write([single()] * 3)

    async def work(ledger: Ledger) -> None:
        ledger.record(single())
        await ledger.refresh()
        for ending in ("-wal", "-shm"):
            path.with_name(path.name + ending).unlink()
        other.replace(path)
        ledger.record(single())
        await ledger.refresh()

    run(path, work)
    assert written(path)["policy", "tokens"].count == 4
    assert "was replaced" in caplog.text


def test_no_state_is_kept_in_memory_alone() -> None:
    async def work(ledger: Ledger) -> None:
        ledger.record(single())
        assert (await ledger.refresh())["policy", "tokens"].count == 1

    run(Path(":memory:"), work)
    assert not Path(":memory:").exists()


# -- disks ---------------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    """Also to who rates a response that waits to be written: it is known, only not yet."""
    path, id = tmp_path / "state", response()

    async def work(ledger: Ledger) -> None:
        await ledger.refresh()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            ledger.record(single(id=id))
            for _ in range(3):
                with pytest.raises(StateError, match="cannot use the state"):
                    await ledger.rate(id, 1.0)
            assert ledger.pending == 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert await ledger.rate(id, 1.0)
        assert ledger.totals.keys() == set()

    run(path, work)
    assert written(path)["policy", "tokens"].count == 1


def test_full_is_called_full(tmp_path: Path) -> None:
    path = tmp_path / "state"

    async def work(ledger: Ledger) -> None:
        def fill() -> None:
            ledger._store._database.execute("PRAGMA max_page_count = 1")

        ledger._thread.submit(fill).result()
        for _ in range(2000):
            ledger.record(single(id=response()))
        with pytest.raises(StateError, match="make room on its disk"):
            await ledger.refresh()
        assert ledger.pending == 2000
        ledger._thread.submit(
            ledger._store._database.execute, "PRAGMA max_page_count = 1000000"
        ).result()

    run(path, work)
    assert written(path)["policy", "tokens"].count == 2000


def damage(path: Path) -> None:
    """Overwrite all but the first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


def test_damage_inside_the_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ledger_module, "CLOSING_SECONDS", 0.0)
    path = tmp_path / "state"
    with closing(FileStore(path, SETTINGS)) as store:
        store.write([single(id=response()) for _ in range(1000)])

    async def work(ledger: Ledger) -> None:
        def forget() -> None:
            ledger._store._database.execute("PRAGMA shrink_memory")

        damage(path)
        ledger._thread.submit(forget).result()
        ledger.record(said(1, 1.0))
        with pytest.raises(StateError, match=r"it is damaged.*move the file away"):
            await ledger.refresh()
        assert ledger.failures
        path.unlink()  # as the message says; what waits is not lost with it

    run(path, work)
    damage(path)
    with pytest.raises(StateError, match="--state"):
        Ledger(path, SETTINGS)
