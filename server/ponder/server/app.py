"""The application: routes, errors and limits around one `Service`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Path, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp

from ponder.engine.protocol import EngineError
from ponder.experiment.store import StateError
from ponder.protocol.body import read_body
from ponder.protocol.curves import CurvesReport
from ponder.protocol.dialects import COUNTERS, DIALECTS, dialect_at
from ponder.protocol.errors import ApiError, invalid_request
from ponder.protocol.finish import Finish, FinishQuery, FinishRequest
from ponder.protocol.response import ModelCard, ModelList
from ponder.protocol.savings import Feedback, FeedbackRequest, SavingsReport
from ponder.server import front, operations, tokens
from ponder.server.answering import LONG_BYTES, endpoint, receive_body, refuse
from ponder.server.door import Door, allowed_hosts
from ponder.server.keys import authorise
from ponder.server.lending import HEADERS
from ponder.server.logs import RequestLog
from ponder.server.schema import CHOICE, TAGS, body_of, describes
from ponder.server.service import Service
from ponder.thought.errors import ThoughtError

_STARTED = int(time.time())
_SHOWN = 100  # characters of what a client sent, in what it is told


def create_app(service: Service) -> FastAPI:
    """An ASGI application that serves `service`; one process may hold several."""
    app = FastAPI(
        title="Ponder",
        version=version("ponder"),
        description="Models that think within a budget, in the words of OpenAI's API.",
        openapi_tags=TAGS,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.service = service
    app.openapi = describes(app)  # type: ignore[method-assign]
    app.include_router(operations.router)
    app.include_router(_v1)
    app.include_router(_dialects())
    app.include_router(tokens.router, dependencies=[Depends(_authorised)])
    front.install(app)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(ClientDisconnect, _gone)
    # Starlette logs an exception that only `Exception` handles, and raises it again: the expected
    # ones have handlers by name.
    for planned in (ApiError, ThoughtError, EngineError, StateError, ValidationError, Exception):
        app.add_exception_handler(planned, _error)
    shared = _sharing(service.settings.cors_origin)
    app.add_middleware(shared)
    app.add_middleware(
        Door,
        respond=lambda path, error: shared(refuse(service, dialect_at(path), error)),
        hosts=allowed_hosts(service.settings),
    )
    app.add_middleware(RequestLog)  # last: the outermost
    return app


def _sharing(origins: Sequence[str]) -> Callable[[ASGIApp], ASGIApp]:
    """What lets the pages of `origins` read the answers of an app (CORS)."""
    if not origins:
        return lambda app: app
    return partial(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["x-ponder-budget", "x-ponder-end-cause", *HEADERS, *_ids()],
    )


def _ids() -> list[str]:
    """Headers that hold the id of a response."""
    return sorted({header for dialect in DIALECTS.values() for header in dialect.id_headers})


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


async def _authorised(request: Request) -> None:
    # A coroutine, because FastAPI sends plain functions through its thread pool.
    key = request.headers.get("x-api-key")  # as Anthropic's clients send it
    header = request.headers.get("authorization") or (f"Bearer {key}" if key else None)
    request.state.tenant = authorise(_service(request).settings.api_key, header)


_v1 = APIRouter(prefix="/v1", dependencies=[Depends(_authorised)])


@_v1.get("/models", response_model=ModelList, response_description="A list of one", tags=["models"])
async def models(request: Request) -> ModelList:
    """The served model and what requests may ask of it."""
    return ModelList(data=[_card(_service(request))])


@_v1.get(
    "/models/{name:path}",
    response_model=ModelCard,
    response_description="The model",
    tags=["models"],
)
async def model(
    request: Request, name: Annotated[str, Path(description="as `/v1/models` lists it")]
) -> ModelCard:
    """One model by its name, which may hold slashes."""
    service = _service(request)
    service.model.check_served(name)
    return _card(service)


def _card(service: Service) -> ModelCard:
    return ModelCard(
        id=service.model.name,
        created=_STARTED,
        max_model_len=service.planner.limits.max_model_len,
        ponder=service.capabilities,
    )


@_v1.get(
    "/ponder/curves",
    response_model=CurvesReport,
    response_description="A curve per task; none where nobody calibrated the model",
    tags=["models"],
)
async def curves(request: Request) -> CurvesReport:
    """What each thinking budget gives on each task, and the budgets of efforts and `auto`."""
    model = _service(request).model
    return CurvesReport.of(model.name, model.checkpoint.contract)


@_v1.get(
    "/ponder/savings",
    response_model=SavingsReport,
    response_description="Both arms and their difference, or how much more it needs",
    tags=["savings"],
)
async def savings(request: Request) -> SavingsReport:
    """What the saving policy saves, measured against the conversations that go without it."""
    return await _service(request).savings()


@_v1.post(
    "/ponder/{response_id:path}/feedback",
    response_model=Feedback,
    response_description="The score is kept",
    openapi_extra=body_of(FeedbackRequest),
    tags=["savings"],
)
async def feedback(
    request: Request, response_id: Annotated[str, Path(description="the `id` of the response")]
) -> Feedback:
    """Say how good a response was, from 0 to 1; a later score replaces an earlier one."""
    service = _service(request)
    body = await receive_body(request, min(service.settings.max_body_bytes, LONG_BYTES))
    return await service.rate(response_id, read_body(FeedbackRequest, body).score)


@_v1.post(
    "/ponder/{response_id:path}/finish",
    status_code=202,
    response_model=Finish,
    response_description="The thoughts are closed, or will be when they open",
    openapi_extra={**body_of(FinishRequest, required=False), "parameters": [CHOICE]},
    tags=["chat"],
)
async def finish(
    request: Request,
    response_id: Annotated[
        str, Path(description="the `id` of the reply, or the `x-client-request-id` of its request")
    ],
) -> Finish:
    """Finish thinking now: the server closes a running reply's thoughts and answers.

    Of several choices, `choice` names one. A repeated request gets the same reply.
    """
    service = _service(request)
    body = await receive_body(request, min(service.settings.max_body_bytes, LONG_BYTES))
    choice = read_body(FinishRequest, body).choice if body.strip() else None
    if (given := request.query_params.get("choice")) is not None:
        if choice is not None:
            raise invalid_request("choice is in the body and in the URL: send one", "choice")
        choice = FinishQuery.model_validate({"choice": given}).choice
    closed = await service.replies.finish(response_id, request.state.tenant, choice)
    return Finish(id=response_id, choices=list(closed))


async def _not_served(request: Request) -> None:
    """Refuse an endpoint of OpenAI's or vLLM's servers that clients may try."""
    raise ApiError(
        404,
        "endpoint_not_served",
        f"{request.scope['path']} is not served here: this server answers at "
        f"{' and '.join(DIALECTS)}",
    )


ELSEWHERE = (
    *("/v1/embeddings", "/v1/rerank"),
    *("/v1/score", "/v1/moderations", "/v1/audio/speech", "/v1/audio/transcriptions"),
    *("/v1/audio/translations", "/v1/images/generations"),
    *("/generate", "/pooling", "/classify", "/invocations"),
)
"""Paths that other servers answer at; this one refuses those that have no dialect, by name."""


def _dialects() -> APIRouter:
    """The routes of every dialect, and those of endpoints that no dialect answers."""
    router = APIRouter(dependencies=[Depends(_authorised)])
    for path, dialect in DIALECTS.items():
        router.add_api_route(
            path,
            endpoint(dialect),
            methods=["POST"],
            tags=["chat"],
            name=dialect.name,
            description=dialect.summary,
            response_model=dialect.response,
            response_description="The whole reply, or its stream",
            openapi_extra=body_of(dialect.request),
        )
    for path, counter in COUNTERS.items():
        router.add_api_route(
            path,
            tokens.counting(counter),
            methods=["POST"],
            tags=["tokens"],
            name=counter.name,
            description=counter.summary,
            response_model=counter.response,
            response_description="The number",
            openapi_extra=body_of(counter.request),
        )
    for path in (path for path in ELSEWHERE if path not in DIALECTS):
        router.add_api_route(path, _not_served, methods=["GET", "POST"], include_in_schema=False)
    return router


async def _gone(request: Request, error: Exception) -> Response:
    """Count a client that left before its body was here; nobody reads this response."""
    _service(request).metrics.left()
    return Response(status_code=499)


async def _error(request: Request, error: Exception) -> Response:
    return refuse(_service(request), dialect_at(request.scope["path"]), error)


async def _http_error(request: Request, error: Exception) -> Response:
    """The router's refusals, in the same shape as every other error."""
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
        routes = request.app.routes
        inside = (route for route in routes if isinstance(route, APIRoute))
        if any(route.path_regex.match(f"/v1{path}") for route in inside):
            remedy = "the API lies under /v1, and so does the base URL of a client"
        refused = ApiError(error.status_code, "not_found", f"there is no {path}: {remedy}")
    return refuse(_service(request), dialect_at(path), refused)
