"""Captures what an engine and its libraries print."""

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
_MOMENT = 30.0  # seconds: generous, for a busy machine


class Output:
    """Takes the standard streams of this process, and so of the processes that it starts.

    While a model loads, the output goes into `file`: it is long, and useful only if the load fails.
    After `loaded`, this process has its own streams back, and each line of the other processes
    becomes a log record. With `live`, lines become records from the start.
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
        """Give this process its own streams back; other processes keep writing here."""
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
        """Runs in the thread. Our end of the pipe stays open: the thread ends with the process."""
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
