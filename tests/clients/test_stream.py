"""Server-sent events, however they are cut into pieces."""

from __future__ import annotations

import json

import pytest

from ponder.client import PonderAPIError
from ponder.client.stream import EventReader

from .scripted import DONE, answer, chunk, error, event_stream


def read(data: bytes, size: int) -> list[str]:
    reader = EventReader()
    texts = []
    for start in range(0, len(data), size):
        for event in reader.feed(data[start : start + size]):
            delta = event.choices[0].delta
            texts.append(delta.reasoning or delta.content or "")
    reader.finish()
    return texts


@pytest.mark.parametrize("size", [1, 2, 7, 1 << 20])
def test_pieces_of_any_size_give_the_same_chunks(size: int) -> None:
    data = event_stream(answer(thought=("für ", "€\U0001f600"), said="sieben"))
    assert read(data, size) == ["", "für ", "€\U0001f600", "sieben", ""]


@pytest.mark.parametrize("size", [1, 1 << 20])
def test_line_separators_inside_a_text_do_not_end_the_line(size: int) -> None:
    text = "a\u2028b\u2029c\x85d"
    raw = json.dumps(chunk(content=text), ensure_ascii=False)
    assert read(f"data: {raw}\n\ndata: [DONE]\n\n".encode(), size) == [text]


def test_comments_other_fields_and_carriage_returns_are_passed_over() -> None:
    raw = json.dumps(chunk(content="7"))
    data = f": keep-alive\r\n\r\nevent: message\r\nid: 3\r\ndata:{raw}\r\n\r\n:\n\ndata: [DONE]\n\n"
    assert read(data.encode(), 5) == ["7"]


def test_an_event_may_span_data_lines() -> None:
    raw = json.dumps(chunk(content="7"), indent=1).replace("\n", "\ndata: ")
    assert read(f"data: {raw}\n\ndata: [DONE]\n\n".encode(), 9) == ["7"]


def test_a_stream_without_done_is_an_error() -> None:
    with pytest.raises(PonderAPIError, match="ended before the answer did") as caught:
        read(event_stream(answer()[:-1]), 100)
    assert caught.value.code == "stream_ended"


def test_an_unfinished_last_event_is_an_error() -> None:
    with pytest.raises(PonderAPIError, match="ended before"):
        read(event_stream([*answer()[:-1], DONE])[:-1], 100)


def test_no_error_is_no_error() -> None:
    assert read(event_stream([{**chunk(content="7"), "error": None}, DONE]), 100) == ["7"]


def test_an_error_event_is_the_servers_error() -> None:
    with pytest.raises(PonderAPIError, match="the engine died") as caught:
        read(event_stream([chunk(content="7"), error("the engine died", "engine_error")]), 100)
    assert (caught.value.status, caught.value.code) == (200, "engine_error")


@pytest.mark.parametrize(
    "event", ["{", "7", "null", '{"id": 3}', '"error"', '["error"]', "[" * 9999]
)
def test_what_is_no_chunk_is_an_error(event: str) -> None:
    with pytest.raises(PonderAPIError, match="no chunk of an answer") as caught:
        read(event_stream([event]), 100)
    assert caught.value.code == "invalid_response"
