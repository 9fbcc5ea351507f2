"""An experiment's sums in Postgres, for servers on several machines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ponder.environment.urls import without_password
from ponder.experiment.store import START_SECONDS, Rows, StateError, Statements, Store

ANSWER_SECONDS = 5.0
"""The most that one transaction may take; others wait for it."""
_BATCH_SECONDS = 3600.0  # how long the name of a batch is kept
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS ponder_schema (version INTEGER NOT NULL);
INSERT INTO ponder_schema SELECT 1 WHERE NOT EXISTS (SELECT FROM ponder_schema);
CREATE TABLE IF NOT EXISTS experiments (
  id TEXT PRIMARY KEY, settings TEXT NOT NULL UNIQUE, started_at DOUBLE PRECISION NOT NULL
);
CREATE TABLE IF NOT EXISTS totals (
  experiment TEXT, arm TEXT, measure TEXT, conversations DOUBLE PRECISION NOT NULL,
  count DOUBLE PRECISION NOT NULL, total DOUBLE PRECISION NOT NULL,
  squares DOUBLE PRECISION NOT NULL, products DOUBLE PRECISION NOT NULL,
  count_squares DOUBLE PRECISION NOT NULL, PRIMARY KEY (experiment, arm, measure)
);
CREATE TABLE IF NOT EXISTS conversations (
  experiment TEXT, conversation TEXT, measure TEXT, count DOUBLE PRECISION NOT NULL,
  total DOUBLE PRECISION NOT NULL, seen_at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (experiment, conversation, measure)
);
CREATE INDEX IF NOT EXISTS conversations_by_age ON conversations (seen_at);
CREATE TABLE IF NOT EXISTS answers (
  day INTEGER, id BYTEA, experiment BYTEA NOT NULL, conversation BYTEA, arm SMALLINT NOT NULL,
  score DOUBLE PRECISION, PRIMARY KEY (day, id)
);
CREATE TABLE IF NOT EXISTS batches (name TEXT PRIMARY KEY, written_at DOUBLE PRECISION NOT NULL);
"""


class PostgresStore(Store):
    """Keeps the sums in tables of the first schema of the connection's search path.

    It makes missing tables. After a broken connection, the next transaction opens another one. If
    it breaks during a commit, the commit may or may not have happened: the batch's name, written
    with it, tells.
    """

    def __init__(self, url: str, settings: str) -> None:
        """Raises `StateError`, also where psycopg is missing."""
        try:
            import psycopg
        except ImportError as error:
            raise StateError(
                "--state in Postgres needs psycopg: pip install 'ponder[shared]', or keep the "
                "savings in a file"
            ) from error
        self._psycopg = psycopg
        self._url = url
        self._shown = without_password(url)
        self._connection: Any = None
        try:
            with self._within(START_SECONDS) as connection, connection.transaction():
                self._make_tables(connection.cursor())
                self._begin(_Statements(connection.cursor()), settings)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[Statements]:
        """A transaction that excludes other writers, but no readers."""
        with self._within(ANSWER_SECONDS) as connection, connection.transaction():
            cursor = connection.cursor()
            cursor.execute("LOCK TABLE totals IN SHARE ROW EXCLUSIVE MODE")
            yield _Statements(cursor)

    @contextmanager
    def _reading(self) -> Iterator[Statements]:
        with self._within(ANSWER_SECONDS) as connection:
            yield _Statements(connection.cursor())

    @contextmanager
    def _within(self, seconds: float) -> Iterator[Any]:
        """A connection that is cut after `seconds`: libpq itself would wait for ever."""
        psycopg = self._psycopg
        try:
            if self._connection is None or self._connection.closed:
                self._connection = psycopg.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=max(2, round(seconds)),
                    client_encoding="utf8",  # else text is bytes where a database has no encoding
                    prepare_threshold=None,  # poolers give each transaction another connection
                )
            with _cutting(self._connection.fileno(), seconds):
                yield self._connection
        except psycopg.Error as error:
            self.close()
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise StateError(
                f"cannot use the state in {self._shown} ({said[0]}): {_remedy(psycopg, error)}"
            ) from error

    def _make_tables(self, cursor: Any) -> None:
        # If servers start together, one of them makes the tables.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('ponder'))")
        for statement in filter(str.strip, _SCHEMA.split(";\n")):
            cursor.execute(statement)
        (version,) = cursor.execute("SELECT version FROM ponder_schema").fetchone()
        if version > _SCHEMA_VERSION:
            raise StateError(
                f"the state in {self._shown} has format {version} and this version of Ponder "
                f"reads {_SCHEMA_VERSION}: choose another database"
            )

    def _is_new(self, statements: Statements, name: str, now: float) -> bool:
        found = statements.execute(
            "INSERT INTO batches VALUES (?, ?) ON CONFLICT DO NOTHING RETURNING name", (name, now)
        )
        return found.fetchone() is not None

    def _prune(self, statements: Statements, now: float) -> None:
        super()._prune(statements, now)
        statements.execute("DELETE FROM batches WHERE written_at < ?", (now - _BATCH_SECONDS,))


class _Statements:
    """A cursor of psycopg, which has its own placeholders."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def execute(self, statement: str, values: Sequence[object] = (), /) -> Rows:
        rows: Rows = self._cursor.execute(statement.replace("?", "%s"), values)
        return rows

    def executemany(self, statement: str, rows: Iterable[Sequence[object]], /) -> None:
        self._cursor.executemany(statement.replace("?", "%s"), rows)


@contextmanager
def _cutting(descriptor: int, seconds: float) -> Iterator[None]:
    """End the connection if this block takes longer than `seconds`."""
    lock, over = threading.Lock(), False

    def cut() -> None:
        with lock:
            if over:  # the descriptor may belong to another file by now
                return
            with suppress(OSError), socket.socket(fileno=socket.dup(descriptor)) as end:
                end.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over = True


def _remedy(psycopg: Any, error: Exception) -> str:
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return "let its user make tables there (GRANT CREATE ON SCHEMA)"
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "name the primary server instead of a read-only copy"
    if isinstance(error, psycopg.OperationalError):
        return "see that it runs, can be reached from here and lets this user in"
    return "name another database with --state"
