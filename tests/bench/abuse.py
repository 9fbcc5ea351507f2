"""`python -m tests.bench.abuse`: what careless and hostile requests cost a server.

Each case is sent to a fresh baseline of one server, and while it is, `/healthz` is asked over and
over. Memory is what the server's process took at most above what it had before. `held` is the most
CPU time that was spent between two beats of the event loop, 5 ms apart: by its own thread, and by
all threads of the process, for which it may have had to wait. Other processes' load is in the wall
times and not in these.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

BODY_BYTES = (4 << 20) - 256
AT_ONCE = 30
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """A body, how often it is sent at once, and how a whole reply to it may be large."""

    body: bytes
    at_once: int = AT_ONCE


def _filled(before: str, unit: str, after: str) -> bytes:
    """A body of about `BODY_BYTES`, filled with a unit and commas where it is a list."""
    return (before + unit * (BODY_BYTES // len(unit)) + after).encode()


def cases() -> dict[str, Case]:
    said = '{"messages":[{"role":"user","content":'
    hello = said + '"hi"}],'
    reply = {
        "messages": [{"role": "user", "content": "What is 17 + 25 - 9?"}],
        "budget": 0, "n": 64, "max_tokens": 1000, "ignore_eos": True,
        "logprobs": True, "top_logprobs": 20,
    }  # fmt: skip
    plain = {**reply, "logprobs": False}
    del plain["top_logprobs"]
    return {
        "prompt of digits": Case(_filled(said + '"', "1", '"}]}')),
        "prompt of blanks": Case(_filled(said + '"', " ", '"}]}')),
        "prompt of words": Case(_filled(said + '"', "word, ", '"}]}')),
        "prompt like JSON": Case(_filled(said + '"', '[{\\"a\\":1}],', '"}]}')),
        "messages": Case(_filled('{"messages":[', '{"role":"user","content":"a"},', "0]}")),
        "wrong messages": Case(_filled('{"messages":[', "1,", "1]}")),
        "text parts": Case(_filled(said + "[", '{"type":"text","text":""},', "0]}]}")),
        "lists": Case(_filled(hello + '"budget":[', "[],", "0]}")),
        "unknown fields": Case(
            (hello + ",".join(f'"{n}":1' for n in range(BODY_BYTES // 11)) + "}").encode()
        ),
        "whole, logprobs": Case(json.dumps(reply).encode(), 1),
        "stream, logprobs": Case(json.dumps({**reply, "stream": True}).encode(), 1),
        "whole, no logprobs": Case(json.dumps(plain).encode(), 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.abuse", description=__doc__)
    parser.add_argument("--engine", choices=("scripted", "vllm"), default="scripted")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--watch", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch:
        return _watch(options.watch)
    if options.serve:
        return _serve(options.engine)
    with _server(options.engine) as (port, pid):
        measure = _Measure(port, pid)
        with measure.health() as idle:
            time.sleep(1.0)
        print(f"idle: healthz {_ms(idle)}")
        for name, case in cases().items():
            if options.only in name:
                print(f"{name}: {measure(case)}", flush=True)
    return 0


class _Measure:
    def __init__(self, port: int, pid: int) -> None:
        self._port = port
        self._proc = Path(f"/proc/{pid}")

    def __call__(self, case: Case) -> str:
        self._held()
        (self._proc / "clear_refs").write_text("5")
        before = self._memory("VmRSS")
        with self.health() as times:
            started = time.perf_counter()
            answers = asyncio.run(self._send(case))
            seconds = time.perf_counter() - started
        most = self._memory("VmHWM") - before
        statuses = Counter(status for status, _ in answers)
        received = sum(size for _, size in answers)
        held = self._held()
        said = f"{dict(statuses)} in {seconds:.1f} s, +{most / 1024:.0f} MiB, held {held}"
        if case.at_once == 1:
            said += f", reply {received / MIB:.1f} MiB ({most * 1024 / received:.1f} x)"
        return f"{said}, healthz {_ms(times)}"

    @contextmanager
    def health(self) -> Iterator[list[float]]:
        """Seconds that `/healthz` takes meanwhile, there once the block is over.

        Another process asks: this one's threads would wait for what it sends.
        """
        times: list[float] = []
        command = [sys.executable, "-m", "tests.bench.abuse", "--watch", str(self._port)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, text=True, **pipes) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "asking\n"
            yield times
            times += json.loads(process.communicate()[0])

    def _held(self) -> str:
        """Since it was asked last."""
        loop, process = json.loads(_get(self._port, "/held"))
        return f"{loop * 1e3:.0f} ms by the loop, {process * 1e3:.0f} by all"

    def _memory(self, name: str) -> int:
        """KiB"""
        lines = (self._proc / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name))

    async def _send(self, case: Case) -> list[tuple[int, int]]:
        """(status, bytes) of each answer."""
        return await asyncio.gather(*(self._one(case.body) for _ in range(case.at_once)))

    async def _one(self, body: bytes) -> tuple[int, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=MIB)
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        head += f"content-length: {len(body)}\r\n"
        writer.write(head.encode() + b"connection: close\r\n\r\n")
        for start in range(0, len(body), MIB):
            writer.write(body[start : start + MIB])
            await writer.drain()
        status = int((await reader.readline()).split()[1])
        size = 0
        while part := await reader.read(MIB):
            size += len(part)
        writer.close()
        return status, size


def _watch(port: int) -> int:
    """Ask `/healthz` until stdin ends; print how long each answer took."""
    times: list[float] = []
    over = threading.Thread(target=sys.stdin.read, daemon=True)
    over.start()
    print("asking", flush=True)
    while over.is_alive():
        started = time.perf_counter()
        _get(port, "/healthz")
        times.append(time.perf_counter() - started)
        time.sleep(0.02)
    print(json.dumps(times))
    return 0


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request("GET", path)
        return connection.getresponse().read()
    finally:
        connection.close()


@contextmanager
def _server(engine: str) -> Iterator[tuple[int, int]]:
    """(port, process id) of a server that is ready."""
    command = [sys.executable, "-m", "tests.bench.abuse", "--serve", "--engine", engine]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said = line
                if "127.0.0.1:" in line:
                    break
            port = int(said.rpartition(":")[2].split()[0].rstrip("/"))
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield port, process.pid
        finally:
            process.terminate()


def _serve(engine: str) -> int:
    """A server that says how long its loop was held."""
    from ponder.server import logs, process

    logs.configure("text")

    def watched(service: Any) -> FastAPI:
        app = create_app(service)
        most = [0.0, 0.0]
        tasks: set[asyncio.Task[None]] = set()

        async def beat() -> None:
            while True:
                before = time.thread_time(), time.process_time()
                await asyncio.sleep(0.005)
                spent = time.thread_time() - before[0], time.process_time() - before[1]
                most[:] = map(max, most, spent)

        @app.get("/held")
        async def held() -> list[float]:
            if not tasks:
                tasks.add(asyncio.create_task(beat()))
            found, most[:] = list(most), [0.0, 0.0]
            return found

        return app

    create_app = process.create_app
    process.create_app = watched
    if engine == "vllm":
        from ponder.cli.main import main

        sys.argv = ["ponder", "serve", "--port", "0", "--state", ":memory:"]
        return int(main() or 0)
    return _serve_scripted(process)


def _serve_scripted(process: Any) -> int:
    import uvloop

    from ponder.engine.scripted import ScriptedEngine
    from ponder.engine.tokenizer import ModelFiles
    from ponder.server.model import ServedModel
    from ponder.server.savings import open_ledger
    from ponder.server.service import Service
    from ponder.server.settings import BUNDLED_MODEL, Settings

    async def serve() -> None:
        settings = Settings(state=":memory:", port=0)
        model = ServedModel.load(ModelFiles.find(BUNDLED_MODEL), settings)
        said = model.tokenizer.encode("x " * 3000)
        engine = ScriptedEngine(lambda *_: iter(said), model.tokenizer, chunk_sizes=(4,))
        service = Service(settings, model, engine, open_ledger(settings, model))
        listener = process.bind("127.0.0.1", 0)
        await process.Server(service, listener).serve(sockets=[listener])

    uvloop.run(serve())
    return 0


def _ms(times: list[float]) -> str:
    return f"{statistics.median(times) * 1e3:.0f} ms, at most {max(times) * 1e3:.0f}"


if __name__ == "__main__":
    sys.exit(main())
