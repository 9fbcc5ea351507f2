"""Routes for operators and their tools: health, readiness, load and metrics."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from ponder.protocol.about import Load, Version
from ponder.server.service import Service

_METRICS = "text/plain; version=0.0.4; charset=utf-8"


def _text(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Statuses answered in plain text, for the schema."""
    said = {"content": {"text/plain": {"schema": {"type": "string"}}}}
    means = {200: "Yes", 503: "No"}
    return {status: {"description": means[status], **said} for status in statuses}


router = APIRouter(tags=["operations"])


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


@router.get("/healthz", response_class=PlainTextResponse, responses=_text(200))
async def healthz() -> PlainTextResponse:
    """The process is alive and answers."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", response_class=PlainTextResponse, responses=_text(200, 503))
async def readyz(request: Request) -> PlainTextResponse:
    """The server takes requests: 503 while it drains, and while its engine is stalled or dead."""
    why = _service(request).unready
    if not why:
        return PlainTextResponse("ready\n")
    return PlainTextResponse(f"{why}\n", status_code=503)


@router.get("/health", response_class=PlainTextResponse, responses=_text(200, 503))
async def health(request: Request) -> PlainTextResponse:
    """The engine is alive, by vLLM's name: 503 after it died."""
    dead = _service(request).watch.dead
    return PlainTextResponse("engine dead\n" if dead else "ok\n", status_code=503 if dead else 200)


@router.get("/ping", response_class=PlainTextResponse, responses=_text(200, 503))
async def ping(request: Request) -> PlainTextResponse:
    """The same as `/health`, by SageMaker's name."""
    return await health(request)


@router.post("/ping", response_class=PlainTextResponse, responses=_text(200, 503))
async def ping_by_post(request: Request) -> PlainTextResponse:
    """The same as `GET /ping`, which vLLM's server also answers to POST."""
    return await health(request)


@router.get("/version", response_description="The version")
async def show_version() -> Version:
    """Ponder's version, where vLLM's server says its own."""
    return Version(version=version("ponder"))


@router.get("/load", response_description="The number")
async def load(request: Request) -> Load:
    """Requests being read or answered, as vLLM's server counts them for routers."""
    return Load(server_load=_service(request).gate.places)


@router.get(
    "/metrics",
    response_class=Response,
    response_description="In Prometheus' text format",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Response:
    """Ponder's metrics, and the engine's beside them, for Prometheus."""
    return Response(await _service(request).exposition(), media_type=_METRICS)
