"""What Ctrl-C does while an answer is on its way."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def finishing(finish: Callable[[], bool]) -> Iterator[None]:
    """The first Ctrl-C in here calls `finish`, and does no more where that says True.

    Otherwise it stops what runs in here, and so does a second one. `finish` is called between any
    two steps of the program: it sets flags and starts threads, and neither prints nor waits.
    Whoever has Ctrl-C ignored or handled otherwise keeps it so.
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
