"""What every HTTP request needs: the header of its key, and a client with usable proxies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made")


def authorization(key: str | None) -> dict[str, str]:
    """The header of a request with this key. Raises `ValueError` for what no header carries.

    >>> authorization("secret")
    {'authorization': 'Bearer secret'}
    """
    key = (key or "").strip()
    if not key.isascii() or not key.isprintable():
        raise ValueError("the API key is no key: a header carries only printable ASCII")
    return {"authorization": f"Bearer {key}"} if key else {}


def http_client(kind: Callable[..., Made], **settings: Any) -> Made:
    """A client of httpx. Raises `ValueError` for a proxy of the environment that it cannot use."""
    try:
        return kind(**settings)
    except (ImportError, ValueError) as error:
        raise ValueError(
            f"a proxy variable names a proxy that cannot be used ({error}): correct it (a SOCKS "
            "proxy needs pip install 'httpx[socks]'), or name the server in NO_PROXY"
        ) from error
