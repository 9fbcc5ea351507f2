"""A server under test: a process group with a log, its memory and its CPU time."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from ponder.engine.vllm import cpu_settings, on_cpu

from .errors import BenchError
from .scenario import MODEL_NAME

START_SECONDS = 300.0
STOP_SECONDS = 30.0
SERVERS = ("ponder", "vllm")
OBSERVED = ("observed", "bare", "silent")
"""Ponder with a holdout and traces, one that neither counts nor keeps anything, and one whose
engine keeps no statistics either.

Beside them there is `means`, which computes with mean times and no safety where a deadline is set.
"""
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)
_BARE = """
import sys
from ponder.cli.main import main
from ponder.experiment.ledger import Ledger
from ponder.server.observers.metrics import Metrics
assert hasattr(Metrics, "_ended")
Metrics._ended = Ledger.record = lambda *_: None
sys.exit(main())
"""
_MEANS = """
import sys
from statistics import fmean
from ponder.cli.main import main
from ponder.thought import pace
assert hasattr(pace, "_at_share") and pace.Pace().safety == pace.UNJUDGED
pace._at_share = lambda values: fmean(found) if (found := list(values)) else None
pace.UNJUDGED = pace.MOST = pace.LEAST = 1.0
sys.exit(main())
"""
_PROGRAMS = {"bare": _BARE, "silent": _BARE, "means": _MEANS}


def command(server: str, model: Path, port: int, parser: str) -> list[str]:
    """How each server is started: the same engine options; Ponder logs a line for each request."""
    options = ["--served-model-name", MODEL_NAME, "--host", "127.0.0.1", "--port", str(port)]
    if server in ("ponder", "observed"):
        watched = ["--holdout", "0.05", "--traces"] if server == "observed" else []
        start = [sys.executable, "-m", "ponder.cli.main", "serve", str(model)]
        return [*start, *options, *watched]
    if server in _PROGRAMS:
        start = [sys.executable, "-c", _PROGRAMS[server], "serve", str(model)]
        return [*start, *options, *(["--", "--disable-log-stats"] if server == "silent" else [])]
    engine = cpu_settings(model)[1] if on_cpu() else []
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
        *options, *engine, "--reasoning-parser", parser, "--disable-uvicorn-access-log",
    ]  # fmt: skip


def environment(model: Path) -> dict[str, str]:
    """What Ponder sets for itself, for both."""
    chosen = cpu_settings(model)[0] if on_cpu() else {}
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "TOKENIZERS_PARALLELISM": "false",
        **chosen,
    }


class Server:
    """A running server. The processes of its tree are taken once it is ready."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name = name
        self.port = port
        root = psutil.Process(process.pid)
        self.pids = [process.pid, *(child.pid for child in root.children(recursive=True))]
        self._processes = [psutil.Process(pid) for pid in self.pids]

    def cpu_seconds(self) -> list[float]:
        """User and system time of each process since it started, the HTTP server's first."""
        times = [process.cpu_times() for process in self._processes]
        return [time.user + time.system for time in times]

    def pss_mib(self) -> float:
        """Memory: what several processes share counts once."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.pids]
        found = [_PSS.search(rollup) for rollup in rollups]
        return sum(int(match[1]) for match in found if match) / 1024


@contextmanager
def running(
    server: str, model: Path, parser: str, log: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start, wait until it serves, and end it with everything it started.

    `settings` are environment variables of this server alone.

    Raises `BenchError` with the end of its log when it does not come up.
    """
    port = _free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(server, model, port, parser),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **environment(model),
                "PONDER_STATE": str(log.with_suffix(".sqlite3")),
                **(settings or {}),
            },
            start_new_session=True,
        )
    family: list[psutil.Process] = []
    try:
        _wait_until_ready(server, port, process, log)
        ready = Server(server, port, process)
        family = [psutil.Process(pid) for pid in ready.pids]
        yield ready
    finally:
        _stop(process, family)


def log_tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(server: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BenchError(f"{server} exited with {process.returncode}:\n{log_tail(log)}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise BenchError(f"{server} was not ready in {START_SECONDS:g} s:\n{log_tail(log)}")


def _stop(process: subprocess.Popen[bytes], family: list[psutil.Process]) -> None:
    """Ask, then kill the group and whatever of the family left it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for member in family:
            if member.is_running():
                member.kill()
        process.wait(STOP_SECONDS)
