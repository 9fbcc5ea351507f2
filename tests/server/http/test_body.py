"""Long bodies are read in turns, so that others are heard between their parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from ponder.protocol.errors import ApiError
from ponder.server.answering import receive_body

PART = b"x" * 65536
MOST = 64 * len(PART)


class Sent:
    """A request whose body is all there: reading it never waits."""

    def __init__(self, turn: asyncio.Lock, parts: int, read: list[int]) -> None:
        self.app = SimpleNamespace(state=SimpleNamespace(service=SimpleNamespace(turn=turn)))
        self._parts = parts
        self._read = read

    async def stream(self) -> AsyncIterator[bytes]:
        for _ in range(self._parts):
            self._read[-1] += 1
            yield PART


async def reading(requests: int, parts: int) -> list[int]:
    """How many parts were read in each round of the loop."""
    turn, read = asyncio.Lock(), [0]
    sent = [cast(Request, Sent(turn, parts, read)) for _ in range(requests)]
    tasks = [asyncio.create_task(receive_body(request, MOST)) for request in sent]
    while not all(task.done() for task in tasks):
        read.append(0)
        await asyncio.sleep(0)
    assert {len(task.result()) for task in tasks} == {parts * len(PART)}
    return read


def test_a_round_of_the_loop_reads_few_parts_however_many_bodies_there_are() -> None:
    rounds = asyncio.run(reading(30, 20))
    assert sum(rounds) == 600
    # Each body's first part shows that it is long.
    assert max(rounds) <= 31
    assert sorted(rounds)[-2] <= 2


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    async def read() -> list[int]:
        parts: list[int] = [0]
        sent: Any = Sent(asyncio.Lock(), 1000, parts)
        with pytest.raises(ApiError, match="larger than"):
            await receive_body(sent, MOST)
        return parts

    assert asyncio.run(read())[0] <= 65
