"""What an encoding lacks is spelt with what it has, and nothing is an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.cli.spelling import spell


@pytest.mark.parametrize(
    ("text", "encoding", "seen"),
    [
        ("› 3 · 4 ≈ 7", "ascii", "> 3 - 4 ~ 7"),
        ("› 3 · 4", "latin-1", "> 3 · 4"),
        ("café, naïve, Łódź", "ascii", "cafe, naive, ?odz"),
        ("日本 ½ x²", "latin-1", "?? ½ x²"),
        ("½ x²", "ascii", "? x?"),  # 1/2 and x2 would be wrong
        ("“a” → b…", "cp1252", "“a” -> b…"),
        ("\udce9", "utf-8", "?"),
    ],
)
def test_spellings(text: str, encoding: str, seen: str) -> None:
    assert spell(text, encoding) == seen


@given(st.text(), st.sampled_from(["ascii", "latin-1", "koi8-r", "utf-8"]))
def test_every_text_can_be_shown(text: str, encoding: str) -> None:
    seen = spell(text, encoding)
    assert spell(seen, encoding) == seen
    assert len(seen) >= len(text)
    try:
        assert text.encode(encoding).decode(encoding) == seen
    except UnicodeEncodeError:
        assert seen != text
