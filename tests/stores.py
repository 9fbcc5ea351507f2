"""Real servers of what replicas share, started for tests and stopped in every way there is."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import programs
import psutil
import psycopg
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


class PostgresServer:
    """A Postgres of our own, with an empty database. It refuses root, who runs it as `nobody`."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._as: dict[str, Any] = {"env": {"LD_LIBRARY_PATH": programs.libraries()}}
        self._as["env"] |= {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        if os.geteuid() == 0:
            self._as |= {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self._folder, "nobody", "nogroup")
        self._programs = programs.find("postgres").resolve().parent
        self._data = self._folder / "data"
        made = [self._programs / "initdb", "-D", self._data, "-A", "trust", "-U", "ponder"]
        subprocess.run([*made, "--no-sync"], check=True, capture_output=True, **self._as)
        self._port = free_port()
        self.url = f"postgresql://ponder@127.0.0.1:{self._port}/postgres"
        self.start()

    def start(self) -> None:
        command = [self._programs / "postgres", "-D", self._data, "-p", str(self._port)]
        command += ["-k", "", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, **self._as
            )
        wait_until(self.answers)

    def answers(self) -> bool:
        assert self.process.poll() is None, (self._folder / "log").read_text()
        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    def database(self, name: str) -> str:
        """The URL of a new one."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.replace("/postgres", f"/{name}")

    def kill(self) -> None:
        """It starts again only when the processes of its connections are gone, too."""
        killed = self._send(signal.SIGKILL)
        self.process.wait()
        psutil.wait_procs(killed, timeout=30)

    def suspend(self) -> None:
        self._send(signal.SIGSTOP)

    def resume(self) -> None:
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> list[psutil.Process]:
        """To it and to the processes of its connections, which are in groups of their own."""
        server = psutil.Process(self.process.pid)
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):  # a connection ended meanwhile
                process.send_signal(number)
        return processes

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._folder)
