"""The pages for people: `/`, where they try the model, and `/docs`, which lists the API."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles

from ponder.protocol.about import About
from ponder.server.service import Service
from ponder.server.settings import BUNDLED_ABOUT, BUNDLED_EXAMPLES, BUNDLED_MODEL
from ponder.thought.exits.causes import CAUSES

_PAGES = Path(__file__).parent / "pages"
# Pages load nothing from elsewhere, run no inline script, and stand in no frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'{styles}; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HTML = "text/html; charset=utf-8"
_LINKS = {
    "chat": "/v1/chat/completions",
    "models": "/v1/models",
    "savings": "/v1/ponder/savings",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "metrics": "/metrics",
    "ready": "/readyz",
}

router = APIRouter(tags=["pages"])


class _Files(StaticFiles):
    """The files of the pages. Browsers revalidate them each time, so that a page never mixes the
    files of two versions.
    """

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = "no-cache"
        response.headers["x-content-type-options"] = "nosniff"
        return response


def install(app: FastAPI) -> None:
    """Add the pages and their files to the application."""
    app.include_router(router)
    files = _Files(directory=_PAGES / "files", packages=[("fastapi_swagger", "resources")])
    app.mount("/pages", files)


@router.get(
    "/",
    response_model=About,
    response_description="What is served here, or the page",
    name="what_is_served",
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
async def front(request: Request) -> Response:
    """What is served here; browsers get a page to try it, unless `--no-page` took it away."""
    service: Service = request.app.state.service
    if service.settings.page and "text/html" in request.headers.get("accept", ""):
        return _page("index.html")
    bundled = service.settings.model == BUNDLED_MODEL
    about = About(
        name="Ponder",
        version=version("ponder"),
        model=service.model.name,
        about=BUNDLED_ABOUT if bundled else None,
        examples=list(BUNDLED_EXAMPLES) if bundled else [],
        max_model_len=service.planner.limits.max_model_len,
        capabilities=service.capabilities,
        causes={cause: info.brief for cause, info in CAUSES.items()},
        key_needed=bool(service.settings.api_key),
        links=_LINKS,
    )
    headers = {"vary": "accept", "cache-control": "no-cache"}
    return Response(about.model_dump_json(), media_type="application/json", headers=headers)


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Swagger UI over `/openapi.json`, from this server's own files."""
    return _page("docs.html", styles=" 'unsafe-inline'")


def _page(name: str, styles: str = "") -> Response:
    headers = {
        "content-security-policy": _POLICY.format(styles=styles),
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "vary": "accept",
    }
    return FileResponse(_PAGES / name, media_type=_HTML, headers=headers)
