"""The outbox against clients that keep up, stall, come back and vanish."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse, Response
from starlette.types import Message

from ponder.server.streaming import EventStream, Outbox


class Client:
    """An ASGI server's side of one response; it takes a message only while `open` is set."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.gone = asyncio.Event()
        self.messages: list[Message] = []
        self.writers: set[asyncio.Task[Any] | None] = set()

    def paused(self) -> bool:
        return not self.open.is_set()

    async def send(self, message: Message) -> None:
        began_in = asyncio.current_task()
        self.writers.add(began_in)
        await self.open.wait()
        assert asyncio.current_task() is began_in
        self.messages.append(message)

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def bodies(self) -> list[bytes]:
        return [message["body"] for message in self.messages if "body" in message]


def test_a_client_that_keeps_up_is_written_to_at_once() -> None:
    async def scenario() -> None:
        client = Client()
        outbox = Outbox(client.send, dict, client.paused)
        for part in (b"a", b"", b"b"):
            outbox.put(part)
        assert client.messages[0]["type"] == "http.response.start"
        assert client.bodies == [b"a", b"b"]
        await outbox.close(b"c")
        assert client.messages[-1] == {
            "type": "http.response.body",
            "body": b"c",
            "more_body": False,
        }
        outbox.end()

    asyncio.run(scenario())


def test_what_gathers_while_a_client_stalls_leaves_in_one_write() -> None:
    async def scenario() -> None:
        client = Client()
        outbox = Outbox(client.send, dict, client.paused)
        outbox.put(b"a")
        client.open.clear()
        for part in (b"b", b"c", b"d"):
            outbox.put(part)  # does not wait
        await asyncio.sleep(0)
        assert client.bodies == [b"a"]
        client.open.set()
        await outbox.close(b"e")
        assert client.bodies == [b"a", b"bcd", b"e"]
        outbox.end()

    asyncio.run(scenario())


@given(st.lists(st.sampled_from(["put", "stall", "go on", "turn"]), max_size=40))
def test_nothing_is_lost_doubled_or_swapped(steps: list[str]) -> None:
    async def scenario() -> None:
        client = Client()
        outbox = Outbox(client.send, dict, client.paused)
        said = b""
        for number, step in enumerate(steps):
            if step == "put":
                said += b"%d " % number
                outbox.put(b"%d " % number)
            elif step == "turn":
                await asyncio.sleep(0)
            else:
                (client.open.clear if step == "stall" else client.open.set)()
        client.open.set()
        await outbox.close(b"end")
        assert b"".join(client.bodies) == said + b"end"
        starts = [m for m in client.messages if m["type"] == "http.response.start"]
        assert starts == client.messages[:1]
        outbox.end()

    asyncio.run(scenario())


def test_a_client_that_keeps_up_wakes_no_task() -> None:
    async def scenario() -> None:
        client = Client()
        outbox = Outbox(client.send, dict, client.paused)
        outbox.put(b"a")
        assert client.writers == {asyncio.current_task()}
        client.open.clear()
        outbox.put(b"b")
        await asyncio.sleep(0)
        client.open.set()
        await outbox.close(b"")
        assert len(client.writers) == 2  # the slow client had a writer of its own
        outbox.end()

    asyncio.run(scenario())


def test_a_server_that_says_nothing_of_its_flow_is_waited_for() -> None:
    async def scenario() -> None:
        client = Client()

        async def produce(put: Callable[[bytes], None]) -> None:
            put(b"a")
            assert client.messages == []
            await asyncio.sleep(0)
            put(b"b")

        await stream(produce)({"type": "http"}, client.receive, client.send)
        assert b"".join(client.bodies) == b"ab"

    asyncio.run(scenario())


def test_a_connection_that_waits_although_it_is_not_paused_is_a_fault() -> None:
    async def scenario() -> None:
        client = Client()
        client.open.clear()
        outbox = Outbox(client.send, dict, lambda: False)
        with pytest.raises(RuntimeError, match="not paused"):
            outbox.put(b"a")
        outbox.end()

    asyncio.run(scenario())


def stream(
    produce: Callable[[Callable[[bytes], None]], Coroutine[Any, Any, None]],
) -> EventStream:
    def respond(error: BaseException) -> Response:
        return PlainTextResponse(str(error), status_code=500)

    return EventStream(produce, respond, last_event=lambda error: str(error).encode(), headers=dict)


def test_a_client_that_vanishes_while_it_stalls_ends_the_work() -> None:
    async def scenario() -> None:
        client, ended = Client(), asyncio.Event()

        async def produce(put: Callable[[bytes], None]) -> None:
            client.open.clear()
            put(b"a")
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        response = asyncio.create_task(stream(produce)({}, client.receive, client.send))
        await asyncio.sleep(0.01)
        client.gone.set()
        await asyncio.wait_for(response, 1)
        assert ended.is_set()
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1  # nobody is left writing

    asyncio.run(scenario())


@pytest.mark.parametrize(("said", "status"), [(b"", 500), (b"a", 200)])
def test_a_failure_is_a_response_before_the_first_event_and_an_event_after(
    said: bytes, status: int
) -> None:
    async def scenario() -> None:
        client = Client()

        async def produce(put: Callable[[bytes], None]) -> None:
            put(said)
            raise ValueError("no")

        await stream(produce)({"type": "http"}, client.receive, client.send)
        assert client.messages[0]["status"] == status
        assert b"".join(client.bodies) == said + b"no"

    asyncio.run(scenario())
