"""Answering over a connection that may stall or vanish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")

KEEP_ALIVE_SECONDS = 15.0
_KEEP_ALIVE = b": keep-alive\n\n"
_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


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
    """Cancel `work` when the client goes, or when the block is left before it is done.

    Yields the watch, which is done once the client has gone. Leaving waits for `work`, so that
    the engine's request is aborted by then.
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
            work.exception()  # whoever left the block early did not want it


class Outbox:
    """Bytes on their way to one client.

    Whoever puts never waits: what a slow client has not taken is bounded by the request's
    allowance, and all that gathered meanwhile leaves in one write.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._ready = asyncio.Event()
        self._closed = False
        self._quiet = True
        self._timer = self._schedule()

    def put(self, part: bytes) -> None:
        if part:
            self._quiet = False
            self._parts.append(part)
            self._ready.set()

    def close(self) -> None:
        """Nothing more will be put."""
        self._timer.cancel()
        self._closed = True
        self._ready.set()

    async def drain(self) -> AsyncIterator[bytes]:
        """What was put, joined, as it comes; ends after `close`."""
        while self._parts or not self._closed:
            await self._ready.wait()
            self._ready.clear()
            if self._parts:
                taken = b"".join(self._parts)
                self._parts.clear()
                yield taken

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

    `produce` is given the outbox's `put` and returns when all is said. A failure before the first
    event is an ordinary error response, made by `respond`; a later one becomes the last event,
    made by `last_event`.
    """

    def __init__(
        self,
        produce: Callable[[Callable[[bytes], None]], Coroutine[Any, Any, None]],
        respond: Callable[[BaseException], Response],
        last_event: Callable[[BaseException], bytes],
    ) -> None:
        super().__init__()
        self._produce = produce
        self._respond = respond
        self._last_event = last_event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        outbox = Outbox()
        work = asyncio.create_task(self._produce(outbox.put))
        work.add_done_callback(lambda _: outbox.close())
        async with _watched(receive, work) as watch:
            started = False
            async for part in outbox.drain():
                if not started:
                    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                    started = True
                await send({"type": "http.response.body", "body": part, "more_body": True})
            if watch.done():
                return
            error = work.exception()
            if error is not None and not started:
                await self._respond(error)(scope, receive, send)
                return
            last = b"" if error is None else self._last_event(error)
            await send({"type": "http.response.body", "body": last, "more_body": False})
