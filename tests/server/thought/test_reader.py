from collections.abc import Iterable, Sequence
from typing import Literal

import pytest

from ponder.engine.scripted import ByteVocabulary
from ponder.thought.exits.budget import Budget
from ponder.thought.exits.exit import Close, GoOn, Progress
from ponder.thought.exits.watch import Watch
from ponder.thought.reader import ThoughtReader, Verdict
from ponder.thought.text import TextDecoder
from server.thought.helpers import EOS, SINGLE, SPELT, compiled


def read(
    ids: Iterable[int],
    *,
    vocabulary: ByteVocabulary = SINGLE,
    opened_by: Literal["template", "model"] = "template",
    budget: int = 20,
    grace: int = 0,
    room: int | None = None,
) -> tuple[ThoughtReader, list[str]]:
    """A reader fed until it has its verdict, and the initials of its verdicts."""
    form = compiled(vocabulary, opened_by)
    watch = Watch([Budget(budget, grace, room)])
    reader = ThoughtReader(form, vocabulary, watch, room=room)
    verdicts = []
    for token_id in ids:
        verdict = reader.feed(token_id)
        verdicts.append(verdict.name)
        if verdict is not Verdict.MORE:
            break
    return reader, verdicts


def test_text_is_ready_as_soon_as_no_cut_can_take_it_back() -> None:
    reader = ThoughtReader(compiled(SPELT), SPELT, Watch([]))
    shown = []
    for byte in b"a<b</t\xc3\xa9":
        reader.feed(byte)
        shown.append(reader.take_text())
    assert shown == ["a", "", "<b", "", "", "", "", "</té"]


def test_the_line_break_behind_the_marker_is_not_shown() -> None:
    reader, _ = read(b"\n\na\n")
    assert reader.take_text() == "a\n"
    assert len(reader.thinking) == 4


def test_the_token_after_the_budget_is_looked_at() -> None:
    _, verdicts = read(b"abcd", budget=3)
    assert verdicts == ["MORE"] * 3 + ["CLOSED"]
    _, verdicts = read([*b"abc", SINGLE.END_THINK], budget=3)
    assert verdicts[-1] == "ENDED"


def test_a_spelt_marker_may_reach_past_the_budget() -> None:
    reader, verdicts = read(b"abc</think>", vocabulary=SPELT, budget=3)
    assert verdicts[-1] == "ENDED"
    assert bytes(reader.thinking) == b"abc"
    reader, verdicts = read(b"abc</thunk>", vocabulary=SPELT, budget=5)
    assert verdicts[-1] == "CLOSED"
    assert bytes(reader.thinking) == b"abc</"


@pytest.mark.parametrize("prefix", [[0xE2], [*b"<"], [*b"</thin"]])
def test_waiting_for_an_undecided_end_has_a_limit(prefix: list[int]) -> None:
    _, verdicts = read([*prefix, *[EOS] * 99], vocabulary=SPELT, budget=8)
    assert verdicts[-1] == "CLOSED"
    assert len(verdicts) <= 8 + len("<tool_call>") + 4


def test_a_half_character_before_the_marker_is_replaced() -> None:
    reader, verdicts = read([ord("a"), 0xE2, SINGLE.END_THINK])
    assert verdicts[-1] == "ENDED"
    assert reader.take_text() == "a\ufffd"
    assert reader.thinking == [ord("a"), 0xE2]


@pytest.mark.parametrize(
    ("ids", "budget", "fits", "kept"),
    [
        (b"abc", 4, True, b"abc"),
        (b"abc", 3, False, b"abc"),  # no room for the EOS itself
        (b"ab</t", 9, True, b"ab</t"),
        (b"ab</t", 4, False, b"ab</"),
        (b"ab\xe2", 9, True, b"ab"),
    ],
)
def test_settle(ids: bytes, budget: int, fits: bool, kept: bytes) -> None:
    reader, _ = read(ids, vocabulary=SPELT, budget=budget)
    assert reader.settle() is fits
    assert bytes(reader.thinking) == kept
    assert reader.take_text() == kept.decode()


