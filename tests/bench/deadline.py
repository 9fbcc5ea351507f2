"""`python -m tests.bench.deadline`: how many deadlines are met under a load that swings.

Requests come at random, for some seconds 3 a second and for as many 12, each with half a second,
one or two. No thought ends by itself and every answer takes 24 tokens. In each round three rules
face the same arrivals: Ponder's (`p90 × safety`); the same with means and without a safety
(`mean × 1`), by a server that is patched so; and a plain cap of as many tokens as Ponder's rule
thought in that round (`cap`), which knows no time. What counts is the client's clock, from the
first byte sent to the last received.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import random
import re
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop

from . import machine
from .client import connect
from .errors import BenchError, ended
from .report import Line, Target, table
from .scenario import BUNDLED, MODEL_NAME, RESULTS, Point, encode, end_id, questions
from .server import Server, running

RULES = {"p90 × safety": "ponder", "mean × 1": "means", "cap": "ponder"}
"""By which server each rule is kept."""
SLOW, FAST = 3.0, 12.0  # requests a second
DEADLINES_MS = (500, 1000, 2000)
ANSWER_TOKENS = 24
TARGETS = {"met": Target(0.99, at_least=True), "unused": Target(0.13, at_least=False)}
_PATIENCE_SECONDS = 120.0
_REPORT = re.compile(rb'"finish_reason": "\w+", "ponder": (\{[^{}]*\})')
_UNREACHABLE = '"deadline_unreachable"'


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it is sent, in seconds of its round, and what became of it.

    `seconds` until its last byte, and its thinking tokens; None where it was refused.
    """

    at: float
    deadline_ms: int
    seconds: float | None = None
    thinking_tokens: int | None = None
    end_cause: str | None = None
    said_met: bool | None = None


Round = Mapping[str, Sequence[Asked]]
"""Rule → what became of each request."""


def main() -> int:
    options = _options()
    return ended(lambda: _compare(options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.deadline", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of arrivals, by each rule")
    parser.add_argument("--swing", type=float, default=5.0, help="seconds of either load")
    parser.add_argument("--out", type=Path, default=RESULTS / "benchmark-deadline.json")
    return parser.parse_args()


def _compare(options: argparse.Namespace) -> None:
    rounds = _begun(options)
    with tempfile.TemporaryDirectory(prefix="ponder-bench-") as folder, ExitStack() as stack:
        servers = {
            name: stack.enter_context(running(name, BUNDLED, "", Path(folder) / f"{name}.log"))
            for name in sorted(set(RULES.values()) if len(rounds) < options.rounds else ())
        }
        while len(rounds) < options.rounds:
            rounds.append(uvloop.run(_round(options, servers, len(rounds))))
            _write(options, rounds)  # an interrupted run goes on after its finished rounds
            _show(len(rounds), rounds[-1])
    print(f"\n{table(_lines(rounds), 'this', 'that')}\n\nevery figure: {options.out}")


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "model": BUNDLED.name,
        "seconds": options.seconds,
        "swing_seconds": options.swing,
        "per_second": [SLOW, FAST],
        "deadlines_ms": list(DEADLINES_MS),
        "answer_tokens": ANSWER_TOKENS,
    }


def _begun(options: argparse.Namespace) -> list[Round]:
    """The finished rounds of an earlier run. Raises `BenchError` for one with other settings."""
    if not options.out.exists():
        return []
    before = json.loads(options.out.read_text(encoding="utf-8"))
    if before["settings"] != _settings(options):
        raise BenchError(f"{options.out} is of a run with other settings: move it, or name another")
    return [{rule: [Asked(*row) for row in rows] for rule, rows in one.items()}
            for one in before["rounds"]]  # fmt: skip


async def _round(options: argparse.Namespace, servers: Mapping[str, Server], number: int) -> Round:
    done: dict[str, Sequence[Asked]] = {}
    for rule, server in RULES.items():
        budget = None
        if rule == "cap":
            budget = round(_thinking(done["p90 × safety"]))
        await _run(servers[server], list(_arrivals(2.0, options.swing, "warm-up")), budget)
        arrivals = list(_arrivals(options.seconds, options.swing, f"round {number}"))
        done[rule] = await _run(servers[server], arrivals, budget)
    return done


def _arrivals(seconds: float, swing: float, seed: str) -> Iterator[Asked]:
    """A Poisson process whose rate changes every `swing` seconds."""
    dice, deadlines, at = random.Random(seed), itertools.cycle(DEADLINES_MS), 0.0
    while True:
        rate = FAST if int(at / swing) % 2 else SLOW
        at += dice.expovariate(rate)
        if at >= seconds:
            return
        yield Asked(at, next(deadlines))


