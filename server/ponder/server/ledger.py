"""What every conversation cost and was worth, kept in SQLite so that it survives restarts.

Six sums per arm and measure are all that the estimator needs; each conversation's own sums are
kept while it may go on, because its part in the squares grows with it. Names are pseudonyms, and
no text is kept. Processes on one machine may share a file: each batch is one transaction.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ponder.thought.holdout import Arm, Assignment
from ponder.thought.savings import Moments

logger = logging.getLogger(__name__)
T = TypeVar("T")

BATCH_SECONDS = 0.2
LOCK_SECONDS = 10.0  # how long another process' transaction may take
FEEDBACK_DAYS = 7.0  # how long a response can be rated
IDLE_DAYS = 30.0  # a conversation that goes on later counts as another one
_DAY = 86_400.0
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE experiments (
  id TEXT PRIMARY KEY, settings TEXT NOT NULL UNIQUE, started_at REAL NOT NULL
);
CREATE TABLE totals (
  experiment TEXT, arm TEXT, measure TEXT, conversations REAL NOT NULL, count REAL NOT NULL,
  total REAL NOT NULL, squares REAL NOT NULL, products REAL NOT NULL, count_squares REAL NOT NULL,
  PRIMARY KEY (experiment, arm, measure)
) WITHOUT ROWID;
CREATE TABLE conversations (
  experiment TEXT, conversation TEXT, measure TEXT, count REAL NOT NULL, total REAL NOT NULL,
  seen_at REAL NOT NULL, PRIMARY KEY (experiment, conversation, measure)
) WITHOUT ROWID;
CREATE INDEX conversations_by_age ON conversations (seen_at);
CREATE TABLE responses (
  id TEXT PRIMARY KEY, experiment TEXT NOT NULL, conversation TEXT NOT NULL, arm TEXT NOT NULL,
  seen_at REAL NOT NULL, score REAL
) WITHOUT ROWID;
CREATE INDEX responses_by_age ON responses (seen_at);
"""

Key = tuple[Arm, str]
"""(arm, measure)"""


class StateError(Exception):
    """The state file cannot be used; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a conversation is charged with: (count, total) by measure.

    `response` is the id under which it can be rated, if it can be.
    """

    assignment: Assignment
    measures: Mapping[str, tuple[float, float]]
    response: str | None = None


