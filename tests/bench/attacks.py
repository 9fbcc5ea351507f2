"""`python -m tests.bench.attacks`: what careless or hostile connections cost a server.

A real server with the scripted engine, in a process of its own and within its own bounds. Printed
for each attack: the most memory that it added, the slowest `/healthz` meanwhile, and how many of
its connections the server had ended when the attack stopped.
`before` is the slowest answer of a quiet server, which says how busy the machine is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import re
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil

from .errors import BenchError, ended

MIB = 1 << 20
HOST = b"Host: localhost\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST
TRICKLE_SECONDS = 10.0
_START_SECONDS = 300.0
_REFUSED = re.compile(r"^ponder_connections_refused_total\{.*\} (\S+)$", re.MULTILINE)

Group = list[socket.socket]
Attack = Callable[[int, Group], int]
"""Opens connections to a port, as many as it returns; what trickles on is put into the group."""


@dataclass(frozen=True)
class Cost:
    """MiB of memory beyond what the server had, milliseconds, seconds and connections."""

    attack: str
    peak_mib: float
    left_mib: float
    quiet_ms: float
    health_ms: float
    connections: int
    ended: int
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.attacks", description=__doc__)
    parser.add_argument("--only", default="", help="attacks whose name contains this")
    parser.add_argument("--seconds", type=float, default=75.0, help="how long connections are held")
    parser.add_argument("--out", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    return ended(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    costs = []
    for name, attack in ATTACKS.items():
        if options.only not in name:
            continue
        with contextlib.closing(_Server()) as server:
            cost = _cost(name, attack, server, options.seconds)
        costs.append(cost)
        print(
            f"{name:28} peak {cost.peak_mib:+7.1f} MiB  after {cost.left_mib:+7.1f} MiB  "
            f"/healthz ≤ {cost.health_ms:6.0f} ms (before {cost.quiet_ms:.0f})  "
            f"ended {cost.ended} of {cost.connections} in {cost.seconds:.1f} s",
            flush=True,
        )
    if options.out:
        figures = [asdict(cost) for cost in costs]
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


class _Server:
    """A server in a process of its own."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        if not here.poll(_START_SECONDS):
            raise BenchError("the server did not start")
        self.port: int = here.recv()
        self._watched = psutil.Process(self._process.pid)

    def mib(self) -> float:
        rss: int = self._watched.memory_info().rss
        return rss / MIB

    def close(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection) -> None:
    import uvicorn

    from ponder.engine.scripted import ScriptedEngine, say
    from ponder.engine.tokenizer import ModelFiles
    from ponder.server.app import create_app
    from ponder.server.listener import Listener
    from ponder.server.model import ServedModel
    from ponder.server.savings import open_ledger
    from ponder.server.service import Service
    from ponder.server.settings import BUNDLED_MODEL, Settings

    settings = Settings(state=":memory:", max_running=1024)  # type: ignore[arg-type]
    model = ServedModel.load(ModelFiles.find(BUNDLED_MODEL), settings)
    script = say("a</think>\n\n" + "word " * 500, vocabulary=model.tokenizer)
    engine = ScriptedEngine(script, model.tokenizer, max_model_len=4096, chunk_sizes=(1,))
    service = Service(settings, model, engine, open_ledger(settings, model))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    # What the kernel takes is no memory of ours: as little as over a network.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    config = Listener(service).config(create_app(service), log_config=None, log_level="warning")

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            pipe.send(listener.getsockname()[1])

    Server(config).run(sockets=[listener])


class _Watch(threading.Thread):
    """Samples memory, and asks for health ten times a second."""

    def __init__(self, server: _Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self.peak = 0.0
        self.slowest = 0.0

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.peak = max(self.peak, self._server.mib())
            self.slowest = max(self.slowest, healthy(self._server.port))

    def stop(self) -> None:
        self._over.set()
        self.join()


def healthy(port: int) -> float:
    """Seconds until `/healthz` answered, on a connection of its own."""
    started = time.perf_counter()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=60) as answer:
        answer.read()
    return time.perf_counter() - started


def refusals(port: int) -> int:
    """Connections that the server says it ended."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text = answer.read().decode()
    return sum(int(float(number)) for number in _REFUSED.findall(text))


def _cost(name: str, attack: Attack, server: _Server, seconds: float) -> Cost:
    quiet = max(healthy(server.port) for _ in range(20))
    before = server.mib()
    watch = _Watch(server)
    watch.start()
    group: Group = []
    started = time.perf_counter()
    try:
        connections = attack(server.port, group)
        trickle_at = started + TRICKLE_SECONDS
        while (closed := refusals(server.port)) < connections:
            if time.perf_counter() - started > seconds:
                break
            time.sleep(0.5)
            if time.perf_counter() > trickle_at:
                trickle_at += TRICKLE_SECONDS
                for one in group:
                    with contextlib.suppress(OSError):
                        one.send(b"a", socket.MSG_DONTWAIT)
        took = time.perf_counter() - started
    finally:
        for one in group:
            one.close()
        watch.stop()
    time.sleep(3)
    return Cost(
        attack=name,
        peak_mib=round(watch.peak - before, 1),
        left_mib=round(server.mib() - before, 1),
        quiet_ms=round(1000 * quiet, 1),
        health_ms=round(1000 * watch.slowest, 1),
        connections=connections,
        ended=closed,
        seconds=round(took, 1),
    )


def endless(start: bytes) -> Attack:
    """200 MiB behind a start that has no end."""

    def attack(port: int, _group: Group) -> int:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(start)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for _ in range(200):
                    connection.sendall(b"x" * MIB)
        return 1

    return attack


def held(count: int, start: bytes) -> Attack:
    """Connections that send a start, and then a byte every ten seconds."""

    def attack(port: int, group: Group) -> int:
        for _ in range(count):
            group.append(socket.create_connection(("127.0.0.1", port)))
            with contextlib.suppress(OSError):
                group[-1].sendall(start)
        return count

    return attack


def unread(count: int) -> Attack:
    """Streams of long replies that nobody reads."""
    fields = {"n": 8, "stream": True, "logprobs": True, "top_logprobs": 20, "max_tokens": 500}
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()

    silent: list[socket.socket] = []

    def attack(port: int, _group: Group) -> int:
        for _ in range(count):
            one = socket.socket()
            silent.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", port))
            one.sendall(CHAT + b"content-length: %d\r\n\r\n" % len(body) + body)
        return count

    return attack


ATTACKS: dict[str, Attack] = {
    "200 MiB header": endless(b"GET /healthz HTTP/1.1\r\na: "),
    "200 MiB URL": endless(b"GET /"),
    "2,000 half-sent headers": held(2000, b"GET /healthz HTTP/1.1\r\n" + HOST + b"a: "),
    "1,000 half-sent bodies": held(1000, CHAT + b"content-length: 100000\r\n\r\n{"),
    "40 streams never read": unread(40),
}


if __name__ == "__main__":
    sys.exit(main())
