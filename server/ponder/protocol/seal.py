"""Seals thoughts that clients carry from one request to the next: opaque, but no secret."""

from __future__ import annotations

import base64

_MARK = "ponder:"


class Seal:
    """Seals a thought as it is sampled.

    >>> seal = Seal()
    >>> seal.add("6 * 7 is ")
    >>> seal.add("42.")
    >>> seal.text()
    'ponder:NiAqIDcgaXMgNDIu'
    >>> unseal(seal.text())
    '6 * 7 is 42.'
    """

    def __init__(self) -> None:
        self._sealed = bytearray()
        self._rest = b""  # bytes not encoded yet: base64 takes three at a time

    def add(self, text: str) -> None:
        given = self._rest + text.encode()
        whole = len(given) - len(given) % 3
        self._sealed += base64.b64encode(given[:whole])
        self._rest = given[whole:]

    def text(self) -> str:
        return f"{_MARK}{self._sealed.decode()}{base64.b64encode(self._rest).decode()}"


def unseal(sealed: str) -> str:
    """The thought; empty where another kind of server sealed it."""
    if not sealed.startswith(_MARK):
        return ""
    try:
        return base64.b64decode(sealed[len(_MARK) :], validate=True).decode()
    except ValueError:  # no base64, or no text in it
        return ""