class Ledger:
    """Entries go in from the event loop and are written by a thread of its own, in batches.

    One set of `settings` is one experiment: where they change, the sums start again from nothing,
    because costs under two policies have no mean that means something. `totals` are those of the
    last `refresh` and `failures` counts the batches that could not be written.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self._path = path
        self._settings = settings
        self._pending: deque[Entry] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._prune_at = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self.failures = 0
        self.totals: Mapping[Key, Moments] = {}
        try:
            self._database, self.experiment, self.started_at = self._thread.submit(
                self._open
            ).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def record(self, entry: Entry) -> None:
        """Write it soon. Never waits; call it from the event loop."""
        self._pending.append(entry)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(BATCH_SECONDS, self._write_soon)

    async def refresh(self) -> Mapping[Key, Moments]:
        """Every entry of every process that was written, and ours. Raises `StateError`."""
        self.totals = await self._in_thread(self._read)
        return self.totals

    async def rate(self, response: str, score: float) -> bool:
        """Give a response its score, replacing an earlier one; False for one that is not known.

        Raises `StateError`.
        """
        return await self._in_thread(lambda: self._rate(response, score))

    def close(self) -> None:
        """Write what is left. Nothing can be recorded afterwards."""
        if self._timer is not None:
            self._timer.cancel()
        self._thread.submit(self._write).result()
        self._thread.submit(self._database.close).result()
        self._thread.shutdown()

    # -- in the thread -----------------------------------------------------------------------

    def _open(self) -> tuple[sqlite3.Connection, str, float]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            with _transaction(database):
                (version,) = database.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";\n"):
                        database.execute(statement)
                    database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
                elif version != _SCHEMA_VERSION:
                    raise StateError(
                        f"the state file {self._path} has format {version} and this version of "
                        f"Ponder reads {_SCHEMA_VERSION}: choose another --state"
                    )
                database.execute(
                    "INSERT OR IGNORE INTO experiments VALUES (?, ?, ?)",
                    (secrets.token_hex(4), self._settings, time.time()),
                )
                experiment, started_at = database.execute(
                    "SELECT id, started_at FROM experiments WHERE settings = ?", (self._settings,)
                ).fetchone()
        except (sqlite3.Error, OSError) as error:
            raise StateError(
                f"cannot keep state in {self._path} ({error}): choose another --state, a file on "
                f"a local disk, or :memory:"
            ) from error
        return database, experiment, started_at

    def _write(self) -> None:
        """All that is pending, in one transaction; what cannot be written is logged and counted."""
        batch = [self._pending.popleft() for _ in range(len(self._pending))]
        if not batch:
            return
        now = time.time()
        try:
            with _transaction(self._database):
                changes: dict[Key, Moments] = {}
                for entry in batch:
                    self._add(entry, self.experiment, now, changes)
                self._total(changes, self.experiment)
                self._prune(now)
        except sqlite3.Error:
            self.failures += 1
            logger.exception("the savings of %d requests could not be written", len(batch))

    def _read(self) -> Mapping[Key, Moments]:
        self._write()
        rows = self._database.execute(
            "SELECT arm, measure, conversations, count, total, squares, products, count_squares "
            "FROM totals WHERE experiment = ?",
            (self.experiment,),
        )
        return {(arm, measure): Moments(*row) for arm, measure, *row in rows}

    def _rate(self, response: str, score: float) -> bool:
        self._write()
        with _transaction(self._database):
            found = self._database.execute(
                "SELECT experiment, conversation, arm, score FROM responses WHERE id = ?",
                (response,),
            ).fetchone()
            if found is None:
                return False
            experiment, conversation, arm, earlier = found
            self._database.execute("UPDATE responses SET score = ? WHERE id = ?", (score, response))
            change = (1.0, score) if earlier is None else (0.0, score - earlier)
            entry = Entry(Assignment(conversation, arm), {"feedback": change})
            changes: dict[Key, Moments] = {}
            self._add(entry, experiment, time.time(), changes)
            self._total(changes, experiment)
        return True

    def _add(self, entry: Entry, experiment: str, now: float, changes: dict[Key, Moments]) -> None:
        """Charge the conversation; what that adds to the totals is added to `changes`."""
        execute = self._database.execute
        conversation, arm = entry.assignment.conversation, entry.assignment.arm
        if entry.response is not None:
            execute(
                "INSERT INTO responses VALUES (?, ?, ?, ?, ?, NULL)",
                (entry.response, experiment, conversation, arm, now),
            )
        for measure, (count, total) in entry.measures.items():
            place = (experiment, conversation, measure)
            before = execute(
                "SELECT count, total FROM conversations "
                "WHERE experiment = ? AND conversation = ? AND measure = ?",
                place,
            ).fetchone() or (0.0, 0.0)
            after = (before[0] + count, before[1] + total)
            execute("REPLACE INTO conversations VALUES (?, ?, ?, ?, ?, ?)", (*place, *after, now))
            change = Moments.of(*after) - Moments.of(*before)
            changes[arm, measure] = changes.get((arm, measure), Moments()) + change

    def _total(self, changes: Mapping[Key, Moments], experiment: str) -> None:
        for (arm, measure), change in changes.items():
            self._database.execute(
                "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                "ON CONFLICT (experiment, arm, measure) DO UPDATE SET "
                "conversations = conversations + excluded.conversations, "
                "count = count + excluded.count, total = total + excluded.total, "
                "squares = squares + excluded.squares, products = products + excluded.products, "
                "count_squares = count_squares + excluded.count_squares",
                (experiment, arm, measure, *change.row),
            )

    def _prune(self, now: float) -> None:
        """Forget, once an hour, what can no longer change; its part in the totals stays."""
        if now < self._prune_at:
            return
        self._prune_at = now + 3600
        execute = self._database.execute
        execute("DELETE FROM responses WHERE seen_at < ?", (now - FEEDBACK_DAYS * _DAY,))
        execute("DELETE FROM conversations WHERE seen_at < ?", (now - IDLE_DAYS * _DAY,))

    # -- in the event loop -------------------------------------------------------------------

    def _write_soon(self) -> None:
        self._timer = None
        self._thread.submit(self._write)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            self.failures += 1
            raise StateError(
                f"cannot use the state in {self._path} ({error}): mend the file, or restart with "
                f"another --state"
            ) from error


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All or nothing, and alone: what is read in it is what is written from."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise
