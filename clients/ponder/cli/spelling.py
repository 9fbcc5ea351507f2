"""What a terminal or a pipe cannot encode, spelt with what it can: `›` as `>`, `é` as `e`."""

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
    """No character that is printed from now on is an error: what has no spelling becomes `?`.

    Whoever runs Python with an error handler of their own has chosen.
    """
    for stream, defaults in (
        (sys.stdout, ("strict", "surrogateescape")),
        (sys.stderr, ("backslashreplace",)),
    ):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in defaults:
            stream.reconfigure(errors=_HANDLER)


def spell(text: str, encoding: str) -> str:
    """`text` as it looks in an encoding. May be longer."""
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
