"""A load generator's connection: raw HTTP/1.1, keep-alive, no parsing of what it need not know.

Two cores serve both the server and its client, so whatever the client spends is taken from the
server: a reply is gathered as it comes, and looked at once, when it is complete.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from time import perf_counter
from typing import cast

from .errors import BenchError

_TAIL = 4096
_LAST_CHUNK = b"\n0\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
# A delta with text; the one that only says the role carries an empty content.
_TEXT = re.compile(rb'"(?:reasoning|reasoning_content|content)": ?"[^"]')


@dataclass(frozen=True, slots=True)
class Reply:
    """Times in seconds of `perf_counter`; `first` is the first text of a stream, else None.

    `tail` is the end of the body, where both servers say their usage.
    """

    started: float
    first: float | None
    ended: float
    tail: bytes


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._reply: asyncio.Future[Reply] | None = None
        self._parts: list[bytes] = []
        self._started = 0.0
        self._first: float | None = None
        self._size = 0
        self._needed: int | None = None  # bytes of head and body; None in a chunked reply
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass

    def connection_lost(self, error: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            said = b"".join(self._parts)[-_TAIL:].decode(errors="replace")
            self._reply.set_exception(BenchError(f"the server hung up ({error}); it said: {said}"))

    def close(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def ask(self, payload: bytes) -> asyncio.Future[Reply]:
        assert self._transport is not None
        self._parts, self._size, self._needed = [], 0, None
        self._first = None
        self._reply = asyncio.get_running_loop().create_future()
        self._started = perf_counter()
        self._transport.write(payload)
        return self._reply

    def data_received(self, data: bytes) -> None:
        if not self._parts:
            self._read_head(data)
        self._parts.append(data)
        self._size += len(data)
        if self._needed is None:
            if self._first is None and _TEXT.search(data):
                self._first = perf_counter()
            ended = data.endswith(_LAST_CHUNK) or (
                len(data) < len(_LAST_CHUNK) and b"".join(self._parts[-8:]).endswith(_LAST_CHUNK)
            )
        else:
            ended = self._size >= self._needed
        if ended:
            self._end()

    def _read_head(self, data: bytes) -> None:
        """Both servers send the head in one piece."""
        end = data.find(b"\r\n\r\n")
        length = _LENGTH.search(data, 0, end + 2)
        self._needed = None if length is None else end + 4 + int(length[1])

    def _end(self) -> None:
        assert self._reply is not None
        if self._reply.cancelled():
            return
        whole = b"".join(self._parts)
        if not whole.startswith(b"HTTP/1.1 200"):
            said = whole[-_TAIL:].decode(errors="replace")
            self._reply.set_exception(BenchError(f"the server refused: {said}"))
            return
        reply = Reply(self._started, self._first, perf_counter(), whole[-_TAIL:])
        self._reply.set_result(reply)


async def connect(port: int) -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    return connection
