"""The state file: what conversations cost and were worth, in SQLite.

Six sums per arm and measure are all that the estimator needs (`totals`). A conversation's own sums
are kept while it may go on (`conversations`), because its part in the squares grows with it; a
request that names no conversation is one by itself, and leaves some forty bytes by which it can be
rated (`answers`). Names are pseudonyms, and no text is kept. Processes on one machine may share a
file: each batch is one transaction. Belongs to one thread.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ponder.errors import SetupError
from ponder.experiment.holdout import ARMS, Arm, Assignment
from ponder.experiment.moments import Moments

logger = logging.getLogger(__name__)

START_SECONDS = 10.0  # how long another process' transaction is waited for at the start,
LOCK_SECONDS = 0.5  # and afterwards, when others wait for this process
FEEDBACK_DAYS = 7.0  # how long a response can be rated
IDLE_DAYS = 30.0  # a conversation that goes on later counts as another one
MEMORY = Path(":memory:")
_DAY = 86_400.0
_DIGITS = re.compile(r"[0-9a-f]{32}")
_SCHEMA_VERSION = 2
# Processes of version 1 may write beside this one: what they know stays as it is.
_SCHEMA = (
    """
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
""",
    """
CREATE TABLE answers (
  day INTEGER, id BLOB, experiment BLOB NOT NULL, conversation BLOB, arm INTEGER NOT NULL,
  score REAL, PRIMARY KEY (day, id)
) WITHOUT ROWID;
""",
)
"""What each version added to the one before. `responses` is version 1's form of `answers`: it is
read until its last row is too old."""

Key = tuple[Arm, str]
"""(arm, measure)"""


class StateError(SetupError):
    """The state file cannot be used; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a conversation, or a request without one, is charged with: (count, total) by measure.

    `response` is the id under which it can be rated, if it can be.
    """

    assignment: Assignment
    measures: Mapping[str, tuple[float, float]]
    response: str | None = None


class Store:
    """An open state file, and the experiment that a set of settings makes in it.

    `started_at` is when that began, in seconds since 1970.

    What it raises beside `StateError` is `sqlite3.Error`, after which nothing was written. A file
    that is deleted is written anew with all that was in it; one that is replaced is taken up.
    """

    experiment: str
    started_at: float

    def __init__(self, path: Path, settings: str) -> None:
        self._path = path
        self._settings = settings
        self._prune_at = 0.0
        self._open(START_SECONDS)

    def write(self, batch: Iterable[Entry]) -> None:
        """All of it, in one transaction."""
        self._check_file()
        now = time.time()
        with _transaction(self._database):
            changes: dict[Key, Moments] = {}
            for entry in batch:
                self._charge(entry, self.experiment, now, changes)
            self._add(changes, self.experiment)
            self._prune(now)

    def totals(self) -> Mapping[Key, Moments]:
        """What every process wrote of this experiment."""
        self._check_file()
        rows = self._database.execute(
            "SELECT arm, measure, conversations, count, total, squares, products, count_squares "
            "FROM totals WHERE experiment = ?",
            (self.experiment,),
        )
        return {(arm, measure): Moments(*row) for arm, measure, *row in rows}

    def rate(self, response: str, score: float) -> bool:
        """Give a response its score, replacing an earlier one; False for one that is not known."""
        self._check_file()
        now = time.time()
        with _transaction(self._database):
            found = self._find(response, now)
            if found is None:
                return False
            update, key, experiment, assignment, earlier = found
            self._database.execute(update, (score, *key))
            changes: dict[Key, Moments] = {}
            if assignment.conversation is None:
                change = Moments.of(1.0, score)
                if earlier is not None:
                    change = change - Moments.of(1.0, earlier)
                changes[assignment.arm, "feedback"] = change
            else:
                more = (1.0, score) if earlier is None else (0.0, score - earlier)
                self._charge(Entry(assignment, {"feedback": more}), experiment, now, changes)
            self._add(changes, experiment)
        return True

    def close(self) -> None:
        self._database.close()

    # -- the file ----------------------------------------------------------------------------

    def _open(self, patience_s: float) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = _connect(self._path, patience_s)
            with _alone(self._path.parent):  # SQLite waits for nobody who makes this change
                database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            with _transaction(database):
                self._upgrade(database)
                database.execute(
                    "INSERT OR IGNORE INTO experiments VALUES (?, ?, ?)",
                    (secrets.token_hex(4), self._settings, time.time()),
                )
                self.experiment, self.started_at = database.execute(
                    "SELECT id, started_at FROM experiments WHERE settings = ?", (self._settings,)
                ).fetchone()
            database.execute(f"PRAGMA busy_timeout = {LOCK_SECONDS * 1000:.0f}")
            self._database, self._file = database, self._identity()
        except (sqlite3.Error, OSError) as error:
            raise StateError(
                f"cannot keep state in {self._path} ({error}): choose another --state, a file on "
                f"a local disk, or :memory:"
            ) from error

    def _upgrade(self, database: sqlite3.Connection) -> None:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _SCHEMA_VERSION:
            raise StateError(
                f"the state file {self._path} has format {version} and this version of Ponder "
                f"reads {_SCHEMA_VERSION} and older ones: choose another --state"
            )
        for steps in _SCHEMA[version:]:
            for statement in steps.split(";\n"):
                database.execute(statement)
        database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")

    def _identity(self) -> tuple[int, int] | None:
        """Which file lies under the path: None where there is none, or where it is memory."""
        if self._path == MEMORY:
            return None
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    def _check_file(self) -> None:
        """Go on in the file under the path, where that is no longer the one that was opened."""
        found = self._identity()
        if found == self._file:
            return
        deleted = self._database  # it is there, for whoever has it open
        if found is None and self._restore(deleted):
            logger.error("the state file %s was deleted: it is written anew", self._path)
        else:
            logger.error("the state file %s was replaced: the new one is used", self._path)
        self._open(LOCK_SECONDS)
        deleted.close()

    def _restore(self, deleted: sqlite3.Connection) -> bool:
        """Put a copy where the file was; False where another process did so first."""
        beside = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(_connect(beside, LOCK_SECONDS)) as copy:
                deleted.backup(copy)
            with _alone(self._path.parent):
                if self._path.exists():
                    return False
                # Those of the deleted file: SQLite would take them for ours.
                for ending in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
                os.link(beside, self._path)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        return True

    # -- in a transaction --------------------------------------------------------------------

    def _find(
        self, response: str, now: float
    ) -> tuple[str, tuple[object, ...], str, Assignment, float | None] | None:
        """How to score a response, and its experiment, conversation, arm and score until now."""
        today = int(now // _DAY)
        days = [today - ago for ago in range(int(FEEDBACK_DAYS) + 1)]
        row = self._database.execute(
            "SELECT day, experiment, conversation, arm, score FROM answers "
            f"WHERE day IN ({', '.join('?' * len(days))}) AND id = ?",
            (*days, _packed(response)),
        ).fetchone()
        if row is not None:
            day, experiment, conversation, arm, score = row
            assignment = Assignment(conversation and conversation.hex(), ARMS[arm])
            update = "UPDATE answers SET score = ? WHERE day = ? AND id = ?"
            return update, (day, _packed(response)), experiment.hex(), assignment, score
        row = self._database.execute(
            "SELECT experiment, conversation, arm, score FROM responses WHERE id = ?", (response,)
        ).fetchone()
        if row is None:
            return None
        experiment, conversation, arm, score = row
        update = "UPDATE responses SET score = ? WHERE id = ?"
        return update, (response,), experiment, Assignment(conversation, arm), score

    def _charge(
        self, entry: Entry, experiment: str, now: float, changes: dict[Key, Moments]
    ) -> None:
        """Charge the conversation; what that adds to the totals is added to `changes`."""
        execute = self._database.execute
        conversation, arm = entry.assignment.conversation, entry.assignment.arm
        if entry.response is not None:
            execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, NULL)",
                (
                    int(now // _DAY),
                    _packed(entry.response),
                    bytes.fromhex(experiment),
                    conversation and bytes.fromhex(conversation),
                    ARMS.index(arm),
                ),
            )
        for measure, (count, total) in entry.measures.items():
            change = Moments.of(count, total)
            if conversation is not None:
                place = (experiment, conversation, measure)
                before = execute(
                    "SELECT count, total FROM conversations "
                    "WHERE experiment = ? AND conversation = ? AND measure = ?",
                    place,
                ).fetchone() or (0.0, 0.0)
                after = (before[0] + count, before[1] + total)
                execute(
                    "REPLACE INTO conversations VALUES (?, ?, ?, ?, ?, ?)", (*place, *after, now)
                )
                change = Moments.of(*after) - Moments.of(*before)
            changes[arm, measure] = changes.get((arm, measure), Moments()) + change

    def _add(self, changes: Mapping[Key, Moments], experiment: str) -> None:
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
        execute("DELETE FROM answers WHERE day < ?", (int(now // _DAY) - int(FEEDBACK_DAYS),))
        execute("DELETE FROM responses WHERE seen_at < ?", (now - FEEDBACK_DAYS * _DAY,))
        execute("DELETE FROM conversations WHERE seen_at < ?", (now - IDLE_DAYS * _DAY,))


def _connect(path: Path, patience_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=patience_s, isolation_level=None)


def _packed(response: str) -> bytes:
    """A response's id, its digits in half of their length."""
    digits = response.removeprefix("chatcmpl-")
    if _DIGITS.fullmatch(digits):
        return bytes.fromhex(digits)
    return response.encode()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """No other process is in here with the same directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


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
