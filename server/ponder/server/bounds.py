"""The limits of connections: bytes, seconds and descriptors."""

from __future__ import annotations

import resource
from dataclasses import dataclass

_FILES = 1 << 16  # descriptors that the process asks for, where the system lets it
_OTHER_FILES = 128  # of them for the engine, the state and the libraries


@dataclass(frozen=True)
class Bounds:
    """Bytes and seconds.

    The server cuts a client that reads nothing for `stall_seconds`, or does not catch up for
    `slow_seconds`. It reads and drops a refused request for another `linger_seconds`: otherwise a
    client that still sends would lose the answer.
    """

    head_bytes: int = 1 << 16
    request_seconds: float = 60.0
    idle_seconds: int = 75  # nginx keeps its upstream connections for 60 s
    stall_seconds: float = 30.0
    slow_seconds: float = 300.0
    linger_seconds: float = 2.0
    sweep_seconds: float = 1.0
    connections: int = 1024


def affordable(max_running: int) -> Bounds:
    """Bounds with four connections for each choice that may run, as far as descriptors go.

    Asks the system for more descriptors, and does with fewer where it refuses.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    most = max(Bounds.connections, 4 * max_running)
    if soft != resource.RLIM_INFINITY:
        most = max(16, min(most, soft - _OTHER_FILES))
    return Bounds(connections=most)
