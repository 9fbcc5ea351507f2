"""Carries every conversation's costs and ratings from the event loop to the state and back."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from ponder.experiment.file import FileStore
from ponder.experiment.moments import Moments
from ponder.experiment.store import Entry, Key, StateError, Store

logger = logging.getLogger(__name__)
T = TypeVar("T")

POSTGRES = ("postgresql://", "postgres://")
BATCH_SECONDS = 0.2
RETRY_SECONDS = 1.0  # after a failure; until then every use of the state fails at once
CLOSING_SECONDS = 5.0  # how long `close` tries to write the last batch
MAX_PENDING = 50_000
"""Entries that may wait for a state that cannot be written, at some 0.7 KB each."""


class Ledger:
    """Takes entries from the event loop and writes them in batches, in a thread of its own.

    One set of `settings` is one experiment: when they change, the sums start again from zero,
    because a mean of costs under two policies is meaningless. A batch that cannot be written is
    kept and retried unchanged; beyond `MAX_PENDING` entries, new ones are lost. `totals` are those
    of the last `refresh`, `failures` counts failed uses of the state, and `lost` the entries that
    were never written. The `state` is a file, or the URL of a Postgres.
    """

    def __init__(self, state: str | Path, settings: str) -> None:
        self._pending: deque[Entry] = deque()
        self._batch: list[Entry] = []  # the thread's: taken from `_pending`, not written yet
        self._name = ""  # the batch's name
        self._timer: asyncio.TimerHandle | None = None
        self._failed: StateError | None = None
        self._retry_at = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self.failures = 0
        self.lost = 0
        self.totals: Mapping[Key, Moments] = {}
        try:
            self._store = self._thread.submit(open_store, state, settings).result()
        except BaseException:
            self._thread.shutdown()
            raise

    @property
    def experiment(self) -> str:
        return self._store.experiment

    @property
    def started_at(self) -> float:
        """When the experiment began, in seconds since 1970."""
        return self._store.started_at

    @property
    def pending(self) -> int:
        """Entries that are not written yet."""
        return len(self._batch) + len(self._pending)

    def record(self, entry: Entry) -> None:
        """Write an entry soon. Never waits; call it from the event loop."""
        if self.pending >= MAX_PENDING:
            if not self.lost:
                logger.error(
                    "%d requests wait to be written to the state: the savings of further ones are "
                    "lost",
                    MAX_PENDING,
                )
            self.lost += 1
            return
        self._pending.append(entry)
        self._write_in(BATCH_SECONDS)

    async def refresh(self) -> Mapping[Key, Moments]:
        """Write our entries, then read the totals of all processes.

        Raises `StateError`; `totals` are renewed all the same if the state can be read.
        """
        return await self._in_thread(self._refresh)

    async def rate(self, response: str, score: float) -> bool:
        """Give a response its score, replacing an earlier one; False for an unknown response.

        Raises `StateError`.
        """

        def write_and_rate() -> bool:
            self._write()  # the response itself may still be pending
            return self._store.rate(response, score)

        return await self._in_thread(write_and_rate)

    def close(self) -> None:
        """Write all pending entries. Nothing can be recorded afterwards."""
        if self._timer is not None:
            self._timer.cancel()
        self._thread.submit(self._write_last).result()
        self._thread.submit(self._store.close).result()
        self._thread.shutdown()

    # -- in the thread -----------------------------------------------------------------------

    def _write(self) -> None:
        """Write all pending entries. Until the next try, raises the error of the last one."""
        if self._failed is not None and time.monotonic() < self._retry_at:
            raise self._failed
        while self._batch or self._pending or self._failed is not None:
            self._write_batch()

    def _write_batch(self) -> None:
        """Write one batch. A failed one is retried unchanged: it may have been written anyway."""
        if not self._batch:
            self._name = secrets.token_hex(8)
            while self._pending:
                self._batch.append(self._pending.popleft())
        try:
            self._store.write(self._batch, self._name)
        except StateError as error:
            if self._failed is None:
                logger.exception(
                    "the savings of %d requests could not be written: the server tries again",
                    len(self._batch),
                )
            self.failures += 1
            self._failed = error
            self._retry_at = time.monotonic() + RETRY_SECONDS
            raise
        if self._failed is not None:
            written = len(self._batch)
            logger.warning("the state can be written again: wrote %d requests", written)
            self._failed = None
        self._batch.clear()

    def _refresh(self) -> Mapping[Key, Moments]:
        failed: StateError | None = None
        try:
            self._write()
        except StateError as error:
            failed = error
        self.totals = self._store.totals()
        if failed is not None:
            raise failed
        return self.totals

    def _write_last(self) -> None:
        until = time.monotonic() + CLOSING_SECONDS
        while True:
            try:
                return self._write()
            except StateError:
                if time.monotonic() > until:
                    self.lost += self.pending
                    logger.error("the savings of %d requests are lost", self.pending)
                    return None
                time.sleep(min(0.1, RETRY_SECONDS))

    # -- in the event loop -------------------------------------------------------------------

    def _write_in(self, seconds: float) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._write_soon, loop)

    def _write_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None

        def write() -> None:
            try:
                self._write()
            except StateError:  # it was logged
                loop.call_soon_threadsafe(self._write_in, RETRY_SECONDS)
            except Exception:
                logger.critical(
                    "the savings of %d requests could not be written; the server tries again with "
                    "the next request: please report the traceback that follows",
                    self.pending,
                    exc_info=True,
                )

        self._thread.submit(write)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except StateError as error:
            if error is not self._failed:
                self.failures += 1
            raise


def open_store(state: str | Path, settings: str) -> Store:
    """Open the store of the savings: a file, or a Postgres by its URL. Raises `StateError`."""
    if str(state).startswith(POSTGRES):
        from ponder.experiment.postgres import PostgresStore

        return PostgresStore(str(state), settings)
    return FileStore(Path(state), settings)