async def _run(server: Server, arrivals: Sequence[Asked], budget: int | None) -> Sequence[Asked]:
    """Send each request when it is due, whatever became of those before."""
    asked = itertools.cycle(questions(Point(1, True)))
    loop = asyncio.get_running_loop()
    began = loop.time()
    marker = end_id(BUNDLED)
    try:
        async with (
            asyncio.timeout(arrivals[-1].at + _PATIENCE_SECONDS if arrivals else None),
            asyncio.TaskGroup() as group,
        ):
            sent = []
            for one in arrivals:
                await asyncio.sleep(began + one.at - loop.time())
                payload = encode(_body(next(asked), one, budget, marker))
                sent.append(group.create_task(_ask(server, one, payload)))
    except* BenchError as errors:
        raise errors.exceptions[0] from None
    except* TimeoutError:
        raise BenchError("the server stopped answering under load") from None
    return [task.result() for task in sent]


def _body(question: str, asked: Asked, budget: int | None, marker: int) -> dict[str, Any]:
    """No thought and no answer ends by itself; a cap is cut exactly, and has no deadline."""
    ponder = {"min_answer_tokens": ANSWER_TOKENS, "max_answer_tokens": ANSWER_TOKENS,
              "grace_tokens": 0, "hint": False, "loop_exit": False}  # fmt: skip
    if budget is None:
        ponder["deadline_ms"] = asked.deadline_ms
    return {
        "model": MODEL_NAME,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "ignore_eos": True,
        "logit_bias": {str(marker): -100},
        "thinking_token_budget": -1 if budget is None else budget,
        "ponder": ponder,
    }


async def _ask(server: Server, asked: Asked, payload: bytes) -> Asked:
    connection = await connect(server.port)
    try:
        reply = await connection.ask(payload)
    except BenchError as error:
        if _UNREACHABLE not in str(error):
            raise
        return asked
    finally:
        connection.close()
    found = _REPORT.search(reply.tail)
    if found is None:
        raise BenchError(f"a stream ended without a report: {reply.tail[-500:]!r}")
    report = json.loads(found[1])
    if report["answer_tokens"] != ANSWER_TOKENS:
        raise BenchError(f"an answer of {ANSWER_TOKENS} tokens was asked for: {report}")
    return Asked(
        asked.at,
        asked.deadline_ms,
        reply.ended - reply.started,
        report["thinking_tokens"],
        report["end_cause"],
        report["deadline_met"],
    )


# -- figures -----------------------------------------------------------------------------------


def _thinking(asked: Sequence[Asked]) -> float:
    answered = [one.thinking_tokens for one in asked if one.thinking_tokens is not None]
    if not answered:
        raise BenchError("no request was answered: the machine is too slow for these deadlines")
    return statistics.fmean(answered)


def figures(asked: Sequence[Asked]) -> dict[str, float]:
    """Of the answered: the share in time, milliseconds too late, the share of time left unused.

    `refused` is a share of all; `wrong` of the answered of whom the server said otherwise.
    """
    took = [(one, one.seconds) for one in asked if one.seconds is not None]
    late = [1000 * seconds - one.deadline_ms for one, seconds in took]
    over = sorted(max(0.0, by) for by in late)
    unused = [max(0.0, -by) / one.deadline_ms for (one, _), by in zip(took, late, strict=True)]
    told = [(one.said_met, by <= 0) for (one, _), by in zip(took, late, strict=True)
            if one.said_met is not None]  # fmt: skip
    return {
        "met": statistics.fmean(by <= 0 for by in late),
        "overshoot_p95_ms": over[math.ceil(0.95 * len(over)) - 1],
        "overshoot_max_ms": over[-1],
        "unused": statistics.fmean(unused),
        "thinking_tokens": _thinking(asked),
        "refused": 1 - len(took) / len(asked),
        "wrong": statistics.fmean(said != met for said, met in told) if told else 0.0,
    }


def _lines(rounds: Sequence[Round]) -> list[Line]:
    made = []
    for rule in RULES:
        each = [figures(one[rule]) for one in rounds]
        for name in each[0]:
            values = tuple(one[name] for one in each)
            target = TARGETS.get(name) if rule == "p90 × safety" else None
            label = f"{rule}, {name.removesuffix('_ms')}"
            unit = "ms" if name.endswith("_ms") else "tokens" if "tokens" in name else "share"
            made.append(Line(label, values, statistics.median(values), None, unit, target))
    return made


def _show(number: int, one: Round) -> None:
    for rule, asked in one.items():
        found = "  ".join(f"{name} {value:.3g}" for name, value in figures(asked).items())
        print(f"round {number}  {rule:8}  {len(asked)} requests  {found}", flush=True)


def _write(options: argparse.Namespace, rounds: Sequence[Round]) -> None:
    result = {
        "machine": machine.describe(),
        "settings": _settings(options),
        "figures": [line.as_json("this", "that") for line in _lines(rounds)],
        "columns": list(Asked.__dataclass_fields__),
        "rounds": [
            {rule: [list(asdict(row).values()) for row in rows] for rule, rows in one.items()}
            for one in rounds
        ],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
