"""The state file: an experiment's sums in SQLite, for the processes of one machine."""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from ponder.experiment.holdout import Assignment
from ponder.experiment.store import (
    DAY,
    FEEDBACK_DAYS,
    LOCK_SECONDS,
    START_SECONDS,
    Response,
    StateError,
    Statements,
    Store,
)

logger = logging.getLogger(__name__)

MEMORY = Path(":memory:")
_SCHEMA_VERSION = 2
# Processes of version 1 may write beside this one: the tables that they know do not change.
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
"""The tables that each version added. `responses` is version 1's form of `answers`: it is read
until its last row is too old."""


class FileStore(Store):
    """Keeps the sums in a file.

    A deleted file is written again with all its content; a replaced file is used from then on.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self._path = path
        self._settings = settings
        self._open(START_SECONDS)

    def close(self) -> None:
        self._database.close()

    @contextmanager
    def _transaction(self) -> Iterator[Statements]:
        with self._reading(), _alone_in(self._database):
            yield self._database

    @contextmanager
    def _reading(self) -> Iterator[Statements]:
        try:
            self._check_file()
            yield self._database
        except sqlite3.Error as error:
            raise StateError(
                f"cannot use the state in {self._path} ({error}): {_remedy(error)}"
            ) from error

    def _find(self, statements: Statements, response: str, now: float) -> Response | None:
        found = super()._find(statements, response, now)
        if found is not None:
            return found
        row = statements.execute(
            "SELECT experiment, conversation, arm, score FROM responses WHERE id = ?", (response,)
        ).fetchone()
        if row is None:
            return None
        experiment, conversation, arm, score = row
        update = "UPDATE responses SET score = ? WHERE id = ?"
        return Response(update, (response,), experiment, Assignment(conversation, arm), score)

    def _prune(self, statements: Statements, now: float) -> None:
        super()._prune(statements, now)
        statements.execute("DELETE FROM responses WHERE seen_at < ?", (now - FEEDBACK_DAYS * DAY,))

    # -- the file ----------------------------------------------------------------------------

    def _open(self, patience_s: float) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = _connect(self._path, patience_s)
            with _alone(self._path.parent):  # SQLite does not wait if another process does this
                database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
            with _alone_in(database):
                self._upgrade(database)
                self._begin(database, self._settings)
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
        """The identity of the file at the path; None where there is none, or for memory."""
        if self._path == MEMORY:
            return None
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        return stat.st_dev, stat.st_ino

    def _check_file(self) -> None:
        """Open the file at the path again, if it is no longer the one that was opened."""
        found = self._identity()
        if found == self._file:
            return
        deleted = self._database  # a deleted file exists as long as it is open
        if found is None and self._restore(deleted):
            logger.error("the state file %s was deleted: wrote it again", self._path)
        else:
            logger.error("the state file %s was replaced: using the new one", self._path)
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
                # They belong to the deleted file: SQLite would take them for ours.
                for ending in ("-wal", "-shm"):
                    self._path.with_name(self._path.name + ending).unlink(missing_ok=True)
                os.link(beside, self._path)
        except OSError as error:
            raise sqlite3.OperationalError(str(error)) from error
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
        return True


def _connect(path: Path, patience_s: float) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=patience_s, isolation_level=None)


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Exclude all other processes that use the same directory."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _alone_in(database: sqlite3.Connection) -> Iterator[None]:
    """An atomic, exclusive transaction: nothing changes between its reads and its writes."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


def _remedy(error: sqlite3.Error) -> str:
    match getattr(error, "sqlite_errorcode", None):
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another process holds it; try again in a moment"
        case sqlite3.SQLITE_FULL:
            return "make room on its disk; until then only ratings are lost"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return (
                "it is damaged; restore a copy of it, or stop all servers, move the file away and "
                "start the savings again"
            )
    return "mend the file, or restart with another --state"
