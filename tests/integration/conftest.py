"""One real server process with vLLM and the bundled checkpoint, shared by the whole session."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import psutil
import pytest

START_SECONDS = 600  # most of it is vLLM's imports, which other load makes slow


@dataclass
class ServerProcess:
    """A `ponder serve` of our own: its output file, its URL once it is ready."""

    process: subprocess.Popen[bytes]
    log: Path
    url: str = ""

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            found = re.search(r'serving .* at (http://[^\s"]+)', self.log.read_text())
            if found:
                self.url = found[1]
                assert httpx.get(f"{self.url}/readyz").status_code == 200
                return
            time.sleep(0.2)
        raise AssertionError(f"not ready in {START_SECONDS} s:\n{self.log.read_text()}")

    def metric(self, name: str) -> float:
        """The sum over all series of a name, as Prometheus would scrape it."""
        text = httpx.get(f"{self.url}/metrics").text
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        assert found, f"{name} is not exported"
        return sum(map(float, found))

    def engine(self) -> psutil.Process:
        """The process of its vLLM. While it is suspended, nothing that runs can end."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        (engine,) = [child for child in children if "EngineCore" in " ".join(child.cmdline())]
        return engine

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """The engine is suspended: no stream can end in here."""
        engine = self.engine()
        engine.suspend()
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                engine.resume()

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def start_server(
    log: Path, *options: str, environment: Mapping[str, str] | None = None
) -> ServerProcess:
    """`ponder serve` on a free port, in a process group of its own."""
    command = [sys.executable, "-m", "ponder.cli.main", "serve", "--port", "0"]
    command += ["--state", str(log.with_name("state.sqlite3")), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    return ServerProcess(process, log)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    running = start_server(tmp_path_factory.mktemp("server") / "log")
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture
def client(server: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
