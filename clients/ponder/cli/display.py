"""How an answer appears while it streams: live on a terminal, plain in a pipe."""

from __future__ import annotations

import re
import sys
from typing import Protocol, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from ponder.cli.meter import Meter
from ponder.cli.spelling import spell

_BAR_WIDTH = 24
# What a model writes must not move the cursor, set the title or colour the screen.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Display(Protocol):
    """Shows one answer. Enter it before the request, leave it when the answer ends or stops."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def thought(self, text: str) -> None: ...

    def answer(self, text: str) -> None: ...

    def finishing(self) -> bool:
        """Show that the thought is about to be finished; False where nobody watches.

        This and `unfinished` only set what is shown next: a signal or a thread calls them.
        """
        ...

    def unfinished(self, why: str) -> None:
        """Show that the thought cannot be finished, and why."""

    def note(self, text: str) -> None:
        """Show a line of the program's own below the answer."""


class _Trim:
    """A streamed text without the whitespace around it."""

    def __init__(self) -> None:
        self._started = False
        self._held = ""

    def feed(self, text: str) -> str:
        whole = self._held + text
        shown = whole.rstrip()
        self._held = whole[len(shown) :]
        if not self._started:
            shown = shown.lstrip()
            self._started = bool(shown)
        return shown


class PlainDisplay:
    """The answer to stdout, thought and notes to stderr; nothing but text.

    Control characters of the model reach a pipe, but no terminal.
    """

    def __init__(self) -> None:
        self._trims = {sys.stderr: _Trim(), sys.stdout: _Trim()}
        self._open: TextIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_line()

    def thought(self, text: str) -> None:
        self._write(text, sys.stderr)

    def answer(self, text: str) -> None:
        self._write(text, sys.stdout)

    def finishing(self) -> bool:
        return False

    def unfinished(self, why: str) -> None:
        """Do nothing: this display never announced a finish."""

    def note(self, text: str) -> None:
        self._end_line()
        print(text, file=sys.stderr)

    def _write(self, text: str, stream: TextIO) -> None:
        shown = self._trims[stream].feed(text)
        if stream.isatty():
            shown = _CONTROL.sub("", shown)
        if not shown:
            return
        if self._open is not stream:
            self._end_line()
            self._open = stream
        stream.write(shown)
        stream.flush()

    def _end_line(self) -> None:
        if self._open is not None:
            print(file=self._open, flush=True)
            self._open = None


class LiveDisplay:
    """The thought dimmed, the answer bright, the meter below the last line.

    Only the last line is redrawn; the lines before it are printed once and scroll away, so the
    length of a thought costs nothing and the transcript stays.
    """

    def __init__(self, console: Console, meter: Meter) -> None:
        self._console = console
        self._meter = meter
        self._trim = _Trim()
        self._style = ""
        self._line = ""
        self._finishing = ""
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=12, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._end_line()
        self._live.stop()

    def thought(self, text: str) -> None:
        self._write(text, "dim")

    def answer(self, text: str) -> None:
        self._write(text, "bold")

    def finishing(self) -> bool:
        self._finishing = "finishing the thought"
        return True

    def unfinished(self, why: str) -> None:
        self._finishing = f"not finished: {why}"

    def note(self, text: str) -> None:
        self._end_line()
        self._console.print(Text(text, "dim cyan"))

    def _write(self, text: str, style: str) -> None:
        if style != self._style:
            self._end_line()
            self._style, self._trim = style, _Trim()
        shown = _CONTROL.sub("", spell(self._trim.feed(text), self._console.encoding))
        if not shown:
            return
        *full, last = Text(self._line + shown, style).wrap(self._console, self._console.width)
        self._line = last.plain
        if full:
            self._print(full)

    def _end_line(self) -> None:
        if self._line:
            line, self._line = Text(self._line, self._style), ""
            self._print([line])

    def _print(self, lines: list[Text]) -> None:
        with self._console:  # one write, so that no line is seen twice
            self._console.print(Group(*lines))
            self._live.refresh()

    def _render(self) -> RenderableType:
        if self._finishing and self._style != "bold":
            meter = Text(f"{self._finishing} · Ctrl-C again stops", "cyan")
        else:
            meter = _meter_line(self._meter, self._style)
        return Group(Text(self._line, self._style), meter) if self._line else meter


def _meter_line(meter: Meter, style: str) -> Text:
    if style == "bold":
        return Text(f"answering · thought ≈ {meter.used} tokens", "dim cyan")
    if not style:
        return Text("waiting for the first token", "dim cyan")
    if not meter.budget:
        return Text(f"thinking ≈ {meter.used} tokens · {meter.unlimited}", "cyan")
    filled = round(_BAR_WIDTH * meter.used / meter.budget)
    return Text.assemble(
        ("━" * filled, "cyan"),
        ("┄" * (_BAR_WIDTH - filled), "dim"),
        (f" thinking ≈ {meter.used}/{meter.budget} tokens", "cyan"),
    )
