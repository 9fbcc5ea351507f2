"""`python -m tests.bench`: alternating rounds, a table of ratios, and every figure as JSON."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import uvloop

from ponder.engine.vllm import cpu_settings

from . import machine
from .errors import BenchError
from .load import Measurement, measure
from .probe import Checker, lengths_of
from .report import Round, lines, table
from .scenario import ANSWER_TOKENS, PLAIN_TOKENS, POINTS, Lengths, Point, Workload
from .server import SERVERS, Server, log_tail, running

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "server" / "ponder" / "models" / "tiny"


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # children are ended on both
    options = _options()
    points = [point for point in POINTS if options.only in point.name]
    if not points:
        print(f"no point's name contains {options.only!r}: {', '.join(p.name for p in POINTS)}")
        return 2
    rounds: list[Round] = []
    try:
        for found in _rounds(options, points):
            rounds.append(found)
            _write(options, rounds)  # an interrupted run keeps its finished rounds
    except BenchError as error:
        print(f"benchmark stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(f"\n{table(rounds)}\n\nevery figure: {options.out}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, default=BUNDLED, help="model directory")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="window of a point")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds before each window")
    parser.add_argument("--only", default="", help="points whose name contains this")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results" / "benchmark.json")
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
    workload = Workload(_end_id(options.model), options.temperature, options.end_bias)
    with tempfile.TemporaryDirectory(prefix="ponder-bench-") as folder:
        for number in range(options.rounds):
            order = SERVERS if number % 2 == 0 else SERVERS[::-1]
            found: dict[str, dict[str, Measurement]] = {}
            for name in order:
                log = Path(folder) / f"{number}-{name}.log"
                with running(name, options.model, options.reasoning_parser, log) as server:
                    print(f"round {number + 1}/{options.rounds}: {name}", flush=True)
                    try:
                        found[name] = uvloop.run(_side(server, workload, points, options))
                    except BenchError as error:
                        raise BenchError(f"{error}\n{name}'s log:\n{log_tail(log)}") from error
            yield found


async def _side(
    server: Server, workload: Workload, points: list[Point], options: argparse.Namespace
) -> dict[str, Measurement]:
    """All points on one server."""
    found: dict[str, Measurement] = {}
    none = Lengths(closing=0, offset=0)
    for point in points:
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
        found[point.name] = measured
        print(f"  {_progress(server.name, point, measured, checker)}", flush=True)
    return found


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


def _end_id(model: Path) -> int:
    """The token that ends a thought, by the checkpoint's contract."""
    from tokenizers import Tokenizer

    contract = json.loads((model / "ponder.json").read_text(encoding="utf-8"))
    token_id = Tokenizer.from_file(str(model / "tokenizer.json")).token_to_id(contract["think_end"])
    if not isinstance(token_id, int):
        raise BenchError(f"{contract['think_end']} is not a single token of {model}")
    return token_id


def _write(options: argparse.Namespace, rounds: list[Round]) -> None:
    figures = [
        {
            "figure": line.label,
            "unit": line.unit,
            "ponder": line.ponder,
            "vllm": line.vllm,
            "median": line.median,
            "values": line.values,
            "target": str(line.target) if line.target else None,
            "met": line.target.met(line.median) if line.target else None,
        }
        for line in lines(rounds)
    ]
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
        "figures": figures,
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
