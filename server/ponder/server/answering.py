"""How a request in any dialect is read, planned, answered or refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from fastapi.responses import Response

from ponder.experiment.store import StateError
from ponder.protocol.chat import ChatRequest
from ponder.protocol.dialect import Dialect
from ponder.protocol.errors import ApiError, internal_error, to_api_error
from ponder.server.completion import Completion
from ponder.server.gate import Place
from ponder.server.logs import note, request_id
from ponder.server.planning import in_words_of
from ponder.server.service import Service
from ponder.server.streaming import ClientGone, EventStream, LongResponse, run_for_client

T = TypeVar("T")
Asked = TypeVar("Asked")

logger = logging.getLogger(__name__)

# A longer body takes seconds to read and plan, and would hold up all streams: a thread does it. A
# shorter one takes less time than changing threads.
LONG_BYTES = 16384
_JSON = "application/json"


async def _place(request: Request) -> AsyncIterator[Place]:
    """Hold a place until the response is over or `leave` gives it up. Raises 503 where none is."""
    service: Service = request.app.state.service
    with service.enter() as taken:
        yield taken


Held = Annotated[Place, Depends(_place)]


def endpoint(dialect: Dialect) -> Callable[..., Awaitable[Response]]:
    """The route that answers requests in this dialect."""

    async def answer(request: Request, place: Held) -> Response:
        service: Service = request.app.state.service
        try:
            async with place.time():
                completion = await _planned(request, dialect, place)
                asked = "n" if completion.request.ponder.strategy is None else "strategy"
                place.grow(completion.thoughts, len(completion.prompts), asked)
                await service.lend(dialect, completion, place)
        except ClientGone:
            service.metrics.left()
            return Response(status_code=499)
        request_id.set(completion.id)
        if completion.request.stream:
            return _streamed(service, dialect, completion, place)
        return await _whole(service, dialect, completion, place, request)

    return answer


async def _planned(request: Request, dialect: Dialect, place: Place) -> Completion:
    """The completion that a request asks for. Raises `ClientGone`."""
    service: Service = request.app.state.service

    def plan(asked: ChatRequest) -> Completion:
        return service.planner.plan(
            dialect,
            asked,
            request.headers,
            tenant=request.state.tenant,
            arrived_at=place.arrived_at,
        )

    return await read_and(
        request,
        lambda body: dialect.read(body, request.headers),
        plan,
        slow=takes_long,
    )


def takes_long(asked: ChatRequest) -> bool:
    """Whether checking its formats and tools takes long."""
    return asked.grammar is not None or asked.tools is not None


async def read_and(
    request: Request,
    read: Callable[[bytearray], Asked],
    work: Callable[[Asked], T],
    *,
    slow: Callable[[Asked], bool] = lambda _: False,
) -> T:
    """Read the body and do what it asks for: in a thread, if it is long or `slow` to do.

    Raises `ClientGone`.
    """
    service: Service = request.app.state.service
    body = await receive_body(request, service.settings.max_body_bytes)
    if len(body) < LONG_BYTES:
        asked = read(body)
        if not slow(asked):
            return work(asked)
        doing = service.beside(partial(work, asked))
    else:
        doing = service.beside(partial(lambda body: work(read(body)), body))
    del body  # many may wait for their turn, and be refused
    return await run_for_client(request.receive, doing)


def _streamed(
    service: Service, dialect: Dialect, completion: Completion, place: Place
) -> EventStream:
    writer = dialect.stream(completion)

    async def produce(put: Callable[[bytes], None]) -> None:
        with in_words_of(dialect, completion.request):
            await service.streamed(completion, place, writer, put)

    return EventStream(
        produce,
        respond=lambda error: refuse(service, dialect, error),
        last_event=lambda error: writer.broken(_counted(service, dialect, error)),
        headers=lambda: {**completion.headers, **named(dialect, completion.id)},
    )


async def _whole(
    service: Service, dialect: Dialect, completion: Completion, place: Place, request: Request
) -> Response:
    writer = dialect.whole(completion)
    try:
        with in_words_of(dialect, completion.request):
            await run_for_client(request.receive, service.whole(completion, place, writer))
    except ClientGone:
        return Response(status_code=499)
    headers = {**completion.headers, **named(dialect, completion.id)}
    if completion.request.choices == 1:
        report = completion.report(0)
        headers["x-ponder-budget"] = str(report.budget_effective)
        headers["x-ponder-end-cause"] = report.end_cause
    return LongResponse(writer.parts(), headers, _JSON)


async def receive_body(request: Request, most: int) -> bytearray:
    """The request's body. Raises 413 as soon as it is too large."""
    service: Service = request.app.state.service
    body = bytearray()
    async for part in request.stream():
        body += part  # joining a list of parts would take twice the memory
        if len(body) > LONG_BYTES:
            async with service.turn:  # many long bodies at once would hold the loop in each round
                await asyncio.sleep(0)
        if len(body) > most:
            raise ApiError(
                413,
                "request_too_large",
                f"the body is larger than {most} bytes (--max-body-bytes): shorten the `prompt`",
                headers={"connection": "close"},
            )
    return body


def refuse(service: Service, dialect: Dialect, error: BaseException) -> Response:
    """The error response, in the words of the client's dialect."""
    said = _counted(service, dialect, error)
    current = request_id.get() or ""
    refusal = dialect.error(said, current)
    headers = {**said.headers, **(named(dialect, current) if current else {})}
    return Response(refusal.body, refusal.status, headers, _JSON)


def named(dialect: Dialect, name: str) -> dict[str, str]:
    """The headers that tell a client the id of its response."""
    return dict.fromkeys(dialect.id_headers, name)


def _counted(service: Service, dialect: Dialect, error: BaseException) -> ApiError:
    """Count an error, log it where nobody expected it, and return its HTTP form."""
    api_error = to_api_error(error)
    if api_error is None:
        logger.error("a request failed unexpectedly", exc_info=error)
        api_error = internal_error()
    elif isinstance(error, StateError):
        logger.error("%s", error)
    elif api_error.status == 502:
        logger.error("the engine failed a request", exc_info=error)
    said = api_error.spelled(dialect.fields)
    service.metrics.failed(said.code, said.status)
    note(code=said.code, param=said.logged)
    return said
