"""Spells characters that a terminal or pipe cannot encode: `›` as `>`, `é` as `e`."""

from __future__ import annotations

import codecs
import io
import sys
import unicodedata

_SPELLINGS = {
    "›": ">",
    "·": "-",
    "≈": "~",
    "━": "=",
    "┄": ".",
    "…": "...",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "–": "-",
    "—": "--",
    "−": "-",
    "×": "x",
    "÷": "/",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "≠": "!=",
}
_HANDLER = "ponder.spelling"


def install() -> None:
    """From now on print characters that cannot be encoded in a spelling, or as `?`.

    An error handler that the user set for Python stays.
    """
    for stream, defaults in (
        (sys.stdout, ("strict", "surrogateescape")),
        (sys.stderr, ("backslashreplace",)),
    ):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in defaults:
            stream.reconfigure(errors=_HANDLER)


def spell(text: str, encoding: str) -> str:
    """`text`, spelt with the characters of an encoding. May be longer."""
    return text.encode(encoding, _HANDLER).decode(encoding)


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(map(_in_ascii, unknown)), error.end


def _in_ascii(character: str) -> str:
    letter = unicodedata.normalize("NFD", character)[0]  # without its accents
    return _SPELLINGS.get(character, letter if letter.isascii() else "?")


codecs.register_error(_HANDLER, _spelt)
