import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.thought.text import TextDecoder, clean_cut, mark, overlap, unmarked
from server.thought.helpers import EOS, SINGLE


def test_a_character_is_shown_when_it_is_whole() -> None:
    decoder = TextDecoder(SINGLE)
    steps = [(decoder.feed(byte), decoder.pending) for byte in "a€".encode()]
    assert steps == [("a", False), ("", True), ("", True), ("€", False)]


def test_special_tokens_have_no_text_and_markers_have_theirs() -> None:
    decoder = TextDecoder(SINGLE)
    assert decoder.feed(EOS) == ""
    assert decoder.feed(SINGLE.END_THINK) == "</think>"


def test_an_unfinished_character_is_flushed_as_replacement() -> None:
    decoder = TextDecoder(SINGLE)
    assert decoder.feed(0xE2) == ""
    assert decoder.flush() == "\ufffd"
    assert not decoder.pending


def test_a_marked_token_is_a_character_that_no_model_can_spell() -> None:
    marked = TextDecoder(SINGLE, {EOS: mark(0), SINGLE.THINK: mark(1)})
    ids = [ord("a"), EOS, 0xE2, SINGLE.THINK, *mark(0).encode(errors="surrogatepass")]
    text = "".join(map(marked.feed, ids))
    assert text == f"a{mark(0)}\ufffd{mark(1)}\ufffd\ufffd\ufffd"
    assert unmarked(text) == "a\ufffd\ufffd\ufffd\ufffd"


@given(st.binary(max_size=40))
def test_decoding_token_by_token_is_decoding_at_once(data: bytes) -> None:
    decoder = TextDecoder(SINGLE)
    text = "".join(decoder.feed(byte) for byte in data) + decoder.flush()
    assert text == data.decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "marker", "size"),
    [
        ("", "</think>", 0),
        ("abc", "</think>", 0),
        ("abc<", "</think>", 1),
        ("a</thi", "</think>", 5),
        ("<<", "</think>", 1),
        ("</think>", "</think>", 0),  # whole: a match, no overlap
        ("aba", "abab", 3),
        ("x", "x", 0),
    ],
)
def test_overlap(text: str, marker: str, size: int) -> None:
    assert overlap(text, marker) == size


@pytest.mark.parametrize(
    ("before", "after", "clean"),
    [
        ("one.", " two", True),
        ("one. ", "two", True),
        ("one!", "\n", True),
        ("3.", "14", False),
        ("one.", "", False),
        ("one", " two", False),
        ("one\n", "two", True),
        ("好。", "漢", True),
        ("wait…", " no", True),
        ("", " ", False),
        (" ", "a", False),
    ],
)
def test_clean_cut(before: str, after: str, clean: bool) -> None:
    assert clean_cut(before, after) is clean
