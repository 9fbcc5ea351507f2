"""The application: routes, errors and limits around one `Service`."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ponder.engine.protocol import EngineError
from ponder.experiment.store import StateError
from ponder.protocol.body import read_body
from ponder.protocol.errors import (
    ApiError,
    internal_error,
    to_api_error,
)
from ponder.protocol.request import ChatCompletionRequest
from ponder.protocol.response import ChatCompletion, ModelCard, ModelList
from ponder.protocol.savings import Feedback, FeedbackRequest, SavingsReport
from ponder.server import front, operations
from ponder.server.completion import Completion
from ponder.server.door import Door, allowed_hosts
from ponder.server.gate import Place
from ponder.server.keys import authorise
from ponder.server.logs import RequestLog, note, request_id
from ponder.server.schema import body_of, describes
from ponder.server.service import Service
from ponder.server.streaming import ClientGone, EventStream, LongResponse, run_for_client
from ponder.thought.errors import ThoughtError

logger = logging.getLogger(__name__)

_STARTED = int(time.time())
_SHOWN = 100  # characters of what a client sent, in what it is told
# A long body takes seconds to read and plan, and all streams would wait for it; what is shorter
# than this takes less than changing threads is worth.
_LONG_BYTES = 16384


def create_app(service: Service) -> FastAPI:
    """An ASGI application that serves `service`; one process may hold several."""
    app = FastAPI(
        title="Ponder",
        version=version("ponder"),
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.openapi = describes(app)  # type: ignore[method-assign]
    app.include_router(operations.router)
    app.include_router(_v1)
    app.include_router(_elsewhere)
    front.install(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    # What is handled as a bare Exception is logged and raised again: the planned ones are named.
    for planned in (ApiError, ThoughtError, EngineError, StateError, ValidationError, Exception):
        app.add_exception_handler(planned, _error)
    if service.settings.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.settings.cors_origin,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=["x-ponder-budget", "x-ponder-end-cause", "x-request-id"],
        )
    app.add_middleware(
        Door,
        respond=lambda error: _respond(service, error),
        hosts=allowed_hosts(service.settings),
    )
    app.add_middleware(RequestLog)  # last: the outermost
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _authorised(request: Request) -> None:
    # A coroutine, because FastAPI sends plain functions through its thread pool.
    key = request.headers.get("x-api-key")  # as Anthropic's clients send it
    header = request.headers.get("authorization") or (f"Bearer {key}" if key else None)
    authorise(_service(request).settings.api_key, header)


async def _place(request: Request) -> AsyncIterator[Place]:
    """Held until the response is over, if it is not left before. A full server reads nothing."""
    with _service(request).enter() as place:
        yield place


_elsewhere = APIRouter(dependencies=[Depends(_authorised)])
_v1 = APIRouter(prefix="/v1", dependencies=[Depends(_authorised)], tags=["chat"])


@_v1.get("/models", response_model=ModelList)
async def models(request: Request) -> ModelList:
    """The served model and what it can be asked for."""
    return ModelList(data=[_card(_service(request))])


@_v1.get("/models/{name:path}", response_model=ModelCard)
async def model(request: Request, name: str) -> ModelCard:
    """One model by its name, which may hold slashes."""
    service = _service(request)
    service.check_served(name)
    return _card(service)


def _card(service: Service) -> ModelCard:
    return ModelCard(
        id=service.model.name,
        created=_STARTED,
        max_model_len=service.limits.max_model_len,
        ponder=service.model.capabilities(service.limits),
    )


@_v1.post(
    "/chat/completions",
    response_model=ChatCompletion,
    openapi_extra=body_of(ChatCompletionRequest),
)
async def chat_completions(request: Request, place: Annotated[Place, Depends(_place)]) -> Response:
    """Think within a budget, then answer."""
    service = _service(request)
    try:
        async with place.time():
            completion = await _plan(request)
            place.grow(completion.request.n)
    except ClientGone:
        service.metrics.left()
        return Response(status_code=499)
    request_id.set(completion.id)
    if completion.request.stream:
        return EventStream(
            lambda put: service.streamed(completion, place, put),
            respond=lambda error: _respond(service, error),
            last_event=lambda error: _error_event(service, error),
            headers=lambda: completion.headers,
        )
    try:
        reply = await run_for_client(request.receive, service.whole(completion, place))
    except ClientGone:
        return Response(status_code=499)
    headers = dict(completion.headers)
    if completion.request.n == 1:
        report = completion.report(0)
        headers["x-ponder-budget"] = str(report.budget_effective)
        headers["x-ponder-end-cause"] = report.end_cause
    return LongResponse(reply.parts(), headers, "application/json")


async def _plan(request: Request) -> Completion:
    """Read the body and plan what it asks for. Raises `ClientGone`."""
    service = _service(request)
    body = await _body(request, service.settings.max_body_bytes)
    if len(body) < _LONG_BYTES:
        return service.complete(body, request.headers)
    planning = service.plan(body, request.headers)
    del body  # many may wait for their turn, and be refused
    return await run_for_client(request.receive, planning)


@_v1.get("/ponder/savings", response_model=SavingsReport, tags=["savings"])
async def savings(request: Request) -> SavingsReport:
    """What the saving policy saved, measured on the conversations that go without it."""
    return await _service(request).savings()


@_v1.post(
    "/ponder/{response_id}/feedback",
    response_model=Feedback,
    openapi_extra=body_of(FeedbackRequest),
    tags=["savings"],
)
async def feedback(request: Request, response_id: str) -> Feedback:
    """Say how good a response was, from 0 to 1; a later score replaces an earlier one."""
    service = _service(request)
    body = await _body(request, min(service.settings.max_body_bytes, _LONG_BYTES))
    return await service.rate(response_id, read_body(FeedbackRequest, body).score)


async def _not_served(request: Request) -> None:
    """Endpoints of OpenAI's and vLLM's servers that clients may try."""
    raise ApiError(
        404,
        "endpoint_not_served",
        f"{request.scope['path']} is not served here: this server answers chats, at "
        "/v1/chat/completions",
    )


for _name in (
    *("completions", "responses", "messages", "embeddings", "rerank", "score", "moderations"),
    *("audio/speech", "audio/transcriptions", "audio/translations", "images/generations"),
):
    _v1.add_api_route(f"/{_name}", _not_served, methods=["GET", "POST"], include_in_schema=False)
for _name in ("tokenize", "detokenize", "generate", "pooling", "classify", "invocations"):
    _elsewhere.add_api_route(
        f"/{_name}", _not_served, methods=["GET", "POST"], include_in_schema=False
    )


async def _body(request: Request, most: int) -> bytearray:
    """The request's body. Raises 413 as soon as it is too large."""
    body, turn = bytearray(), _service(request).turn
    async for part in request.stream():
        body += part  # a list of parts would take twice the memory when it is joined
        if len(body) > _LONG_BYTES:
            async with turn:  # many that send at once would hold the loop with every round
                await asyncio.sleep(0)
        if len(body) > most:
            raise ApiError(
                413,
                "request_too_large",
                f"the body is larger than {most} bytes (--max-body-bytes): shorten the messages",
                headers={"connection": "close"},
            )
    return body


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before its body was here: nobody reads this."""
    _service(request).metrics.left()
    return Response(status_code=499)


async def _error(request: Request, error: Exception) -> JSONResponse:
    return _respond(_service(request), error)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the router refuses, in the same shape as everything else."""
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:_SHOWN]
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        if "GET" in allowed and "HEAD" not in allowed:
            allowed += ", HEAD"  # the door makes a GET of it
        refused = ApiError(
            405,
            "method_not_allowed",
            f"{path} takes {allowed}, and not {request.method}",
            headers={"allow": allowed},
        )
    else:
        remedy = "see /docs for what there is"
        if any(route.path == f"/v1{path}" for route in _v1.routes if isinstance(route, APIRoute)):
            remedy = "the API lies under /v1, and so does the base URL of a client"
        refused = ApiError(error.status_code, "not_found", f"there is no {path}: {remedy}")
    return _respond(_service(request), refused)


def _as_api_error(service: Service, error: BaseException) -> ApiError:
    """Count an error and give it its HTTP face; what nobody planned for is logged."""
    if isinstance(error, StateError):
        logger.error("%s", error)
        api_error: ApiError | None = ApiError(
            503, "state_unavailable", str(error), headers={"retry-after": "1"}
        )
    else:
        api_error = to_api_error(error)
    if api_error is None:
        logger.error("a request failed unexpectedly", exc_info=error)
        api_error = internal_error()
    elif api_error.status == 502:
        logger.error("the engine failed a request", exc_info=error)
    service.metrics.failed(api_error.code, api_error.status)
    note(code=api_error.code, param=api_error.field)
    return api_error


def _respond(service: Service, error: BaseException) -> JSONResponse:
    api_error = _as_api_error(service, error)
    current = request_id.get()
    headers = {"x-request-id": current} if current else {}
    return JSONResponse(api_error.body(), api_error.status, {**api_error.headers, **headers})


def _error_event(service: Service, error: BaseException) -> bytes:
    body = json.dumps(_as_api_error(service, error).body())
    return f"data: {body}\n\n".encode()