@pytest.mark.parametrize(
    ("text", "verdict", "overhead"),
    [
        ("<think>", "MORE", 1),
        (" \n<think>ab", "MORE", 3),
        ("a", "SKIPPED", 1),
        (" a", "SKIPPED", 2),
        ("</think>", "SKIPPED", 1),
        ("<tool_call>", "SKIPPED", 1),
        ("   ", "MORE", 3),
        ("     ", "SKIPPED", 5),  # no room left for a thought
    ],
)
def test_the_first_token_that_is_not_blank_decides(text: str, verdict: str, overhead: int) -> None:
    reader, verdicts = read(SINGLE.encode(text), opened_by="model", room=5)
    assert (verdicts[-1], reader.overhead) == (verdict, overhead)
    assert reader.opened is ("<think>" in text)


def test_overhead_takes_its_room_from_the_budget() -> None:
    ids = SINGLE.encode("  <think>abcdef")
    reader, verdicts = read(ids, opened_by="model", budget=5, room=6)
    assert bytes(reader.thinking) == b"abc"
    assert (verdicts[-1], reader.cause) == ("CLOSED", "length")
    reader, _ = read(ids, opened_by="model", budget=5, room=8)
    assert bytes(reader.thinking) == b"abcde"
    assert reader.cause == "budget"


@pytest.mark.parametrize("vocabulary", [SINGLE, SPELT])
def test_a_tool_call_is_the_answers_first_text(vocabulary: ByteVocabulary) -> None:
    reader, verdicts = read(vocabulary.encode("ab<tool_call>"), vocabulary=vocabulary)
    assert verdicts[-1] == "ENDED"
    assert (reader.answer_text, bytes(reader.thinking)) == ("<tool_call>", b"ab")


class Pieces:
    """A vocabulary whose tokens are longer than a byte and shorter than a word."""

    texts = ("<", "think", ">a", "b<", "/", ">c", "d", "tool_call")
    eos_token_ids: frozenset[int] = frozenset()

    def encode(self, text: str) -> list[int]:
        raise NotImplementedError

    def token_bytes(self, token_id: int) -> bytes:
        return self.texts[token_id].encode()


def test_a_token_may_hold_a_marker_and_its_neighbour() -> None:
    """`<think>ad` … `db</think>c`: the text goes where it belongs, the token to the marker."""
    vocabulary = Pieces()
    form = compiled(SPELT, "model")
    reader = ThoughtReader(form, vocabulary, Watch([Budget(9)]))
    verdicts = [reader.feed(token_id) for token_id in (0, 1, 2, 6, 3, 4, 1, 5)]
    assert verdicts == [Verdict.MORE] * 7 + [Verdict.ENDED]
    assert (reader.take_text(), reader.answer_text) == ("adb", "c")
    assert (reader.overhead, reader.thinking) == (3, [6])


class AtTheNextSentence:
    """Closes where a sentence ends, once it was woken."""

    def look(self, at: Progress) -> GoOn | Close:
        if at.clean:
            return Close("budget")
        return GoOn(clean=0) if at.coming == 0 else GoOn()


@pytest.mark.parametrize("text", ["It is so. ", "It is so.", "It is so.\n", "It is so. I"])
def test_tokens_counted_at_once_end_a_sentence_as_single_ones_do(text: str) -> None:
    verdicts = []
    for at_once in (True, False):
        reader = ThoughtReader(compiled(SINGLE), SINGLE, Watch([AtTheNextSentence()]))
        ids = SINGLE.encode(text)
        if at_once:
            assert reader.read(ids) == (len(ids), Verdict.MORE)
        else:
            assert {reader.feed(token_id) for token_id in ids} == {Verdict.MORE}
        reader.wake()
        verdicts.append([reader.feed(token_id).name for token_id in b" Then"])
        assert reader.take_text() == text + (" Then" if "CLOSED" not in verdicts[-1] else "")
    assert verdicts[0] == verdicts[1]


def test_a_long_thought_is_tried_at_once_in_few_places(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    plain = TextDecoder.plain

    def counting(decoder: TextDecoder, ids: Sequence[int]) -> str | None:
        tried.append(len(ids))
        return plain(decoder, ids)

    monkeypatch.setattr(TextDecoder, "plain", counting)
    reader = ThoughtReader(compiled(SINGLE), SINGLE, Watch([]))
    ids = [*b"a\xff" * 2000, SINGLE.END_THINK]  # no block of it is UTF-8
    assert reader.read(ids) == (len(ids), Verdict.ENDED)
    assert len(reader.thinking) == 4000
    assert sum(tried) < 2 * len(ids)
