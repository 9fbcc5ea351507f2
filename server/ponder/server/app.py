"""The application: routes, errors and limits around one `Service`."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ponder.engine.base import EngineError
from ponder.protocol.errors import (
    ApiError,
    ErrorResponse,
    internal_error,
    invalid_request,
    to_api_error,
)
from ponder.protocol.request import ChatCompletionRequest
from ponder.protocol.response import ChatCompletion, ModelCard, ModelList
from ponder.protocol.savings import Feedback, FeedbackRequest, SavingsReport
from ponder.server.completion import Completion
from ponder.server.logs import request_id
from ponder.server.service import Service
from ponder.server.store import StateError
from ponder.server.streaming import ClientGone, EventStream, run_for_client
from ponder.thought.errors import ThoughtError

logger = logging.getLogger(__name__)

_NOT_YET = ("completions", "responses", "messages")
_STARTED = int(time.time())
# A megabyte takes half a second to tokenise, and all streams would wait for it; what is shorter
# than this takes less than changing threads is worth.
_LONG_BYTES = 16384


def create_app(service: Service) -> FastAPI:
    """An ASGI application that serves `service`; one process may hold several."""
    app = FastAPI(title="Ponder", version=version("ponder"))
    app.state.service = service
    app.include_router(_operations)
    app.include_router(_v1)
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
    return app


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _authorised(request: Request) -> None:
    # A coroutine, because FastAPI sends plain functions through its thread pool.
    _service(request).authorise(request.headers.get("authorization"))


_operations = APIRouter(tags=["operations"])
_v1 = APIRouter(prefix="/v1", dependencies=[Depends(_authorised)], tags=["chat"])


@_operations.get("/healthz")
async def healthz() -> PlainTextResponse:
    """The process is alive and answers."""
    return PlainTextResponse("ok\n")


@_operations.get("/readyz")
async def readyz(request: Request) -> PlainTextResponse:
    """The server takes requests: 503 while it drains and after its engine died."""
    service = _service(request)
    if service.ready:
        return PlainTextResponse("ready\n")
    return PlainTextResponse("engine dead\n" if service.dead else "draining\n", status_code=503)


@_operations.get("/metrics")
async def metrics(request: Request) -> Response:
    """Ponder's metrics, and the engine's beside them."""
    body = await _service(request).exposition()
    return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")


@_v1.get("/models", response_model=ModelList)
async def models(request: Request) -> ModelList:
    """The served model and what it can be asked for."""
    service = _service(request)
    card = ModelCard(
        id=service.model.name,
        created=_STARTED,
        max_model_len=service.limits.max_model_len,
        ponder=service.model.capabilities(service.limits),
    )
    return ModelList(data=[card])


@_v1.post(
    "/chat/completions",
    response_model=ChatCompletion,
    responses={400: {"model": ErrorResponse}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": ChatCompletionRequest.model_json_schema()}},
        }
    },
)
async def chat_completions(request: Request) -> Response:
    """Think within a budget, then answer."""
    service = _service(request)
    service.admit(1)  # before a server that is full reads and tokenises more
    body = await _body(request, service.settings.max_body_bytes)
    asked = ChatCompletionRequest.model_validate_json(body)
    if len(body) < _LONG_BYTES:
        completion = service.complete(asked, request.headers)
    else:
        completion = await asyncio.to_thread(service.complete, asked, request.headers)
    request_id.set(completion.id)
    if completion.request.stream:
        return EventStream(
            lambda put: service.streamed(completion, put),
            respond=lambda error: _respond(service, error),
            last_event=lambda error: _error_event(service, error),
            headers=lambda: _headers(completion),
        )
    try:
        reply = await run_for_client(request.receive, service.whole(completion))
    except ClientGone:
        return Response(status_code=499)
    headers = _headers(completion)
    if len(reply.choices) == 1:
        report = reply.choices[0].ponder
        headers["x-ponder-budget"] = str(report.budget_effective)
        headers["x-ponder-end-cause"] = report.end_cause
    return Response(reply.model_dump_json(), headers=headers, media_type="application/json")


@_v1.get("/ponder/savings", response_model=SavingsReport, tags=["savings"])
async def savings(request: Request) -> SavingsReport:
    """What the saving policy saved, measured on the conversations that go without it."""
    return await _service(request).savings()


@_v1.post(
    "/ponder/{response_id}/feedback",
    response_model=Feedback,
    responses={404: {"model": ErrorResponse}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": FeedbackRequest.model_json_schema()}},
        }
    },
    tags=["savings"],
)
async def feedback(request: Request, response_id: str) -> Feedback:
    """Say how good a response was, from 0 to 1; a later score replaces an earlier one."""
    service = _service(request)
    body = await _body(request, service.settings.max_body_bytes)
    return await service.rate(response_id, FeedbackRequest.model_validate_json(body).score)


@_v1.post("/{endpoint}", include_in_schema=False)
async def not_yet(endpoint: str) -> None:
    """Endpoints of other dialects that clients may try."""
    if endpoint in _NOT_YET:
        raise invalid_request(f"/v1/{endpoint} is not served yet: use /v1/chat/completions")
    raise HTTPException(404)


def _headers(completion: Completion) -> dict[str, str]:
    """The request's id and, where it is traced, its place in the trace."""
    return {"x-request-id": completion.id, **completion.trace}


async def _body(request: Request, most: int) -> bytes:
    """The request's body. Raises 413 as soon as it is too large."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise ApiError(
                413,
                "request_too_large",
                f"the body is larger than {most} bytes (--max-body-bytes): shorten the messages",
                headers={"connection": "close"},
            )
        parts.append(part)
    return b"".join(parts)


async def _gone(request: Request, error: Exception) -> Response:
    """The client left before its body was here: nobody reads this."""
    _service(request).metrics.left()
    return Response(status_code=499)


async def _error(request: Request, error: Exception) -> JSONResponse:
    return _respond(_service(request), error)


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    """What the router refuses, in the same shape as everything else."""
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 405:
        refused = ApiError(405, "method_not_allowed", f"{request.method} is not for {path}")
    else:
        refused = ApiError(
            error.status_code, "not_found", f"there is no {path}: see /docs for what there is"
        )
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
    service.metrics.failed(api_error.code)
    fields = {"status": api_error.status, "code": api_error.code, "param": api_error.param}
    logger.info("answered with an error", extra={"fields": fields})
    return api_error


def _respond(service: Service, error: BaseException) -> JSONResponse:
    api_error = _as_api_error(service, error)
    current = request_id.get()
    headers = {"x-request-id": current} if current else {}
    return JSONResponse(api_error.body(), api_error.status, {**api_error.headers, **headers})


def _error_event(service: Service, error: BaseException) -> bytes:
    body = json.dumps(_as_api_error(service, error).body())
    return f"data: {body}\n\n".encode()
