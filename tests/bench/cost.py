"""`python -m tests.bench.cost`: what metrics, traces and a holdout cost a server under load.

Three servers are loaded at the same time, so that whatever the machine does it does to all of them,
and share its cores: who spends more on a token gets fewer of them. One counts everything, keeps
savings with a holdout, sends traces and is scraped; the next does nothing of the kind; the last
one's engine keeps no statistics either, which vLLM does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import uvloop

from . import machine
from .client import connect
from .errors import BenchError, ended
from .load import Measurement, measure
from .probe import Checker
from .report import Line, Target, ratio, table
from .scenario import BUNDLED, RESULTS, Lengths, Point, Workload, end_id
from .server import OBSERVED, Server, running

POINTS = (Point(32, False), Point(32, True))
SCRAPE_SECONDS = 2.0
"""Prometheus scrapes less often: every 15 seconds, as deploy/ has it."""
_SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_NOTHING_ADDED = Lengths(closing=0, offset=0)

Turn = Mapping[str, Measurement]
"""Server → what was measured in one window."""


def main() -> int:
    options = _options()
    return ended(lambda: _compare(options))


def _compare(options: argparse.Namespace) -> None:
    found: dict[str, list[Turn]] = {point.name: [] for point in POINTS}
    scrapes: list[float] = []
    uvloop.run(_measure(options, found, scrapes))
    made = _lines(found, scrapes)
    _write(options, made, found)
    print(f"\n{table(made, 'this', 'that')}\n\nevery figure: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.cost", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--turns", type=int, default=12, help="windows of each point")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a window")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds before each window")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmark-cost.json")
    return parser.parse_args()


async def _measure(
    options: argparse.Namespace, found: dict[str, list[Turn]], scrapes: list[float]
) -> None:
    workload = Workload(end_id(BUNDLED))
    with tempfile.TemporaryDirectory(prefix="ponder-bench-") as folder, ExitStack() as stack:
        async with _trace_sink() as (sink, traces):
            settings = {
                "PONDER_HOLDOUT_KEY": "a key of the benchmark",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{sink}",
            }
            start = [
                running(name, BUNDLED, "", Path(folder) / f"{name}.log", settings)
                for name in OBSERVED
            ]
            # In a thread: the sink must answer while a server starts.
            servers = [await asyncio.to_thread(stack.enter_context, one) for one in start]
            for number in range(options.turns):
                for point in POINTS:
                    windows = [_window(s, workload, point, options, scrapes) for s in servers]
                    turn = dict(zip(OBSERVED, await asyncio.gather(*windows), strict=True))
                    found[point.name].append(turn)
                    _show(number, point, turn)
            if not traces.is_set():
                raise BenchError("no trace arrived: the comparison would leave them out")


async def _window(
    server: Server,
    workload: Workload,
    point: Point,
    options: argparse.Namespace,
    scrapes: list[float],
) -> Measurement:
    """One window of load; `scrapes` gets the seconds of each scrape of the one that is scraped."""
    observed = server.name == OBSERVED[0]
    scraping = asyncio.create_task(_scrape(server, scrapes)) if observed else None
    try:
        return await measure(
            server,
            workload.payloads(server.name, point, _NOTHING_ADDED),
            concurrency=point.concurrency,
            tokens=workload.useful_tokens(point),
            check=Checker(server.name, point, _NOTHING_ADDED),
            warmup=options.warmup,
            seconds=options.seconds,
        )
    finally:
        if scraping is not None:
            scraping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await scraping


async def _scrape(server: Server, scrapes: list[float]) -> None:
    connection = await connect(server.port)
    try:
        while True:
            await asyncio.sleep(SCRAPE_SECONDS)
            reply = await connection.ask(_SCRAPE)
            scrapes.append(reply.ended - reply.started)
    finally:
        connection.close()


@asynccontextmanager
async def _trace_sink() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A collector that takes spans and forgets them: (its port, set once some came)."""
    came = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.partition(b":")[2])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                await reader.readexactly(length)
                came.set()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], came
    finally:
        server.close()


def _lines(found: Mapping[str, Sequence[Turn]], scrapes: Sequence[float]) -> list[Line]:
    observed, bare, silent = OBSERVED
    made = []
    for point in POINTS:
        for ours, theirs, target in ((observed, bare, Target(0.98, True)), (bare, silent, None)):
            for figure, unit in (
                ("tokens_per_second", "tokens/s"),
                ("cpu_per_1000", "CPU s / 1000 tokens"),
            ):
                sides = [
                    [getattr(turn[name], figure) for turn in found[point.name]]
                    for name in (ours, theirs)
                ]
                label = f"{point.name}, {ours} against {theirs}"
                made.append(ratio(label, unit, *sides, target if unit == "tokens/s" else None))
    milliseconds = tuple(1000 * seconds for seconds in scrapes)
    target = Target(50.0, at_least=False)
    middle = statistics.median(milliseconds)
    made.append(Line("a scrape under load", milliseconds, middle, None, "ms", target))
    return made


def _show(number: int, point: Point, turn: Turn) -> None:
    rates = "  ".join(f"{name} {turn[name].tokens_per_second:7.0f}" for name in OBSERVED)
    print(f"turn {number + 1}  {point.name:17} {rates} tokens/s", flush=True)


def _write(
    options: argparse.Namespace, made: Sequence[Line], found: Mapping[str, Sequence[Turn]]
) -> None:
    result = {
        "machine": machine.describe(),
        "settings": {
            "model": BUNDLED.name,
            "turns": options.turns,
            "seconds": options.seconds,
            "warmup": options.warmup,
            "scrape_seconds": SCRAPE_SECONDS,
        },
        "figures": [line.as_json("this", "that") for line in made],
        "turns": {
            point: [{name: asdict(side) for name, side in turn.items()} for turn in turns]
            for point, turns in found.items()
        },
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
