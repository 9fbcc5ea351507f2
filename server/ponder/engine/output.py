"""What an engine and the libraries around it print."""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path

logger = logging.getLogger(__name__)
_LEVEL = re.compile(r"(?:\([^)]*\) )?(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")
_ENDS = re.compile(rb"[\r\n]")
_MARK = b"\0"
_MOMENT = 30.0  # seconds, on a machine that does much else


class Output:
    """Takes the standard streams of this process, and so of those that it starts.

    While a model loads, what is printed goes into `file`: it is long, and of use where the load
    fails. Once it has `loaded`, this process has its streams back, and each line that the others
    print is a log record. `live` makes records of them from the start.
    """

    def __init__(self, file: Path, *, live: bool = False) -> None:
        self.file = file
        self._kept = file.open("ab", buffering=0)
        self.progress = ""
        """The last progress bar that was drawn, as of a download."""
        self._live = live
        self._loading = True
        self._level = logging.WARNING
        self._own = {number: os.dup(number) for number in (1, 2)}
        self._source, self._sink = os.pipe()
        for number in self._own:
            os.dup2(self._sink, number)
        self._all_read = threading.Event()
        threading.Thread(target=self._read, name="output", daemon=True).start()

    def loaded(self) -> None:
        self.release()
        self._live, self._loading = True, False

    def release(self) -> None:
        """Give this process its own streams back; the others keep writing here."""
        for number, own in self._own.items():
            os.dup2(own, number)
            os.close(own)
        self._own.clear()

    def text(self) -> str:
        """What has been printed so far."""
        self._all_read.clear()
        os.write(self._sink, _MARK)
        self._all_read.wait(_MOMENT)
        return self.file.read_text(encoding="utf-8", errors="replace")

    def _read(self) -> None:
        """In the thread. Our own end of the pipe stays open, so that it ends with the process."""
        rest = b""
        while part := os.read(self._source, 1 << 16):
            *lines, rest = _ENDS.split(rest + part.replace(_MARK, b""))
            if self._loading:
                self._kept.write(part.replace(_MARK, b""))
            for line in lines:
                self._heard(line.decode(errors="replace").rstrip())
            if _MARK in part:
                self._all_read.set()

    def _heard(self, line: str) -> None:
        if "%|" in line:
            self.progress = line.strip()
        elif self._live and line:
            found = _LEVEL.match(line)
            if found:
                self._level = logging.getLevelNamesMapping()[found[1]]
            logger.log(self._level, "%s", line)
