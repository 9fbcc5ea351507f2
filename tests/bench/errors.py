"""How a benchmark ends that cannot go on."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable


class BenchError(Exception):
    """The benchmark cannot go on; the message says why."""


def ended(work: Callable[[], None]) -> int:
    """The exit status of `work`: 0, 1 with what stopped it, 130 on Ctrl-C and SIGTERM.

    On all of them what `work` started is ended.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work()
    except BenchError as error:
        print(f"benchmark stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0
