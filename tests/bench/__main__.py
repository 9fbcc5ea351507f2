"""`python -m tests.bench`: alternating rounds, a table of ratios, and every figure as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import uvloop

from ponder.engine.vllm import cpu_settings

from . import machine
from .errors import BenchError, ended
from .load import Measurement, measure
from .probe import Checker, lengths_of
from .report import Round, lines, table
from .scenario import (
    ANSWER_TOKENS,
    BUNDLED,
    PLAIN_TOKENS,
    POINTS,
    RESULTS,
    Lengths,
    Point,
    Workload,
    end_id,
)
from .server import SERVERS, Server, log_tail, running


def main() -> int:
    options = _options()
    points = [point for point in POINTS if options.only in point.name]
    if not points:
        print(f"no point's name contains {options.only!r}: {', '.join(p.name for p in POINTS)}")
        return 2
    return ended(lambda: _compare(options, points))


def _compare(options: argparse.Namespace, points: list[Point]) -> None:
    rounds: list[Round] = []
    for found in _rounds(options, points):
        rounds.append(found)
        _write(options, rounds)  # an interrupted run keeps its finished rounds
    print(f"\n{table(lines(rounds), 'Ponder', 'vLLM')}\n\nevery figure: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, default=BUNDLED, help="model directory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="window of a point")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before each window")
    parser.add_argument("--only", default="", help="points whose name contains this")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmark.json")
    parser.add_argument(
        "--reasoning-parser", default="deepseek_r1", help="of the baseline, by vLLM's name"
    )
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument(
        "--end-bias",
        type=float,
        default=0.0,
        help="logit bias on the end marker, for models whose thoughts do not end by themselves",
    )
    return parser.parse_args()


def _rounds(options: argparse.Namespace, points: list[Point]) -> Iterator[Round]:
    """Each on servers of its own, both up at once: one idles while the other is measured."""
    workload = Workload(end_id(options.model), options.temperature, options.end_bias)
    with tempfile.TemporaryDirectory(prefix="ponder-bench-") as folder:
        for number in range(options.rounds):
            logs = {name: Path(folder) / f"{number}-{name}.log" for name in SERVERS}
            with ExitStack() as stack:
                servers = [
                    stack.enter_context(
                        running(name, options.model, options.reasoning_parser, logs[name])
                    )
                    for name in SERVERS
                ]
                print(f"round {number + 1}/{options.rounds}", flush=True)
                try:
                    yield uvloop.run(_round(number, servers, workload, points, options))
                except BenchError as error:
                    tails = "\n".join(f"{name}'s log:\n{log_tail(logs[name])}" for name in logs)
                    raise BenchError(f"{error}\n{tails}") from error


async def _round(
    number: int,
    servers: Sequence[Server],
    workload: Workload,
    points: Sequence[Point],
    options: argparse.Namespace,
) -> Round:
    """Every point on one server and then at once on the other, which first in turn."""
    found: dict[str, dict[str, Measurement]] = {server.name: {} for server in servers}
    for index, point in enumerate(points):
        for server in servers if (number + index) % 2 == 0 else servers[::-1]:
            measured = await _measured(server, workload, point, options)
            found[server.name][point.name] = measured
    return found


async def _measured(
    server: Server, workload: Workload, point: Point, options: argparse.Namespace
) -> Measurement:
    none = Lengths(closing=0, offset=0)
    lengths = none if point.budget is None else lengths_of(server, workload, point.budget)
    checker = Checker(server.name, point, lengths)
    measured = await measure(
        server,
        workload.payloads(server.name, point, lengths),
        concurrency=point.concurrency,
        tokens=workload.useful_tokens(point),
        check=checker,
        warmup=options.warmup,
        seconds=options.seconds,
    )
    print(f"  {_progress(server.name, point, measured, checker)}", flush=True)
    return measured


def _progress(server: str, point: Point, measured: Measurement, checker: Checker) -> str:
    first = "" if measured.ttft is None else f"  first token {1000 * measured.ttft:6.1f} ms"
    natural = ""
    if server == "ponder" and point.budget is None:
        natural = f"  {checker.natural / checker.replies:.0%} of thoughts ended by themselves"
    return (
        f"{server:6} {point.name:23} {measured.tokens_per_second:7.0f} tokens/s"
        f"  {measured.cpu_per_1000:.3f} CPU s/1000 ({measured.front_cpu_per_1000:.3f} HTTP)"
        f"  client {measured.client_cpu:4.0%}"
        f"  others {measured.other_cpu:4.0%}"
        f"  {measured.pss_mib:5.0f} MiB{first}{natural}"
    )


def _write(options: argparse.Namespace, rounds: list[Round]) -> None:
    result = {
        "machine": machine.describe(),
        "settings": {
            "model": options.model.name,
            "rounds": len(rounds),
            "warmup": options.warmup,
            "seconds": options.seconds,
            "temperature": options.temperature,
            "end_bias": options.end_bias,
            "answer_tokens": ANSWER_TOKENS,
            "plain_tokens": PLAIN_TOKENS,
            "reasoning_parser": options.reasoning_parser,
            "engine": cpu_settings(options.model),
        },
        "figures": [line.as_json(*SERVERS) for line in lines(rounds)],
        "rounds": [
            {
                name: {point: asdict(measured) for point, measured in side.items()}
                for name, side in one.items()
            }
            for one in rounds
        ],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
