"""`python -m tests.bench.grants`: what a grant of a shared pool costs, beside one in memory.

A process has lanes that borrow and settle, one after the other, of one pool: in memory, in Redis,
and in Redis together with other processes. Redis is on the same machine and writes its file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "deploy")]

from borrowing import Borrowed, Borrower, borrow_in_processes, borrow_of  # noqa: E402
from ponder.server.pools.memory import MemoryPools  # noqa: E402
from ponder.server.pools.protocol import PoolSize  # noqa: E402
from stores import RedisServer  # noqa: E402

from . import machine  # noqa: E402

RESULTS = TESTS.parent / "docs" / "benchmark-grants.json"
SIZE = PoolSize(10**9, 86_400)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.grants", description=__doc__)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--lanes", type=int, default=1, help="of a process, at the same time")
    parser.add_argument("--times", type=int, default=2000, help="grants of a process")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {"memory": [], "redis": [], "redis_together": []}
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder) / "redis")
        try:
            for number in range(options.rounds):
                one = Borrower(
                    server.port, f"round {number}", SIZE, options.times, at_once=options.lanes
                )
                pools = MemoryPools(SIZE, one.lifetime)
                found["memory"].append(figures([asyncio.run(borrow_of(pools, one))]))
                found["redis"].append(figures(borrow_in_processes([one])))
                others = [replace(one, ahead=float(n)) for n in range(options.processes)]
                found["redis_together"].append(figures(borrow_in_processes(others)))
        finally:
            server.kill()
    middle = {name: middle_of(rounds) for name, rounds in found.items()}
    ratio = middle["redis"]["p50_us"] / middle["memory"]["p50_us"]
    report = {
        "machine": machine.describe(),
        "command": f"python -m tests.bench.grants --processes {options.processes} "
        f"--lanes {options.lanes} --times {options.times} --rounds {options.rounds}",
        "median": middle,
        "p50_ratio": ratio,
        "rounds": found,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, values in middle.items():
        print(name, *(f"{key} {value:.0f}" for key, value in values.items()))
    print(f"a shared grant takes {ratio:.0f} times as long; every figure: {options.out}")
    return 0


def figures(borrowed: Sequence[Borrowed]) -> dict[str, float]:
    """Of all grants together; each is followed by a settlement, which is not timed by itself."""
    seconds = [each for process in borrowed for each in process.seconds]
    parts = quantiles(seconds, n=100)
    together = max(process.together for process in borrowed)
    return {
        "p50_us": 1e6 * parts[49],
        "p99_us": 1e6 * parts[98],
        "grants_per_second": len(seconds) / together,
    }


def middle_of(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: median(each[key] for each in rounds) for key in rounds[0]}


if __name__ == "__main__":
    sys.exit(main())
