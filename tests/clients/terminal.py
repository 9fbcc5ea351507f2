"""`ponder chat` on a pseudo-terminal, as a user sees it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pyte

COMMAND = [sys.executable, "-m", "ponder.cli.main", "chat"]
# The terminal becomes the process's own, so that Ctrl-C reaches it as a signal.
_OWN_TERMINAL = (
    "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "from ponder.cli.main import main; sys.exit(main(['chat', *sys.argv[1:]]))"
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
READY = "\x1b[?2004h"
"""Bracketed paste is switched on when the prompt begins to read, and by nothing else."""
WIDTH, HEIGHT = 100, 30


class _Screen(pyte.Screen):
    """Answers, as terminals do, where the cursor is."""

    answer: Callable[[str], None]

    def write_process_input(self, data: str) -> None:
        self.answer(data)


class Terminal:
    def __init__(self, *argv: str, state: Path, encoding: str = "utf-8", **environment: str):
        self._encoding = encoding
        self._file, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _OWN_TERMINAL, *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={
                **os.environ,
                "TERM": "xterm-256color",
                "XDG_STATE_HOME": str(state),
                "PYTHONIOENCODING": encoding,
                **environment,
            },
        )
        os.close(theirs)
        self._screen = _Screen(WIDTH, HEIGHT)
        self._screen.answer = self.write
        self._stream = pyte.Stream(self._screen)
        self.raw = ""
        self._seen = 0

    def write(self, text: str) -> None:
        os.write(self._file, text.encode(self._encoding))

    def type(self, line: str) -> None:
        """A line and Enter."""
        self.write(f"{line}\r")

    def paste(self, text: str) -> None:
        """As terminals do since the paste is bracketed: with Enter's code at the line ends."""
        pasted = text.replace("\n", "\r")
        self.write(f"\x1b[200~{pasted}\x1b[201~")

    def press_ctrl_c(self) -> None:
        self.write("\x03")

    def interrupt(self) -> None:
        """From outside, as `kill -INT` does."""
        self._process.send_signal(signal.SIGINT)

    def end_of_input(self) -> None:
        self.write("\x04")

    def wait_for(self, text: str) -> str:
        """What came up to `text`, without colours, since the last wait."""
        return self._read(lambda new: text in ESCAPES.sub("", new))

    def wait_for_prompt(self) -> str:
        """What came until the next question can be typed, without colours."""
        return self._read(lambda new: READY in new)

    def wait_for_screen(self, lines: Callable[[list[str]], bool]) -> None:
        """Until the screen's lines, those that are not blank, are as they should be."""
        self._read(lambda _: lines(self.lines))

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def leaves_with(self) -> int:
        self._read(lambda _: self._process.poll() is not None)
        return self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._file)

    def _read(self, enough: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 120
        while not enough(new := self.raw[self._seen :]):
            shown = "\n".join(self.lines)
            assert time.monotonic() < deadline, f"waited in vain, with this on screen:\n{shown}"
            if select.select([self._file], [], [], 0.05)[0]:
                try:
                    written = os.read(self._file, 1 << 16).decode(self._encoding, "replace")
                except OSError:  # Linux says so when the other side has closed
                    assert self._process.wait(5) is not None
                    continue
                self.raw += written
                self._stream.feed(written)
        self._seen = len(self.raw)
        return ESCAPES.sub("", new)
