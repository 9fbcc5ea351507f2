"""The life of the server process: signals, the death of either process, an engine that hangs."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ponder.server.process import ListenError, bind
from waiting import PATIENCE, wait_until

from .conftest import ServerProcess, start_server

pytestmark = pytest.mark.engine

LONG = {
    "messages": [{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}],
    "stream": True,
    "ignore_eos": True,
    "max_completion_tokens": 600,
}


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory for temporary files whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="t") as path:
        monkeypatch.setenv("TMPDIR", path)
        yield Path(path)


@contextmanager
def running_answer(server: ServerProcess) -> Iterator[Future[httpx.Response]]:
    """An answer that is being generated, and whose engine has stopped."""
    with ThreadPoolExecutor() as pool, server.hanging():
        url = f"{server.url}/v1/chat/completions"
        answer = pool.submit(httpx.post, url, json=LONG, timeout=300)
        wait_until(lambda: server.metric("ponder_choices_running") == 1)
        yield answer


def readiness(server: ServerProcess) -> str:
    return httpx.get(f"{server.url}/readyz").text


def test_sigterm_finishes_what_runs_and_exits_zero(tmp_path: Path, temporary: Path) -> None:
    running = start_server(tmp_path / "log", "--drain-timeout", "600")
    try:
        running.wait_ready()
        with running_answer(running) as answer:
            running.process.send_signal(signal.SIGTERM)
            wait_until(lambda: readiness(running) == "draining\n")
            assert running.metric("ponder_choices_running") == 1
            running.engine().resume()
            assert "data: [DONE]" in answer.result().text
        log = running.log
        assert running.process.wait(PATIENCE) == 0, log.read_text()
        assert "ponder: draining: running answers (1)" in log.read_text()
        assert log.read_text().splitlines()[-1].endswith(" ponder: stopped")
        for word in ("died", "Traceback", "leaked", "Warning"):
            assert word not in log.read_text()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/healthz")
        left = [path.name for path in temporary.iterdir()]
        assert [name for name in left if not name.startswith("torchinductor_")] == []  # a cache
    finally:
        running.stop()


def test_a_second_signal_cuts_what_runs(tmp_path: Path) -> None:
    """A hangup drains too. The client is told, the log has it, and the status is 0 all the same."""
    options = ["--drain-timeout", "600", "--log-format", "json"]
    running = start_server(tmp_path / "log", *options)
    try:
        running.wait_ready()
        with running_answer(running) as answer:
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: readiness(running) == "draining\n")
            running.process.send_signal(signal.SIGTERM)
            refused = answer.result()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert running.process.wait(PATIENCE) == 0, running.log.read_text()
        text = running.log.read_text()
        entries = [json.loads(line) for line in text.splitlines()]  # from the first to the last
        assert entries[-1]["message"] == "stopped"
        assert "--drain-timeout" not in text
        (cut,) = [entry for entry in entries if "another signal came" in entry["message"]]
        assert "1 running choices are cut" in cut["message"]
        (ended,) = [entry for entry in entries if entry.get("path") == "/v1/chat/completions"]
        assert (ended["status"], ended["code"], ended["completion_tokens"]) == (503, "draining", 0)
    finally:
        running.stop()


def test_an_engine_that_hangs_is_seen_and_dies_with_a_killed_server(tmp_path: Path) -> None:
    running = start_server(tmp_path / "log", "--stall-timeout", "1")
    try:
        running.wait_ready()
        with running_answer(running) as answer:
            wait_until(lambda: readiness(running) == "engine stalled\n")
            assert running.metric("ponder_engine_silence_seconds") > 1
            running.engine().resume()
            assert "data: [DONE]" in answer.result().text
            assert readiness(running) == "ready\n"
        with running.hanging():
            engine = running.engine()
            running.process.kill()
            engine.wait(PATIENCE)
    finally:
        running.stop()


def test_a_dead_engine_is_noticed_and_ends_the_process(tmp_path: Path) -> None:
    running = start_server(tmp_path / "log")
    try:
        running.wait_ready()
        states: list[int] = []

        def watch() -> None:
            while True:
                try:
                    states.append(httpx.get(f"{running.url}/readyz").status_code)
                except httpx.TransportError:
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        wait_until(lambda: bool(states))
        running.engine().kill()
        assert running.process.wait(PATIENCE) == 1, running.log.read_text()
        watcher.join(PATIENCE)
        assert states[0] == 200
        assert states[-1] == 503
        assert "the vLLM engine died" in running.log.read_text()
    finally:
        running.stop()


def test_a_server_that_still_loads_has_its_port() -> None:
    with (
        bind("127.0.0.1", 0) as held,
        pytest.raises(ListenError, match="another --host or --port"),
    ):
        bind("127.0.0.1", held.getsockname()[1])


def test_a_taken_port_is_said_before_the_model_loads(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        running = start_server(tmp_path / "log", "--port", str(taken.getsockname()[1]))
        assert running.process.wait(PATIENCE) == 1
        assert "choose another --host or --port" in running.log.read_text()
