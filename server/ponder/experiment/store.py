"""Keeps the sums of conversations' costs and ratings, in any database.

The estimator needs only six sums per arm and measure (`totals`). A conversation's own sums are kept
while it may go on (`conversations`), because its part in the squares grows with it. A request that
names no conversation counts as one by itself, and leaves some forty bytes by which it can be rated
(`answers`). Names are pseudonyms, and no text is kept. Processes may share a database: each batch
is one transaction, and all of them add to the same conversations.
"""

from __future__ import annotations

import re
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from ponder.errors import SetupError
from ponder.experiment.holdout import ARMS, Arm, Assignment
from ponder.experiment.moments import Moments

START_SECONDS = 10.0  # to wait for a locked database at the start,
LOCK_SECONDS = 0.5  # and afterwards, when others wait for this process
FEEDBACK_DAYS = 7.0  # how long a response can be rated
IDLE_DAYS = 30.0  # a conversation that goes on after this counts as another one
DAY = 86_400.0
_DIGITS = re.compile(r"[0-9a-f]{32}")
_AT_ONCE = 250  # conversations in one query

Key = tuple[Arm, str]
"""(arm, measure)"""


class StateError(SetupError):
    """The state that servers keep or share cannot be used; the message says how to mend it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A charge to a conversation, or to a request without one: (count, total) by measure.

    `response` is the id under which it can be rated; None if it cannot.
    """

    assignment: Assignment
    measures: Mapping[str, tuple[float, float]]
    response: str | None = None


class Rows(Protocol):
    """The rows that a statement returned."""

    def fetchone(self) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


class Statements(Protocol):
    """A transaction, in SQL that both databases know; values replace question marks."""

    def execute(self, statement: str, values: Sequence[object] = (), /) -> Rows: ...
    def executemany(self, statement: str, rows: Iterable[Sequence[object]], /) -> object: ...


@dataclass(frozen=True, slots=True)
class Response:
    """A response that can be rated: the statement that rates it, and its rating so far."""

    update: str
    key: tuple[object, ...]
    experiment: str
    assignment: Assignment
    score: float | None


