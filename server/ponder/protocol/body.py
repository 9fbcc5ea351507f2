"""From the bytes of a body to a checked request, at a price that its length bounds."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from pydantic_core import from_json

from ponder.protocol.errors import invalid_request

Model = TypeVar("Model", bound=BaseModel)

MOST_VALUES = 1 << 17
"""JSON values in one body. Reading as many takes some ten milliseconds, in one go."""


def read_body(kind: type[Model], body: bytes | bytearray) -> Model:
    """Raises `ApiError` where it is no JSON and `ValidationError` where it is not of this kind.

    pydantic's own reading of bytes builds a tree that takes a hundred times the body's memory.
    """
    if _values(body) > MOST_VALUES:
        raise invalid_request(
            f"the body holds more than {MOST_VALUES} values: send fewer, longer messages"
        )
    try:
        given = from_json(body, cache_strings="keys")
    except ValueError as error:
        raise invalid_request(f"the body is not JSON: {error}") from None
    return kind.model_validate(given)


def _values(body: bytes | bytearray) -> int:
    """No fewer than the values in it; text that only looks like them is looked at more closely."""
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
