"""The first stop of every request before its route: gives it an id and checks browsers."""

from __future__ import annotations

import ipaddress
import re
import socket
import uuid
from collections.abc import Callable
from functools import lru_cache

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ponder.protocol.errors import ApiError
from ponder.server.logs import request_id
from ponder.server.settings import Settings

# No name under these leads from the public DNS to this machine.
_LOCAL = (".localhost", ".local", ".internal")
_PORT = re.compile(r":\d*$")
_SHOWN = 100


class Door:
    """ASGI middleware that gives requests their id, and checks hosts and content types.

    `respond` makes an error the app that answers a path with it; `hosts` is None where every host
    is welcome. Every response carries an `x-request-id`: the completion's id or, until there is a
    completion, the id given here, which log lines have until then, too. HEAD is a GET without the
    body.
    """

    def __init__(
        self,
        app: ASGIApp,
        respond: Callable[[str, ApiError], ASGIApp],
        hosts: tuple[str, ...] | None,
    ) -> None:
        self._app = app
        self._respond = respond
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id.set(f"req-{uuid.uuid4().hex}")
        app = self._app
        headers = Headers(scope=scope)
        try:
            self._check_host(headers)
            if scope["method"] == "POST":
                _check_type(headers)
        except ApiError as error:
            app = self._respond(scope["path"], error)
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message.get("headers", [])
                if not any(name.lower() == b"x-request-id" for name, _ in given):
                    name = (request_id.get() or "").encode()
                    message = {**message, "headers": [*given, (b"x-request-id", name)]}
            await send(message)

        await app(scope, receive, named)

    def _check_host(self, headers: Headers) -> None:
        """Raise 403 for a name that may have been rebound to this address (DNS rebinding).

        Addresses cannot be rebound, and every browser sends the header.
        """
        given = headers.get("host")
        if self._hosts is None or given is None or welcome(given, self._hosts):
            return
        name = given[:_SHOWN]
        raise ApiError(
            403,
            "host_not_allowed",
            f"{name!r} is not a name of this server: ask for localhost or an address, or start "
            f"the server with --allowed-host",
        )


def allowed_hosts(settings: Settings) -> tuple[str, ...] | None:
    """The names that requests may use beside local ones and addresses; None is any.

    Without --allowed-host, only a server that nothing else protects is strict: it asks for no key,
    and listens on this machine alone, where a browser is the way in.
    """
    if settings.allowed_host:
        return None if "*" in settings.allowed_host else tuple(settings.allowed_host)
    return None if settings.api_key or not _loopback(settings.host) else ()


@lru_cache(maxsize=256)
def welcome(host: str, allowed: tuple[str, ...]) -> bool:
    """Whether a Host header's name is local, an address, or allowed.

    `*.example.com` allows all names below it.
    """
    name = _PORT.sub("", host.strip()).lower().rstrip(".")
    if name == "localhost" or name.endswith(_LOCAL) or name == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        pass
    else:
        return True
    return any(
        name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern
        for pattern in map(str.lower, allowed)
    )


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_type(headers: Headers) -> None:
    """Raise 415 for content that any page may make a browser post (a form, text, a beacon).

    For JSON the browser must ask the server first (CORS). Other programs send neither header, and
    may give their JSON any content type, as `curl -d` does.
    """
    if "origin" not in headers and "sec-fetch-site" not in headers:
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415,
            "unsupported_media_type",
            f"browsers must send JSON as application/json, and this is "
            f"{kind[:_SHOWN] or 'without a type'}: set the header Content-Type",
        )