class Store(ABC):
    """An open database, and the experiment of one set of settings in it.

    `started_at` is when the experiment began, in seconds since 1970. Methods raise only
    `StateError`, and have then written nothing. A store belongs to one thread.
    """

    experiment: str
    started_at: float
    _prune_at = 0.0

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Statements]:
        """An atomic, exclusive transaction: nothing changes between its reads and its writes."""

    @abstractmethod
    def _reading(self) -> AbstractContextManager[Statements]:
        """Statements that read what all processes have written so far."""

    @abstractmethod
    def close(self) -> None: ...

    def write(self, batch: Sequence[Entry], name: str | None = None) -> None:
        """Write the batch in one transaction, unless a batch of this `name` was written before."""
        now = time.time()
        with self._transaction() as statements:
            if name is not None and not self._is_new(statements, name, now):
                return
            self._remember(statements, batch, now)
            self._charge(statements, batch, self.experiment, now)
            if now >= self._prune_at:
                self._prune(statements, now)
                self._prune_at = now + 3600

    def totals(self) -> Mapping[Key, Moments]:
        """The sums of this experiment over all processes."""
        with self._reading() as statements:
            rows = statements.execute(
                "SELECT arm, measure, conversations, count, total, squares, products, "
                "count_squares FROM totals WHERE experiment = ?",
                (self.experiment,),
            )
            return {(arm, measure): Moments(*row) for arm, measure, *row in rows}

    def rate(self, response: str, score: float) -> bool:
        """Give a response its score, replacing an earlier one; False for an unknown response."""
        now = time.time()
        with self._transaction() as statements:
            found = self._find(statements, response, now)
            if found is None:
                return False
            statements.execute(found.update, (score, *found.key))
            more = (1.0, score) if found.score is None else (0.0, score - found.score)
            if found.assignment.conversation is None and found.score is not None:
                change = Moments.of(1.0, score) - Moments.of(1.0, found.score)
                key: Key = (found.assignment.arm, "feedback")
                self._add(statements, {key: change}, found.experiment)
            else:
                entry = Entry(found.assignment, {"feedback": more})
                self._charge(statements, [entry], found.experiment, now)
        return True

    # -- in a transaction --------------------------------------------------------------------

    def _begin(self, statements: Statements, settings: str) -> None:
        """Select the experiment of these settings, and begin it if it does not exist."""
        statements.execute(
            "INSERT INTO experiments VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (secrets.token_hex(4), settings, time.time()),
        )
        self.experiment, self.started_at = statements.execute(
            "SELECT id, started_at FROM experiments WHERE settings = ?", (settings,)
        ).fetchone()

    def _is_new(self, statements: Statements, name: str, now: float) -> bool:
        """Whether no batch of this name was written; always, if a failed commit writes nothing."""
        return True

    def _find(self, statements: Statements, response: str, now: float) -> Response | None:
        today = int(now // DAY)
        # Tomorrow too: the clock of the process that wrote it may be ahead.
        days = [today - ago for ago in range(-1, int(FEEDBACK_DAYS) + 1)]
        row = statements.execute(
            "SELECT day, experiment, conversation, arm, score FROM answers "
            f"WHERE day IN ({_marks(days)}) AND id = ?",
            (*days, _packed(response)),
        ).fetchone()
        if row is None:
            return None
        day, experiment, conversation, arm, score = row
        assignment = Assignment(conversation and conversation.hex(), ARMS[arm])
        update = "UPDATE answers SET score = ? WHERE day = ? AND id = ?"
        return Response(update, (day, _packed(response)), experiment.hex(), assignment, score)

    def _remember(self, statements: Statements, batch: Sequence[Entry], now: float) -> None:
        """Keep the responses that can be rated."""
        day, experiment = int(now // DAY), bytes.fromhex(self.experiment)
        statements.executemany(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, NULL) ON CONFLICT DO NOTHING",
            [
                (
                    day,
                    _packed(entry.response),
                    experiment,
                    entry.assignment.conversation and bytes.fromhex(entry.assignment.conversation),
                    ARMS.index(entry.assignment.arm),
                )
                for entry in batch
                if entry.response is not None
            ],
        )

    def _charge(
        self, statements: Statements, batch: Sequence[Entry], experiment: str, now: float
    ) -> None:
        """Charge the conversations, and add the changes of their sums to the totals."""
        changes: dict[Key, Moments] = {}
        more: dict[tuple[str, str], tuple[Arm, float, float]] = {}  # by conversation and measure
        for entry in batch:
            conversation, arm = entry.assignment.conversation, entry.assignment.arm
            for measure, (count, total) in entry.measures.items():
                if conversation is None:
                    _change(changes, (arm, measure), Moments.of(count, total))
                else:
                    _, counted, summed = more.get((conversation, measure), (arm, 0.0, 0.0))
                    more[conversation, measure] = (arm, counted + count, summed + total)
        before = self._sums(statements, {conversation for conversation, _ in more}, experiment)
        rows = []
        for (conversation, measure), (arm, count, total) in more.items():
            was = before.get((conversation, measure), (0.0, 0.0))
            after = (was[0] + count, was[1] + total)
            rows.append((experiment, conversation, measure, *after, now))
            _change(changes, (arm, measure), Moments.of(*after) - Moments.of(*was))
        statements.executemany(
            "INSERT INTO conversations VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (experiment, conversation, measure) DO UPDATE SET "
            "count = excluded.count, total = excluded.total, seen_at = excluded.seen_at",
            rows,
        )
        self._add(statements, changes, experiment)

    def _sums(
        self, statements: Statements, conversations: Iterable[str], experiment: str
    ) -> dict[tuple[str, str], tuple[float, float]]:
        """The charges to conversations so far: (count, total) by conversation and measure."""
        found, names = {}, sorted(conversations)
        for start in range(0, len(names), _AT_ONCE):
            some = names[start : start + _AT_ONCE]
            for conversation, measure, count, total in statements.execute(
                "SELECT conversation, measure, count, total FROM conversations "
                f"WHERE experiment = ? AND conversation IN ({_marks(some)})",
                (experiment, *some),
            ):
                found[conversation, measure] = (count, total)
        return found

    def _add(self, statements: Statements, changes: Mapping[Key, Moments], experiment: str) -> None:
        sums = ("conversations", "count", "total", "squares", "products", "count_squares")
        statements.executemany(
            "INSERT INTO totals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (experiment, arm, measure) DO UPDATE SET "
            + ", ".join(f"{name} = totals.{name} + excluded.{name}" for name in sums),
            [(experiment, *key, *change.row) for key, change in changes.items()],
        )

    def _prune(self, statements: Statements, now: float) -> None:
        """Delete rows that can no longer change, once an hour; their part in the totals stays."""
        oldest = int(now // DAY) - int(FEEDBACK_DAYS)
        statements.execute("DELETE FROM answers WHERE day < ?", (oldest,))
        statements.execute("DELETE FROM conversations WHERE seen_at < ?", (now - IDLE_DAYS * DAY,))


def _change(changes: dict[Key, Moments], key: Key, change: Moments) -> None:
    changes[key] = changes.get(key, Moments()) + change


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _packed(response: str) -> bytes:
    """A response's id in bytes; an id of hexadecimal digits takes half their length."""
    digits = response.removeprefix("chatcmpl-")
    if _DIGITS.fullmatch(digits):
        return bytes.fromhex(digits)
    return response.encode()
