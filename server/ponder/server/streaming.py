"""Answering over a connection that may stall or vanish."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")

KEEP_ALIVE_SECONDS = 15.0
_PIECE_BYTES = 1 << 18
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",
}


class ClientGone(Exception):
    """The client closed the connection; nobody is left to answer."""


async def run_for_client(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` for as long as the client is there. Raises `ClientGone`."""
    task = asyncio.create_task(work)
    async with _watched(receive, task) as watch:
        await asyncio.wait([task])
        if watch.done():
            raise ClientGone
        return task.result()


@asynccontextmanager
async def _watched(receive: Receive, work: asyncio.Task[Any]) -> AsyncIterator[asyncio.Task[None]]:
    """Cancel `work` when the client goes, or when the block ends before `work` does.

    Yields the watch, a task that is done once the client has gone. The end of the block waits for
    `work`, so that the engine's request is aborted by then.
    """

    async def client_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        work.cancel()

    watch = asyncio.create_task(client_gone())
    try:
        yield watch
    finally:
        watch.cancel()
        work.cancel()
        await asyncio.wait([work])
        if not work.cancelled():
            work.exception()  # marked as retrieved: whoever left the block early did not want it


class LongResponse(Response):
    """A response that writes its parts one after the other, and never joins them."""

    def __init__(
        self, parts: Sequence[bytes | bytearray], headers: Mapping[str, str], media_type: str
    ) -> None:
        size = {"content-length": str(sum(map(len, parts)))}
        super().__init__(headers={**headers, **size}, media_type=media_type)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        for part in _pieces(self._parts):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _pieces(parts: Iterable[bytes | bytearray]) -> Iterator[bytes]:
    """The same bytes, `_PIECE_BYTES` at a time."""
    gathered = bytearray()
    for part in parts:
        for start in range(0, len(part), _PIECE_BYTES):
            gathered += part[start : start + _PIECE_BYTES]
            if len(gathered) >= _PIECE_BYTES:
                yield bytes(gathered)
                gathered.clear()
    yield bytes(gathered)


FLOW = "ponder.flow"
"""An ASGI extension: `paused` says whether a write would wait for the client at this moment."""


def flow(paused: Callable[[], bool]) -> dict[str, Any]:
    """The extension, for the scope of a connection that can tell."""
    return {FLOW: {"paused": paused}}


def _paused(scope: Scope) -> Callable[[], bool]:
    """The scope's `paused`; without the extension every write may wait."""
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    paused: Callable[[], bool] = extensions.get(FLOW, {}).get("paused", lambda: True)
    return paused


class Outbox:
    """Bytes on their way to one client.

    `put` never waits. A client that keeps up (its connection is not `paused`) gets its bytes at
    once, without a task. For a slow client bytes gather, bounded by the request's allowance, and
    leave in one write. `started` says that the response has begun; `headers` is called then.
    """

    def __init__(
        self, send: Send, headers: Callable[[], Mapping[str, str]], paused: Callable[[], bool]
    ) -> None:
        self.started = False
        self._send = send
        self._headers = headers
        self._paused = paused
        self._parts: list[bytes] = []
        self._writer: asyncio.Task[None] | None = None  # while a client is slow
        self._quiet = True
        self._timer = self._schedule()

    def put(self, part: bytes) -> None:
        if not part:
            return
        self._quiet = False
        self._parts.append(part)
        if self._writer is not None and not self._writer.done():
            return
        while self._parts:
            if self._paused():
                self._writer = asyncio.create_task(self._write())
                return
            for _ in self._send(self._next()).__await__():
                raise RuntimeError("a connection that is not paused had its writer wait")

    async def close(self, last: bytes) -> None:
        """Wait until all is written, `last` at the end."""
        if self._writer is not None:
            await self._writer
        if not self.started:
            await self._send(self._start())
        await self._send({"type": "http.response.body", "body": last, "more_body": False})

    def end(self) -> None:
        """Nothing more will be put: silence needs no filling."""
        self._timer.cancel()

    def abandon(self) -> None:
        """Drop what is not written yet: nobody waits for it."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write(self) -> None:
        while self._parts:
            await self._send(self._next())

    def _next(self) -> Message:
        """The response's start first, then all parts that have gathered."""
        if not self.started:
            return self._start()
        taken = b"".join(self._parts)
        self._parts.clear()
        return {"type": "http.response.body", "body": taken, "more_body": True}

    def _start(self) -> Message:
        self.started = True
        headers = {**_HEADERS, **self._headers()}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": encoded}

    def _schedule(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(KEEP_ALIVE_SECONDS, self._fill_silence)

    def _fill_silence(self) -> None:
        """A comment keeps proxies from closing a connection on which nothing happens."""
        if self._quiet:
            self.put(_KEEP_ALIVE)
        self._quiet = True
        self._timer = self._schedule()


class EventStream(Response):
    """A response of server-sent events.

    `produce` calls the outbox's `put` and returns after the last event. `respond` makes a failure
    before the first event an ordinary error response; `last_event` makes a later failure the last
    event. `headers` is called when the first event is there.
    """

    def __init__(
        self,
        produce: Callable[[Callable[[bytes], None]], Coroutine[Any, Any, None]],
        respond: Callable[[BaseException], Response],
        last_event: Callable[[BaseException], bytes],
        headers: Callable[[], Mapping[str, str]],
    ) -> None:
        super().__init__()
        self._late_headers = headers
        self._produce = produce
        self._respond = respond
        self._last_event = last_event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox = Outbox(send, self._late_headers, _paused(scope))
        work = asyncio.create_task(self._produce(outbox.put))
        work.add_done_callback(lambda _: outbox.end())
        try:
            async with _watched(receive, work) as watch:
                await asyncio.wait([work])
                if watch.done():
                    return
                error = work.exception()
                if error is not None and not outbox.started:
                    await self._respond(error)(scope, receive, send)
                else:
                    await outbox.close(b"" if error is None else self._last_event(error))
        finally:
            outbox.abandon()
