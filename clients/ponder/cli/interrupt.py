"""Handles Ctrl-C while an answer is on its way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def finishing(finish: Callable[[], bool]) -> Iterator[None]:
    """Have the first Ctrl-C in the block call `finish`, and do no more if that returns True.

    Otherwise Ctrl-C stops the block, and a second one always does. `finish` may run between any two
    steps of the program: it may set flags and start threads, but must not print or wait. If the
    program already ignores or handles Ctrl-C, that stays so.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupted(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not finish():
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
