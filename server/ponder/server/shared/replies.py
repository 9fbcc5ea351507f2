"""Running replies of all servers behind one address, found over Redis.

A reply writes nothing to Redis when it begins. To find one, which is rare, a server asks them all.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from redis.exceptions import RedisError

from ponder.protocol.errors import ApiError
from ponder.server.replies import OwnReplies
from ponder.server.shared.link import Link

ANSWERS_SECONDS = 2.0
"""Seconds in which servers say whether they write a reply, and in which its server finishes it."""


@dataclass
class _Asked:
    """The answers to one question; `all_came` is set with the last one due."""

    due: int | None = None
    answers: list[dict[str, Any]] = field(default_factory=list)
    all_came: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        if self.due is not None and len(self.answers) >= self.due:
            self.all_came.set()


class SharedReplies(OwnReplies):
    """The replies of this server and of those that share its Redis.

    An id names one reply. A client may give several replies one name: the youngest is meant,
    whichever server writes it. Servers compare ages, not times, because their clocks differ.
    """

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._numbers = itertools.count()
        self._asked: dict[int, _Asked] = {}
        link.hears(self._hear)

    async def finish(self, name: str, tenant: str, choice: int | None) -> Sequence[int]:
        """As `OwnReplies`, on all servers; raises 503 where another server does not answer."""
        own = self.find(name, tenant)
        if own is not None and (own.id == name or not self._link.up):
            return own.finish(choice)
        asks = {"name": name, "tenant": tenant}
        found, silent = await self._ask(None, asks)
        writing = [answer for answer in found if answer["age"] is not None]
        if not writing:
            if silent:
                raise _unreachable()
            return await super().finish(name, tenant, choice)
        youngest = min(writing, key=lambda answer: float(answer["age"]))
        told, _ = await self._ask(youngest["from"], {**asks, "choice": choice})
        if not told:
            raise _unreachable()
        if (error := told[0].get("error")) is not None:
            raise ApiError(**error)
        closed: list[int] = told[0]["closed"]
        return closed

    async def _ask(
        self, inbox: str | None, question: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], bool]:
        """The answers of all servers, or of the one at `inbox`, and whether one is missing."""
        if not self._link.up:
            return [], True
        number, asked = next(self._numbers), _Asked()
        self._asked[number] = asked
        message = {"asks": number, "from": self._link.inbox, **question}
        try:
            async with asyncio.timeout(ANSWERS_SECONDS):
                if inbox is None:
                    asked.due = await self._link.tell_all(message)
                else:
                    asked.due = await self._link.tell(inbox, {**message, "finish": True})
                asked.check()
                await asked.all_came.wait()
        except TimeoutError:
            return asked.answers, True
        except RedisError as error:
            self._link.lost(error)
            return asked.answers, True
        finally:
            del self._asked[number]
        return asked.answers, False

    async def _hear(self, message: dict[str, Any]) -> None:
        if (number := message.get("answers")) is not None:
            if (asked := self._asked.get(number)) is not None:
                asked.answers.append(message)
                asked.check()
            return
        answer: dict[str, Any] = {"answers": message["asks"], "from": self._link.inbox}
        if message.get("finish"):
            answer |= await self._finished(message)
        else:
            own = self.find(message["name"], message["tenant"])
            answer["age"] = time.perf_counter() - own.started_at if own else None
        await self._link.tell(message["from"], answer)

    async def _finished(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            closed = await super().finish(message["name"], message["tenant"], message["choice"])
        except ApiError as error:
            told = {"status": error.status, "code": error.code, "message": str(error)}
            return {"error": {**told, "field": error.field, "headers": error.headers}}
        return {"closed": list(closed)}


def _unreachable() -> ApiError:
    return ApiError(
        503,
        "servers_unreachable",
        "another server may be writing this reply, but cannot be reached: finish it again in a "
        "moment, or wait for the reply",
        headers={"retry-after": "1"},
    )
