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
    return "".join(_of(character, error.encoding) for character in unknown), error.end


def _of(character: str, encoding: str) -> str:
    bare = unicodedata.normalize("NFD", character)[0]  # the letter without its accents
    for candidate in (_SPELLINGS.get(character, ""), bare):
        try:
            candidate.encode(encoding)
        except UnicodeEncodeError:
            continue
        if candidate:
            return candidate
    return "?"


codecs.register_error(_HANDLER, _spelt)
