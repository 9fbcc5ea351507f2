"""Real servers of what replicas share, started for tests and stopped in every way there is."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import programs
import redis
from demo import free_port
from redis.exceptions import RedisError

from waiting import wait_until


class RedisServer:
    """A `redis-server` of our own that keeps what it is told in a file, as an operator's does."""

    def __init__(self, folder: Path, *options: str) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start(*options)

    def start(self, *options: str) -> None:
        """On its port, with all that it kept."""
        command = [programs.find("redis-server"), "--port", str(self.port), "--save", ""]
        command += ["--appendonly", "yes", "--dir", self._folder, "--bind", "127.0.0.1", *options]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LD_LIBRARY_PATH": programs.libraries()},
            )
        wait_until(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, (self._folder / "log").read_text()
        try:
            with self.client() as client:
                return bool(client.ping())
        except RedisError:
            return False

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def suspend(self) -> None:
        """Connections stay, and nothing answers: what a partition looks like."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)
