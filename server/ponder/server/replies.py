"""The replies that are being written, found by id or name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from ponder.protocol.errors import ApiError, quoted
from ponder.server.completion import Completion

CLIENT_ID = "x-client-request-id"
"""The header in which OpenAI's clients name their requests."""


class Replies(Protocol):
    """Finds running replies, of this server or of all behind one address.

    A caller finds only replies under its own key, by their id or by its own name for them; nobody
    else learns that they exist. Of several with one name, the last one is found.
    """

    def writing(self, completion: Completion) -> AbstractContextManager[None]:
        """Make the reply findable while the block runs."""
        ...

    async def finish(self, name: str, tenant: str, choice: int | None) -> Sequence[int]:
        """Close a reply's thoughts: one choice's, or all that are open. Returns their indices.

        Raises `ApiError`: 404 where no such reply runs, and what `Completion.finish` raises.
        """
        ...


class OwnReplies:
    """The replies of this process.

    >>> import asyncio
    >>> asyncio.run(OwnReplies().finish("chatcmpl-1", "", None))
    Traceback (most recent call last):
    ponder.protocol.errors.ApiError: no reply 'chatcmpl-1' is being written for this key: send ...
    """

    def __init__(self) -> None:
        self._running: dict[tuple[str, str], list[Completion]] = {}

    @contextmanager
    def writing(self, completion: Completion) -> Iterator[None]:
        names = (completion.id, completion.client_id)
        found = [(completion.tenant, name) for name in names if name is not None]
        for name in found:
            self._running.setdefault(name, []).append(completion)
        try:
            yield
        finally:
            for name in found:
                self._running[name].remove(completion)
                if not self._running[name]:
                    del self._running[name]

    def find(self, name: str, tenant: str) -> Completion | None:
        found = self._running.get((tenant, name))
        return found[-1] if found else None

    async def finish(self, name: str, tenant: str, choice: int | None) -> Sequence[int]:
        completion = self.find(name, tenant)
        if completion is None:
            raise ApiError(
                404,
                "response_not_found",
                f"no reply {quoted(name)} is being written for this key: send the `id` of a reply "
                f"that has not ended, or the {CLIENT_ID} that its request had",
                field="id",
            )
        return completion.finish(choice)
