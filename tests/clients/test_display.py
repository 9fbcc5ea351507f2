"""What reaches the screen, and what is left on it."""

from __future__ import annotations

import io
import re
import sys

import pytest
from rich.console import Console

from ponder.cli.display import LiveDisplay, PlainDisplay
from ponder.cli.meter import Meter

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """Keeps what a terminal would show of rich's output: it moves up and erases whole lines."""

    def __init__(self, width: int = 40) -> None:
        self.raw = io.StringIO()
        self.console = Console(
            file=self.raw, force_terminal=True, width=width, height=12, highlight=False
        )

    @property
    def lines(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for part in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", self.raw.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif part == "\r":
                column = 0
            elif part.startswith("\x1b"):
                if part.endswith("A"):
                    row -= int(part[2:-1] or 1)
                elif part.endswith("K"):
                    lines[row] = ""
            else:
                lines[row] = lines[row][:column] + part
                column = len(lines[row])
        while lines and not lines[-1]:
            lines.pop()
        return lines


def show(screen: Screen, *parts: tuple[str, str], budget: int | None = 32) -> list[str]:
    meter = Meter()
    meter.start(budget)
    with LiveDisplay(screen.console, meter) as display:
        for kind, text in parts:
            getattr(display, kind)(text)
    return screen.lines


def test_the_transcript_stays_and_the_meter_goes() -> None:
    lines = show(
        Screen(),
        ("thought", "\nFirst I "),
        ("thought", "add.\n\nThen I check.\n"),
        ("answer", "\n\nIt is"),
        ("answer", " 7.\n"),
        ("note", "thought 32/32 tokens"),
    )
    assert lines == ["First I add.", "", "Then I check.", "It is 7.", "thought 32/32 tokens"]


def test_long_lines_wrap_at_words_and_each_is_shown_once() -> None:
    words = [f"word{number} " for number in range(60)]
    lines = show(Screen(), *(("thought", word) for word in words))
    assert " ".join(lines).split() == [word.strip() for word in words]
    assert max(map(len, lines)) <= 40


@pytest.mark.parametrize("text", ["日本語のとても長い文章です" * 9, "🙂" * 99, "x" * 500])
def test_wide_characters_and_unbroken_text_lose_nothing(text: str) -> None:
    lines = show(Screen(), *(("answer", character) for character in text))
    assert "".join(lines) == text


def test_what_a_model_writes_does_not_command_the_terminal() -> None:
    screen = Screen()
    text = "\x1b]0;title\x07\x1b[2Jred\x9b31m\r\b[bold]x[/bold]:smile:"
    assert show(screen, ("answer", text))[0] == "]0;title[2Jred31m[bold]x[/bold]:smile:"


def test_the_thought_is_dim_and_the_answer_bold() -> None:
    screen = Screen()
    show(screen, ("thought", "hm"), ("answer", "7"))
    assert "\x1b[2mhm\x1b[0m" in screen.raw.getvalue()
    assert "\x1b[1m7\x1b[0m" in screen.raw.getvalue()


@pytest.mark.parametrize(
    ("budget", "line"), [(32, "thinking ≈ 2/32 tokens"), (None, "thinking ≈ 2 tokens · no limit")]
)
def test_the_meter_marks_its_guess(budget: int | None, line: str) -> None:
    screen = Screen(80)
    meter = Meter()
    meter.start(budget)
    with LiveDisplay(screen.console, meter) as display:
        assert "waiting for the first token" in ESCAPES.sub("", screen.raw.getvalue())
        meter.add("hm, well")
        display.thought("hm, well\nso")
        assert line in ESCAPES.sub("", screen.raw.getvalue())
        display.answer("7\n8")
        assert "answering · thought ≈ 2 tokens" in ESCAPES.sub("", screen.raw.getvalue())


def test_no_control_character_of_a_model_reaches_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with PlainDisplay() as display:
        display.thought("so\x1b]0;title\x07 7")
        display.answer("It is\x1b[1m 7.")
    out, err = capsys.readouterr()
    assert (out, err) == ("It is\x1b[1m 7.\n", "so]0;title 7\n")


def test_plain_parts_the_streams(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainDisplay() as display:
        display.thought("\nFirst ")
        display.thought("I add.\n")
        display.answer("\n\n  It is")
        display.answer(" 7.\n\nYes.\n")
        display.note("thought 32/32 tokens")
    out, err = capsys.readouterr()
    assert out == "It is 7.\n\nYes.\n"
    assert err == "First I add.\nthought 32/32 tokens\n"
