"""`make bench-fleet`: what an engine over HTTP costs, runs over after a cut, and finds in caches.

One vLLM in this process, two vLLM servers and their router are asked through Ponder's Engine
protocol, in turn. Costs are the CPU time of all processes that a token passes through, of Ponder's
side and the servers', which other load on the machine changes little.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass, field
from pathlib import Path

import demo
import fleet
import httpx
import psutil
import uvloop

from ponder.engine import http, vllm
from ponder.engine.protocol import Engine, EngineRequest, Load, Sampling
from ponder.engine.tokenizer import HFTokenizer

from . import machine
from .errors import BenchError, ended
from .report import Line, Target, table
from .scenario import BUNDLED, RESULTS

CONCURRENCY = 8
TOKENS = 400
PROMPT = 200
THOUGHT = 64
BLOCK = 32
INTERVALS = {1: Target(1.25, at_least=False), 16: Target(1.10, at_least=False)}
RUN_OVER = Target(2, at_least=False)
HITS = Target(0.99, at_least=True)
_numbers = itertools.count()


@dataclass
class Found:
    """CPU microseconds per token by interval and way, tokens run over, shares of hits."""

    cpu: dict[int, dict[str, list[float]]] = field(
        default_factory=lambda: {interval: {} for interval in INTERVALS}
    )
    run_over: dict[int, list[int]] = field(
        default_factory=lambda: {interval: [] for interval in INTERVALS}
    )
    hits: dict[str, list[float]] = field(
        default_factory=lambda: {"with affinity": [], "without": []}
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.fleet", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    parser.add_argument("--cuts", type=int, default=40, help="streams that are cut")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmark-fleet.json")
    options = parser.parse_args()
    return ended(lambda: _compare(options))


def _compare(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="ponder-bench-") as folder, ExitStack() as stack:
        # Before the engine in this process, which sets its environment.
        servers = _Servers(Path(folder), stack)
        found = uvloop.run(_measure(options, servers))
    made = [*_costs(found), *_others(found)]
    result = {
        "machine": machine.describe(),
        "settings": {
            "model": BUNDLED.name,
            "concurrency": CONCURRENCY,
            "tokens": TOKENS,
            "rounds": options.rounds,
            "cuts": options.cuts,
        },
        "figures": [line.as_json("http", "in process") for line in made],
        "cpu_microseconds_per_token": found.cpu,
        "tokens_after_a_cut": found.run_over,
        "prefix_hits": found.hits,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(made, 'http', 'in process')}\n\nevery figure: {options.out}")


class _Servers:
    """Two workers and the router, with the processes of each."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        environment = fleet.environment(BUNDLED)
        started = []
        for name in ("one", "two"):
            port = demo.free_port()
            log = folder / f"{name}.log"
            child = stack.enter_context(demo.process(fleet.worker(BUNDLED, port), log, environment))
            started.append((name, f"http://127.0.0.1:{port}", child, log))
        try:
            for name, url, child, log in started:
                demo.wait_ready(name, f"{url}/health", child, log)
            self.workers = [url for _, url, _, _ in started]
            port, log = demo.free_port(), folder / "router.log"
            router = stack.enter_context(demo.process(fleet.router(port, self.workers), log))
            self.router = f"http://127.0.0.1:{port}"
            demo.wait_ready("router", f"{self.router}/readiness", router, log)
        except demo.DemoError as error:
            raise BenchError(str(error)) from error
        pids = [child.pid for _, _, child, _ in started]
        self.processes = [*map(psutil.Process, pids), psutil.Process(router.pid)]


def _spent(*roots: psutil.Process) -> float:
    """CPU seconds of processes and all that they started."""
    times = [
        process.cpu_times() for root in roots for process in (root, *root.children(recursive=True))
    ]
    return sum(time.user + time.system for time in times)


async def _measure(options: argparse.Namespace, servers: _Servers) -> Found:
    tokenizer, found, me = HFTokenizer(BUNDLED), Found(), psutil.Process()

    def load(*more: str) -> Load:
        return Load(
            name=str(BUNDLED),
            directory=BUNDLED,
            served_as="tiny",
            vocabulary=tokenizer,
            options=more,
        )

    one = servers.processes[0]
    inside = vllm.load(load())
    direct, routed = (http.load(load(url)) for url in (servers.workers[0], servers.router))
    others = {root.pid for root in servers.processes}
    own = [child for child in me.children() if child.pid not in others]
    ways: dict[str, tuple[Engine, Callable[[], float]]] = {
        "in process": (inside, lambda: _with(me, own)),
        "http": (direct, lambda: _alone(me) + _spent(one)),
        "the router alone": (routed, lambda: _spent(servers.processes[-1])),
    }
    try:
        for number in range(options.rounds):
            for interval in INTERVALS:
                for way, (engine, spent) in ways.items():
                    await _load(engine, interval, tokens=20)  # connections, and what is compiled
                    before = spent()
                    tokens = await _load(engine, interval, tokens=TOKENS)
                    cost = 1e6 * (spent() - before) / tokens
                    found.cpu[interval].setdefault(way, []).append(cost)
                    print(f"round {number + 1}  interval {interval:2}  {way:16} {cost:6.1f} µs")
        for interval in INTERVALS:
            for cut in range(options.cuts):
                over = await _cut(direct, servers.workers[0], interval, 20 + cut)
                found.run_over[interval].append(over)
        for _ in range(options.rounds):
            for way, hits in found.hits.items():
                hits.append(await _reenter(routed, together=way == "with affinity"))
        return found
    finally:
        for engine in (inside, direct, routed):
            engine.shutdown()
        await asyncio.sleep(0)


def _alone(me: psutil.Process) -> float:
    times = me.cpu_times()
    return times.user + times.system


def _with(me: psutil.Process, own: Sequence[psutil.Process]) -> float:
    """This process and the engine that it started, but no server."""
    return _alone(me) + _spent(*own)


async def _load(engine: Engine, interval: int, tokens: int) -> int:
    """Several streams at once; returns how many tokens came."""

    async def one() -> int:
        number = next(_numbers)
        prompt = [5 + number % 200] * PROMPT
        rules = Sampling(max_tokens=tokens, ignore_eos=True, chunk_tokens=interval)
        request = EngineRequest(prompt, rules, f"l{number}")
        return sum([len(chunk.token_ids) async for chunk in engine.generate(request)])

    return sum(await asyncio.gather(*(one() for _ in range(CONCURRENCY))))


async def _cut(engine: Engine, url: str, interval: int, after: int) -> int:
    """Tokens that a server samples after its client has closed the stream."""
    before = _metric(url, "vllm:generation_tokens_total")
    number, seen = next(_numbers), 0
    rules = Sampling(max_tokens=2000, ignore_eos=True, chunk_tokens=interval)
    request = EngineRequest([5 + number % 200] * PROMPT, rules, f"c{number}")
    async with aclosing(engine.generate(request)) as stream:
        async for chunk in stream:
            seen += len(chunk.token_ids)
            if seen >= after:
                break
    settled = -1.0
    while True:  # tokens are counted once a step, and the last step is the one after the cut
        await asyncio.sleep(0.2)
        again = _metric(url, "vllm:generation_tokens_total")
        if again == settled and not _metric(url, "vllm:num_requests_running"):
            return max(0, round(settled - before) - seen)
        settled = again


def _metric(url: str, name: str) -> float:
    lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name}{{"))


async def _reenter(engine: Engine, *, together: bool) -> float:
    """The share of their prompts, in whole blocks, that entered-again thoughts find cached."""

    async def one() -> tuple[int, int]:
        number = next(_numbers)
        prompt = [2 + (number * 37 + place * place) % 500 for place in range(PROMPT)]
        cached, ids = 0, list[int]()
        for part in range(2):
            name = f"h{number}-{part}"
            rules = Sampling(max_tokens=THOUGHT, ignore_eos=True, chunk_tokens=16)
            request = EngineRequest(
                [*prompt, *ids], rules, name, f"h{number}" if together else name
            )
            possible = (len(request.prompt) - 1) // BLOCK * BLOCK
            async with aclosing(engine.generate(request)) as stream:
                async for chunk in stream:
                    ids += chunk.token_ids
                    cached = chunk.cached_tokens or cached
        return cached, possible

    found = await asyncio.gather(*(one() for _ in range(2 * CONCURRENCY)))
    return sum(cached for cached, _ in found) / sum(possible for _, possible in found)


def _costs(found: Found) -> list[Line]:
    made = []
    for interval, target in INTERVALS.items():
        ways = found.cpu[interval]
        for way, bound in (("http", target), ("the router alone", None)):
            pairs = list(zip(ways[way], ways["in process"], strict=True))
            made.append(
                Line(
                    f"CPU per token, interval {interval}, {way}",
                    tuple(ours / theirs for ours, theirs in pairs),
                    statistics.median(ways[way]),
                    statistics.median(ways["in process"]),
                    "µs",
                    bound,
                )
            )
    return made


def _others(found: Found) -> list[Line]:
    made = []
    for interval, over in found.run_over.items():
        p90 = float(sorted(over)[math.ceil(0.9 * len(over)) - 1])
        made.append(
            Line(f"tokens after a cut, p90, interval {interval}", (p90,), p90, None, "", RUN_OVER)
        )
    for way, hits in found.hits.items():
        target = HITS if way == "with affinity" else None
        middle = statistics.median(hits)
        made.append(
            Line(f"prefix hits of re-entries, {way}", tuple(hits), middle, None, "", target)
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
