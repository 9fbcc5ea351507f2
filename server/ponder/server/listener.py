"""Bounds what a connection may cost before a request is there and after it is answered.

uvicorn bounds neither the head of a request nor the time that a client takes to send or to read.
`Connection` does, on top of uvicorn's own protocol. It overrides uvicorn's private methods:
`tests/server/http/test_uvicorn_contract.py` fails when an upgrade changes them. The `Listener`
looks at all connections once a second, so that writing tokens costs nothing more.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import socket
import uuid
from typing import TYPE_CHECKING, Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from ponder.protocol.errors import ApiError
from ponder.server.bounds import Bounds, affordable
from ponder.server.rarely import Rarely
from ponder.server.streaming import flow

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ponder.server.service import Service

logger = logging.getLogger(__name__)

_LINGERING = 64  # refused connections that stay open to read why
_ENDED_AT_ONCE = 32
_TLS = b"\x16\x03"  # how a handshake begins: no HTTP request does
REASONS = (
    "malformed_request",
    "tls",
    "uri_too_long",
    "headers_too_large",
    "request_timeout",
    "slow_reader",
    "evicted",
    "too_many_connections",
    "descriptors",
)
"""Why connections are ended: the label of their metric."""


class Listener:
    """Every connection of one server."""

    def __init__(self, service: Service, limits: Bounds | None = None) -> None:
        self.limits = limits or affordable(service.settings.max_running)
        self.open: set[Connection] = set()
        # Connections that wait for a request or for the rest of it; the longest waiting first.
        self.waiting: dict[Connection, None] = {}
        self._log = Rarely(logger)
        self._metrics = service.metrics
        self._metrics.connections.set_function(lambda: len(self.open))
        self._metrics.may_refuse(REASONS)
        self._sweeping = False

    def config(self, app: ASGIApp, **options: Any) -> uvicorn.Config:
        """How uvicorn serves `app` on these connections."""
        return uvicorn.Config(
            app,
            http=functools.partial(Connection, self),  # type: ignore[arg-type]
            ws="none",
            timeout_keep_alive=self.limits.idle_seconds,
            lifespan="off",
            access_log=False,
            server_header=False,
            **options,
        )

    def accept(self, connection: Connection) -> None:
        """Take a new connection; where there is no room, close the one that waits longest."""
        if not self._sweeping:
            self._sweeping = True
            self._sweep(connection.loop)
        self.open.add(connection)
        excess = len(self.open) - self.limits.connections
        if excess > 0 and self.waiting:
            next(iter(self.waiting)).cut("evicted", "others need its place")
        elif excess > _LINGERING:
            connection.cut("too_many_connections", "all connections are busy")
            return
        elif excess > 0:
            connection.refuse(_full(self.limits.connections))
            return
        self.waiting[connection] = None

    def ended(
        self, connection: Connection, reason: str, why: str, error: ApiError | None = None
    ) -> None:
        """Count and log that the server ends a connection."""
        self._metrics.refused(reason)
        fields: dict[str, object] = {"reason": reason, "peer": connection.peer}
        if error is not None:
            self._metrics.failed(error.code, error.status)
            fields |= {"status": error.status, "code": error.code, "request_id": connection.id}
        self._log.warning(
            reason, "ended the connection from %s: %s", connection.peer, why, fields=fields
        )

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        ended, now = 0, loop.time()
        for connection in list(self.open):
            ended += connection.look(now)
            if ended == _ENDED_AT_ONCE:
                break  # each is a request's end: a thousand together would hold up all others
        pause = self.limits.sweep_seconds / (20 if ended == _ENDED_AT_ONCE else 1)
        loop.call_later(pause, self._sweep, loop)
        try:
            socket.socket().close()
        except OSError as error:
            self._metrics.refused("descriptors")
            self._log.warning(
                "descriptors",
                "no descriptor is left (%s) with %d connections open: new ones are closed without "
                "an answer. Raise the limit of open files (ulimit -n)",
                error.strerror,
                len(self.open),
            )
            for idle in list(self.waiting)[: 1 + len(self.waiting) // 8]:
                idle.cut("descriptors", "its descriptor is needed")


class Connection(HttpToolsProtocol):
    """uvicorn's connection, within bounds.

    Of the request that is being read, `_asked_at` is when its first byte came, and `_loose` counts
    the bytes since the last one of its body: the parser collects them.
    """

    def __init__(self, listener: Listener, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.id = ""  # the refusal's
        self.url = b""
        self._listener = listener
        self._limits = listener.limits
        self._waits_since = self.loop.time()
        self._asked_at: float | None = None
        self._begun = False
        self._loose = 0
        self._deaf = False
        self._lingers_since: float | None = None
        self._paused_at: float | None = None
        self._unread = 0
        self._taken_at = 0.0

    @property
    def peer(self) -> str:
        return f"{self.client[0]}:{self.client[1]}" if self.client else "a socket"

    # What the event loop calls.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._listener.accept(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._listener.open.discard(self)
        self._listener.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._deaf:
            return
        if self._asked_at is None:
            self._asked_at = self.loop.time()
        self._loose += len(data)
        try:
            self.parser.feed_data(data)
            if self._loose > self._limits.head_bytes:
                self.refuse(self._too_large())
        except httptools.HttpParserUpgrade:
            pass  # what is not taken up is ignored (RFC 9110, section 7.8)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, ApiError):
                self.refuse(error.__context__)
            elif data.startswith(_TLS) and not self.url:
                tls = _malformed("it speaks TLS, and this port plain HTTP: use http://")
                self.refuse(tls, "tls")
            else:
                self.refuse(_malformed(f"this is no HTTP request ({error})"))

    def pause_writing(self) -> None:
        self._paused_at = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._paused_at = None
        super().resume_writing()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._begun = True
        if self._asked_at is None:  # right behind another one, in the same bytes
            self._asked_at = self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        size = sum(len(name) + len(value) + 4 for name, value in self.headers)
        if max(size, len(self.url)) > self._limits.head_bytes:
            raise self._too_large()
        version = self.parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise _malformed(f"this server speaks HTTP/1.1, and not HTTP/{version}")
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (hosts == 0 and version == "1.1"):
            raise _malformed(f"a request has one Host header, and this has {hosts}")
        super().on_headers_complete()
        if self.parser.should_upgrade():  # it reads no request after this one
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._loose = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._begun = False
        self._asked_at = None
        self._loose = 0
        if self.cycle.response_complete:
            self._waits_since = self.loop.time()
        else:
            self._listener.waiting.pop(self, None)
        super().on_message_complete()
        self.cycle.more_body = False

    # What the cycle of a request and its response calls.

    def on_response_complete(self) -> None:
        self._waits_since = self.loop.time()
        if self._asked_at is not None:
            self._asked_at = self._waits_since
        if not self.pipeline:
            self._listener.waiting[self] = None
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.scope["extensions"] = flow(lambda: self.flow.write_paused)
        if cycle.scope["http_version"] == "1.0":
            app = functools.partial(_until_closed, app, cycle)
        super()._start_asgi_task(cycle, app)

    # What the listener calls.

    def look(self, now: float) -> bool:
        """End the connection if its client takes too long; returns whether it did."""
        limits = self._limits
        if self._lingers_since is not None:
            if now - self._lingers_since > limits.linger_seconds:
                self.transport.abort()
            return False
        if why := self._is_unread(now):
            self.cut("slow_reader", why)
            return True
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and (not self.cycle.more_body or self.flow.read_paused):
            return False  # the server is at work
        if self.transport.is_closing():
            return False
        if self._asked_at is None or not self._begun:
            if now - (self._asked_at or self._waits_since) > limits.idle_seconds:
                self.transport.close()
        elif now - self._asked_at > limits.request_seconds:
            self.refuse(_too_late(limits.request_seconds))
            return True
        return False

    def _is_unread(self, now: float) -> str:
        """Why the connection counts as unread; empty where its client reads."""
        before, self._unread = self._unread, self.transport.get_write_buffer_size()
        finished = self.cycle is not None and self.cycle.response_complete
        # While the server goes on writing, what is unread may grow although the client reads.
        if self._unread < before or not before or not (finished or self._paused_at):
            self._taken_at = now
        if not self._unread:
            return ""
        if now - self._taken_at > self._limits.stall_seconds:
            return f"it took nothing for {self._limits.stall_seconds:g} s"
        if self._paused_at is not None and now - self._paused_at > self._limits.slow_seconds:
            return f"it took too little in {self._limits.slow_seconds:g} s"
        return ""

    def cut(self, reason: str, why: str) -> None:
        """Close at once and drop what is unread."""
        self._listener.ended(self, reason, why)
        self._listener.waiting.pop(self, None)
        self._deaf = True
        self.transport.abort()

    def refuse(self, error: ApiError, reason: str = "") -> None:
        """Answer with an error, where an answer is due, and close."""
        self.id = f"req-{uuid.uuid4().hex}"
        self._listener.ended(self, reason or error.code, str(error), error)
        self._deaf = True
        cycle = self.cycle
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            cycle.keep_alive = False  # an earlier request is being answered: end after that
            return
        if cycle is not None and cycle.more_body:
            if self.pipeline or cycle.response_started:
                self.transport.abort()
                return
            cycle.disconnected = True
            cycle.message_event.set()
        self._lingers_since = self.loop.time()
        self.transport.write(_response(error, self.id))
        self.transport.write_eof()

    def _too_large(self) -> ApiError:
        most = self._limits.head_bytes
        if 2 * len(self.url) > self._loose:
            return ApiError(414, "uri_too_long", f"the URL is longer than {most} bytes: shorten it")
        return ApiError(
            431, "headers_too_large", f"the headers are longer than {most} bytes: send fewer"
        )


async def _until_closed(
    app: ASGIApp, cycle: RequestResponseCycle, scope: Scope, receive: Receive, send: Send
) -> None:
    """For HTTP/1.0, which knows no chunks: a body without a length ends with the connection."""
    framed = False

    async def unchunked(message: Message) -> None:
        nonlocal framed
        if message["type"] == "http.response.start":
            framed = any(name.lower() == b"content-length" for name, _ in message["headers"])
            cycle.chunked_encoding = None if framed else False
        elif not framed:
            cycle.expected_content_length = len(message.get("body", b""))
        await send(message)

    await app(scope, receive, unchunked)


def _response(error: ApiError, request_id: str) -> bytes:
    body = json.dumps(error.body()).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        "x-request-id": request_id,
        **error.headers,
    }
    lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
    return b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body])


def _malformed(message: str) -> ApiError:
    return ApiError(400, "malformed_request", message)


def _too_late(seconds: float) -> ApiError:
    return ApiError(
        408,
        "request_timeout",
        f"the request was not here after {seconds:g} seconds: send it faster",
    )


def _full(connections: int) -> ApiError:
    return ApiError(
        503,
        "too_many_connections",
        f"all {connections} connections of this server are busy: try again in a moment",
        headers={"retry-after": "1"},
    )
