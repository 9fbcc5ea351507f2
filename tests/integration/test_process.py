"""The life of the server process: start-up errors, SIGTERM, and the death of its engine."""

from __future__ import annotations

import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from ponder.server.process import StartupError, bind
from ponder.server.settings import BUNDLED_MODEL
from waiting import wait_until

from .conftest import start_server

pytestmark = pytest.mark.engine

ENDLESS = {
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


def test_sigterm_finishes_what_runs_and_exits_zero(tmp_path: Path, temporary: Path) -> None:
    running = start_server(tmp_path / "log")
    try:
        running.wait_ready()
        url = f"{running.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=ENDLESS, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            wait_until(lambda: httpx.get(f"{running.url}/readyz").text == "draining\n")
            assert running.metric("ponder_choices_running") == 1
            text = "\n".join(lines)
        assert "data: [DONE]" in text
        assert running.process.wait(60) == 0, running.log.read_text()
        assert "died" not in running.log.read_text()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/healthz")
        assert list(temporary.iterdir()) == []
    finally:
        running.stop()


def test_a_second_sigterm_cuts_what_runs(tmp_path: Path) -> None:
    """The client is told, the ledger has it, and the status is 0 all the same."""
    log = tmp_path / "log"
    running = start_server(log, "--drain-timeout", "600", "--log-format", "json")
    try:
        running.wait_ready()
        url = f"{running.url}/v1/chat/completions"
        with httpx.stream("POST", url, json=ENDLESS, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            running.process.send_signal(signal.SIGTERM)
            wait_until(lambda: httpx.get(f"{running.url}/readyz").text == "draining\n")
            running.process.send_signal(signal.SIGTERM)
            assert '"code": "draining"' in "\n".join(lines)
        assert running.process.wait(60) == 0, log.read_text()
        assert "request ended" in log.read_text()
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
        for child in psutil.Process(running.process.pid).children(recursive=True):
            if "VLLM" in " ".join(child.cmdline()):
                child.kill()
        assert running.process.wait(60) == 1, running.log.read_text()
        watcher.join(10)
        assert states[0] == 200
        assert states[-1] == 503
    finally:
        running.stop()


def test_a_taken_port_is_said_before_the_model_loads(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        running = start_server(tmp_path / "log", "--port", str(taken.getsockname()[1]))
        assert running.process.wait(60) == 1
        assert "choose another --host or --port" in running.log.read_text()


def test_a_server_that_still_loads_has_its_port() -> None:
    with (
        bind("127.0.0.1", 0) as held,
        pytest.raises(StartupError, match="another --host or --port"),
    ):
        bind("127.0.0.1", held.getsockname()[1])


def test_a_contract_for_another_tokenizer_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BUNDLED_MODEL, model)
    tokenizer = model / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    running = start_server(tmp_path / "log", str(model))
    try:
        assert running.process.wait(120) == 1
        assert "was written for another tokenizer" in running.log.read_text()
    finally:
        running.stop()


def test_a_model_that_is_nowhere_is_said(tmp_path: Path) -> None:
    running = start_server(tmp_path / "log", str(tmp_path / "nowhere"))
    assert running.process.wait(120) == 1
    assert "nowhere" in running.log.read_text()
    assert "Traceback" not in running.log.read_text()
