"""A server's address: its spellings, and the errors of a failing connection."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from ponder.client.errors import PonderAPIError
from ponder.environment.urls import without_password


def server_root(url: str) -> str:
    """The root URL of a server. Raises `ValueError` for a malformed URL.

    `host:8000` means http, as for curl. A URL may end in /v1, as for OpenAI's clients.
    """
    written = url.strip()
    if "://" not in written:
        written = f"http://{written}"
    try:
        parsed = httpx.URL(written)
        host = parsed.host
        parsed.raw_host.decode().encode("idna")  # as whoever looks up the address will
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"{url!r} is no URL ({error}): write http://HOST:PORT") from None
    if parsed.scheme not in ("http", "https") or not host:
        raise ValueError(f"{url!r} is no URL of a server: write http://HOST:PORT")
    return written.rstrip("/").removesuffix("/v1").rstrip("/")


@contextmanager
def transport_errors(root: str, *, asking: bool = True) -> Iterator[None]:
    """Turn httpx's exceptions into `PonderAPIError`; `asking` is False once the reply has begun."""
    root = without_password(root)
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if (said := _of_tls(root, error)) is not None:
            raise PonderAPIError(None, "connection_error", said) from error
        message = f"no server answers at {root}: {error or type(error).__name__}"
        raise PonderAPIError(None, "unreachable", message) from error
    except httpx.TimeoutException as error:
        message = f"{root} did not answer in time: raise the client's timeout"
        raise PonderAPIError(None, "timeout", message) from error
    except httpx.RequestError as error:
        message = f"the connection to {root} failed: {error or type(error).__name__}"
        if asking and root.startswith("http://"):
            message += f"; if the server speaks https, write {_as(root, 'https')}"
        raise PonderAPIError(None, "connection_error", message) from error


def _of_tls(root: str, error: BaseException) -> str | None:
    """The message for a failed TLS handshake; None for any other error."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return (
            f"the certificate of {root} is not trusted ({cause.verify_message}): name the file of "
            "its authority in SSL_CERT_FILE"
        )
    return (
        f"{root} does not answer in https ({cause.reason or cause}): "
        f"if it speaks plain http, write {_as(root, 'http')}"
    )


def _as(root: str, scheme: str) -> str:
    return f"{scheme}://{root.partition('://')[2]}"
