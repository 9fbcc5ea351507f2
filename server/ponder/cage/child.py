"""A Python process that inherits nothing: no environment, no descriptors, no pickles."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Pipe

MiB = 2**20
_LONGEST_FRAME = MiB  # bytes that a child may send at once

# Without it, an interpreter that was built with a shared library may not find that library.
_NEEDED = ("LD_LIBRARY_PATH",)


class Child:
    """Runs `module:function(connection, *arguments)` in a new interpreter until `kill` or its end.

    Its environment is `environment` alone. It finds modules where this process does. The connection
    is its only descriptor beside the standard three. It has a process group of its own, so that
    Ctrl-C does not reach it. Frames are bytes, and its frames are never unpickled. Its connection
    ends when this process dies. `arguments` are numbers or texts.
    """

    def __init__(
        self, function: str, *arguments: float | str, environment: Mapping[str, str] | None = None
    ) -> None:
        module, _, name = function.partition(":")
        self.connection, theirs = Pipe()
        kept = {key: os.environ[key] for key in _NEEDED if key in os.environ}
        with theirs:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-I", "-B", "-W", "ignore", "-c",
                    f"import sys; sys.path[:] = {sys.path!r}\n"
                    "from multiprocessing.connection import Connection\n"
                    f"from {module} import {name}\n"
                    f"{name}(Connection({theirs.fileno()}), *{arguments!r})",
                ],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=kept | dict(environment or {}),
                process_group=0,
            )  # fmt: skip

    def send(self, frame: bytes) -> None:
        """Send a frame. Raises `OSError` if the child is gone."""
        self.connection.send_bytes(frame)

    def receive(self, timeout_s: float) -> bytes | None:
        """The next frame; None if none comes in time. Raises `EOFError` if the child is gone."""
        if not self.connection.poll(timeout_s):
            return None
        try:
            return self.connection.recv_bytes(_LONGEST_FRAME)
        except OSError as error:  # the frame is too long, or incomplete
            raise EOFError from error

    def kill(self) -> int:
        """End the child and its process group; returns its exit status, negative for signals.

        A child that has ended by itself keeps its own status.
        """
        self.connection.close()
        if self._process.returncode is None:  # not waited for: its pid is not reused yet
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        return self._process.wait()


def limit_memory(megabytes: int) -> None:
    """Limit the address space of this process and of those it starts, and forbid core dumps."""
    limit = megabytes * MiB
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
