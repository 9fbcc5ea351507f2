"""The pages for people: `/`, which asks the model a question, and `/docs`, which lists the API."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from ponder.server.service import Service
from ponder.server.settings import BUNDLED_KNOWS, BUNDLED_MODEL
from ponder.thought.exits.causes import CAUSES

_PAGES = Path(__file__).parent / "pages"
# Nothing from elsewhere, nothing written into a page, no frame around it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

router = APIRouter(include_in_schema=False)


def install(app: FastAPI) -> None:
    """Add the pages and what they load to the application."""
    app.include_router(router)
    files = StaticFiles(directory=_PAGES, packages=[("fastapi_swagger", "resources")])
    app.mount("/pages", files)


@router.get("/")
async def front(request: Request) -> Response:
    """A page for browsers; for programs, what it shows."""
    if "text/html" in request.headers.get("accept", ""):
        return _page("index.html")
    service: Service = request.app.state.service
    facts = {
        "name": "Ponder",
        "version": version("ponder"),
        "model": service.model.name,
        "about": BUNDLED_KNOWS if service.settings.model == BUNDLED_MODEL else None,
        "capabilities": service.capabilities.model_dump(),
        "causes": {cause: info.brief for cause, info in CAUSES.items()},
        "key_needed": bool(service.settings.api_key),
        "links": {"chat": "/v1/chat/completions", "models": "/v1/models", "docs": "/docs"}
        | {"openapi": "/openapi.json", "metrics": "/metrics", "ready": "/readyz"},
    }
    return JSONResponse(facts, headers={"vary": "accept"})


@router.get("/docs")
async def docs() -> Response:
    """Swagger UI over `/openapi.json`, from this server's own files."""
    return _page("docs.html", styles=" 'unsafe-inline'")


def _page(name: str, styles: str = "") -> Response:
    headers = {
        "content-security-policy": _POLICY.format(styles=styles),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "vary": "accept",
    }
    return FileResponse(_PAGES / name, media_type="text/html; charset=utf-8", headers=headers)
