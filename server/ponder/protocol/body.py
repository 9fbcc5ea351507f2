"""Turns the bytes of a body into a checked request, at a cost that its length bounds."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from pydantic_core import from_json

from ponder.protocol.errors import invalid_request

Model = TypeVar("Model", bound=BaseModel)

MOST_VALUES = 1 << 17
"""The most JSON values in one body. Reading that many blocks for some ten milliseconds."""


def read_body(kind: type[Model], body: bytes | bytearray) -> Model:
    """Raises `ApiError` if the body is no JSON, and `ValidationError` if it is no `kind`.

    pydantic's own parser of bytes would build a tree of a hundred times the body's memory.
    """
    if _values(body) > MOST_VALUES:
        raise invalid_request(
            f"the body holds more than {MOST_VALUES} values: send fewer, longer messages"
        )
    try:
        given = from_json(body, cache_strings="keys", allow_inf_nan=False)
    except ValueError as error:
        raise invalid_request(f"the body is not JSON: {error}") from None
    return kind.model_validate(given)


def _values(body: bytes | bytearray) -> int:
    """An upper bound of the values in `body`; a second count leaves out the text in strings."""
    found = _structure(body)
    if found <= MOST_VALUES:
        return found
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = plain.count(b'"')
    if quotes > 4 * MOST_VALUES:  # a name and a string in every value
        return quotes
    return _structure(b"".join(plain.split(b'"')[::2]))


def _structure(text: bytes | bytearray) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{") + 1
