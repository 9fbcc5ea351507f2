from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ponder.engine.protocol import TokenLogprob
from ponder.thought.answer import AnswerWriter
from ponder.thought.format import ThoughtFormat
from server.thought.helpers import SINGLE, compiled


def write(
    data: bytes | str, stop: Sequence[str] = (), *, every: int = 1, verbatim: bool = False
) -> tuple[str, AnswerWriter]:
    """Everything shown when text is taken after `every` tokens."""
    writer, shown = AnswerWriter(SINGLE, stop, verbatim=verbatim), ""
    for index, byte in enumerate(data.encode() if isinstance(data, str) else data):
        writer.feed(byte)
        if index % every == 0 and (delta := writer.take()) is not None:
            shown += delta.text
    last = writer.take(last=True)
    return shown + (last.text if last else ""), writer


@pytest.mark.parametrize(
    ("text", "stop", "shown"),
    [
        ("\n\n 42 ", (), "\n\n 42 "),
        ("  ", (), "  "),
        ("\n\nab", ("\n\n",), ""),
        (" aENDb", ("END",), " a"),
    ],
)
@pytest.mark.parametrize("every", [1, 3])
def test_a_verbatim_answer_keeps_its_blank(
    text: str, stop: Sequence[str], shown: str, every: int
) -> None:
    assert write(text, stop, every=every, verbatim=True)[0] == shown


@pytest.mark.parametrize(
    ("text", "stop", "shown", "stopped"),
    [
        ("42", (), "42", False),
        ("\n\n 42 ", (), "42 ", False),
        ("abENDcd", ("END",), "ab", True),
        ("abENd", ("END",), "abENd", False),
        ("abEEND", ("END",), "abE", True),
        ("END", ("END",), "", True),
        ("abc", ("bc", "b"), "a", True),
        ("abcd", ("bcd", "c"), "ab", True),
        ("a\n\nb", ("\n\n",), "a", True),
        ("\n\nab", ("\n\n",), "ab", False),  # the separator is not the answer's
        ("a€b", ("€",), "a", True),
    ],
)
def test_what_is_shown(text: str, stop: Sequence[str], shown: str, stopped: bool) -> None:
    for every in (1, 3, 100):
        written, writer = write(text, stop, every=every)
        assert (written, writer.stopped) == (shown, stopped)


@pytest.mark.parametrize(
    ("text", "stop", "said"),
    [("abc", ("bc", "b"), "b"), ("abcd", ("x", "c"), "c"), ("abcd", ("x",), None)],
)
def test_it_is_said_what_stopped_it(text: str, stop: Sequence[str], said: str | None) -> None:
    for every in (1, 100):
        assert write(text, stop, every=every)[1].stop_string == said


def test_after_the_stop_nothing_counts() -> None:
    writer = AnswerWriter(SINGLE, ("b",))
    for byte in b"abc":
        writer.feed(byte)
    writer.feed_text("d")
    delta = writer.take(last=True)
    assert delta is not None
    assert delta.text == "a"
    assert writer.take(last=True) is None


@pytest.mark.parametrize(("text", "blank"), [("", True), (" \n\t", True), (" a", False)])
def test_blank(text: str, blank: bool) -> None:
    assert write(text)[1].blank is blank


def test_a_prefix_is_shown_but_only_sampled_text_is_an_answer() -> None:
    writer = AnswerWriter(SINGLE)
    writer.feed_text("\nThe answer: ")
    before = writer.blank
    writer.feed_text("4", sampled=True)
    assert (before, writer.blank) == (True, False)
    delta = writer.take()
    assert delta is not None
    assert delta.text == "The answer: 4"


def test_text_that_may_become_a_stop_string_is_held_back() -> None:
    writer = AnswerWriter(SINGLE, ("END",))
    shown = []
    for byte in b"aENxEN":
        writer.feed(byte)
        delta = writer.take()
        shown.append(delta.text if delta else None)
    assert shown == ["a", None, None, "ENx", None, None]
    last = writer.take(last=True)
    assert last is not None
    assert last.text == "EN"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\n<answer>\n42\n</answer>", "42"),
        ("<answer><answer>42", "42"),
        ("42 <answer>x</answer> y", "42 <answer>x y"),  # what opens it is hidden in front alone
        ("<ans", "<ans"),
        ("<answers>", "<answers>"),
        ("42</ans", "42</ans"),
        ("<answer></answer>", ""),
    ],
)
@pytest.mark.parametrize("every", [1, 3, 100])
def test_what_is_written_around_an_answer_is_not_shown(text: str, shown: str, every: int) -> None:
    form = ThoughtFormat(name="test", wrapper=("<answer>", "</answer>"))
    writer = AnswerWriter(SINGLE, markup=compiled(form=form).answer)
    deltas = []
    for index, byte in enumerate(text.encode()):
        writer.feed(byte)
        if index % every == 0:
            deltas.append(writer.take())
    assert writer.blank is (shown == "")
    deltas.append(writer.take(last=True))
    assert "".join(delta.text for delta in deltas if delta is not None) == shown
    assert not any(delta and delta.text.endswith(("<", "</")) for delta in deltas[:-1])


def entries(data: bytes, stop: Sequence[str] = ()) -> list[tuple[str, bytes]]:
    """Every delta's text and the tokens whose log probabilities came with it."""
    writer, deltas = AnswerWriter(SINGLE, stop), []
    taken = []
    for byte in data:
        writer.feed(byte, TokenLogprob(byte, -1.0))
        taken.append(writer.take())
    taken.append(writer.take(last=True))
    for delta in taken:
        if delta is not None:
            deltas.append((delta.text, bytes(entry.token_id for entry in delta.logprobs)))
    return deltas


@pytest.mark.parametrize(
    ("data", "stop", "deltas"),
    [
        (b"ab", (), [("a", b"a"), ("b", b"b")]),
        (b"\n a", (), [("a", b"a")]),
        ("€".encode(), (), [("€", "€".encode())]),
        (b"aENDb", ("END",), [("a", b"a")]),
        (b"aENb", ("END",), [("a", b"a"), ("ENb", b"ENb")]),
        (b"a\xe2", (), [("a", b"a"), ("", b"\xe2")]),  # half a character was sampled all the same
    ],
)
def test_log_probabilities_come_with_their_text(
    data: bytes, stop: Sequence[str], deltas: list[tuple[str, bytes]]
) -> None:
    assert entries(data, stop) == deltas


@given(data=st.binary(max_size=30), every=st.integers(1, 9))
@example(data=b"\xed\xa0", every=1)
def test_without_a_stop_everything_is_shown_once(data: bytes, every: int) -> None:
    written, _ = write(data, every=every)
    whole = data.decode(errors="replace").lstrip()
    # Bytes that end in the middle of a character are never shown; Python takes the beginning of an
    # encoded surrogate (ED A0) for such a middle in a stream, and for two wrong bytes in a whole.
    assert written + "\ufffd" * (len(whole) - len(written)) == whole
    assert len(whole) - len(written) <= 2


@given(
    data=st.text(alphabet="ab\n€", max_size=20),
    stop=st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3),
    every=st.integers(1, 9),
)
def test_no_stop_string_is_ever_shown(data: str, stop: list[str], every: int) -> None:
    written, writer = write(data, stop, every=every)
    assert data.lstrip().startswith(written)
    assert not any(text in written for text in stop)
    assert writer.stopped == any(text in data.lstrip() for text in stop)
