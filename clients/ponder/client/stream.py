"""Streamed answers: server-sent events in, chunks out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Self

import httpx

from ponder.client.address import transport_errors
from ponder.client.errors import PonderAPIError, error_of_body
from ponder.protocol.finish import Finish
from ponder.protocol.response import ChatCompletionChunk


class EventReader:
    """Reads an event stream from pieces of any size into chunks, until it is `done`."""

    def __init__(self, status: int = 200) -> None:
        self._status = status
        self._rest = b""
        self._data: list[bytes] = []
        self.done = False

    def feed(self, piece: bytes) -> Iterator[ChatCompletionChunk]:
        """The chunks that `piece` completes. Raises `PonderAPIError` on an error event."""
        # Lines end only at \n: str.splitlines, and so httpx's iter_lines, would also break them
        # at U+2028 and the like, which JSON may hold unescaped.
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r")
            if text.startswith(b"data:"):
                self._data.append(text[5:])
            elif not text and self._data:
                event = b"\n".join(self._data)
                self._data = []
                yield from self._read(event)

    def finish(self) -> None:
        """End the stream. Raises `PonderAPIError` if the answer is incomplete."""
        if not self.done:
            message = "the stream ended before the answer did: the server or the connection failed"
            raise PonderAPIError(self._status, "stream_ended", message)

    def _read(self, event: bytes) -> Iterator[ChatCompletionChunk]:
        if event.strip() == b"[DONE]":
            self.done = True
            return
        try:
            payload = json.loads(event)
            if not isinstance(payload, dict) or payload.get("error") is None:
                yield ChatCompletionChunk.model_validate(payload)
                return
        except (ValueError, TypeError, RecursionError) as error:
            message = f"the server sent an event that is no chunk of an answer: {event[:200]!r}"
            raise PonderAPIError(self._status, "invalid_response", message) from error
        raise error_of_body(self._status, payload["error"])


def _id(response: httpx.Response) -> str:
    """The reply's id; where a proxy drops the header, empty until the first chunk has it."""
    return str(response.headers.get("x-request-id", ""))


class ChatStream:
    """The chunks of one answer. Leaving the loop or the `with` early stops the engine.

    Iterating raises `PonderAPIError` when the server reports a failure or the stream is cut.
    """

    def __init__(
        self,
        response: httpx.Response,
        base_url: str,
        finish: Callable[[str, int | None], Finish],
    ) -> None:
        self.id = _id(response)
        self._response = response
        self._base_url = base_url
        self._finish = finish

    def finish(self, choice: int | None = None) -> Finish:
        """As `Ponder.finish`, of this reply; from the loop over it or from another thread."""
        return self._finish(self.id, choice)

    def __iter__(self) -> Iterator[ChatCompletionChunk]:
        reader = EventReader(self._response.status_code)
        try:
            with transport_errors(self._base_url, asking=False):
                for piece in self._response.iter_bytes():
                    for chunk in reader.feed(piece):
                        self.id = self.id or chunk.id
                        yield chunk
                    if reader.done:  # a proxy may break the connection now, or never end it
                        break
        finally:
            self.close()
        reader.finish()

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncChatStream:
    """As `ChatStream`, for `async for` and `async with`."""

    def __init__(
        self,
        response: httpx.Response,
        base_url: str,
        finish: Callable[[str, int | None], Awaitable[Finish]],
    ) -> None:
        self.id = _id(response)
        self._response = response
        self._base_url = base_url
        self._finish = finish

    async def finish(self, choice: int | None = None) -> Finish:
        """As `AsyncPonder.finish`, of this reply."""
        return await self._finish(self.id, choice)

    async def __aiter__(self) -> AsyncIterator[ChatCompletionChunk]:
        reader = EventReader(self._response.status_code)
        try:
            with transport_errors(self._base_url, asking=False):
                async for piece in self._response.aiter_bytes():
                    for chunk in reader.feed(piece):
                        self.id = self.id or chunk.id
                        yield chunk
                    if reader.done:
                        break
        finally:
            await self.close()
        reader.finish()

    async def close(self) -> None:
        await self._response.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
