"""`python -m tests.bench.training`: alternating rounds, a table of ratios, every figure as JSON."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from .. import machine
from ..errors import BenchError, ended
from ..report import Line, Target, ratio, table
from ..scenario import BUNDLED, RESULTS, ROOT

Figures = Mapping[str, float]
Round = Mapping[str, Figures]
"""Side → what it measured."""

SIDES = ("ours", "stock", "two", "packing", "sampling")


def lines(rounds: Sequence[Round]) -> list[Line]:
    def of(
        label: str,
        unit: str,
        above: tuple[str, str],
        below: tuple[str, str],
        target: Target | None = None,
    ) -> Line:
        """A figure of one of a round's sides over another's."""
        ours, theirs = ([one[side][figure] for one in rounds] for side, figure in (above, below))
        return ratio(label, unit, ours, theirs, target)

    step, packing, sampling = ("ours", "seconds"), "packing", "sampling"
    return [
        of("a step, against stock TRL", "s", step, ("stock", "seconds"), Target(0.75, False)),
        of("peak memory, against stock TRL", "MiB", ("ours", "peak_mib"), ("stock", "peak_mib")),
        of("a step, 2 processes against 1", "s", ("two", "seconds"), step),
        of(
            "BRPO's tokens, packed against separate",
            "tokens",
            (packing, "packed_tokens"),
            (packing, "separate_tokens"),
        ),
        of(
            "BRPO's time, packed against separate",
            "s",
            (packing, "packed_seconds"),
            (packing, "separate_seconds"),
        ),
        of("rollouts, against generate", "tokens/s", (sampling, "ours"), (sampling, "generate")),
    ]


def main() -> int:
    options = _options()
    return ended(lambda: _compare(options))


def _compare(options: argparse.Namespace) -> None:
    rounds: list[Round] = []
    for number in range(options.rounds):
        order = SIDES if number % 2 == 0 else SIDES[::-1]
        rounds.append(_round(options, number, order))
        _write(options, rounds)  # an interrupted run keeps its finished rounds
    shown = table(lines(rounds), "Ponder", "the other")
    print(f"\n{shown}\n\n{_agreement(rounds)}\n\nevery figure: {options.out}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.training", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, default=BUNDLED, help="model directory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="steps a side; the first is dropped")
    parser.add_argument("--prompts", type=int, default=12, help="a step's, 8 rows each")
    parser.add_argument("--longest", type=int, default=128, help="tokens of a completion")
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json")
    options = parser.parse_args()
    if options.steps < 2 or options.prompts % 2:
        parser.error("--steps must be at least 2, --prompts even")
    return options


def _round(options: argparse.Namespace, number: int, order: Sequence[str]) -> Round:
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory(prefix="ponder-bench-") as folder:
        for side in order:
            found[side] = _measure(side, Path(folder) / side, options)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in found[side].items())
            print(f"round {number + 1}/{options.rounds}: {side:8} {shown}", flush=True)
        one, two = (
            torch.load(Path(folder) / side / f"parameters-{n}.pt")
            for n, side in ((1, "ours"), (2, "two"))
        )
        found["two"] = {**found["two"], "furthest": (one - two).abs().max().item()}
    return found


def _measure(side: str, folder: Path, options: argparse.Namespace) -> Figures:
    command = [sys.executable, "-m"]
    if side == "two":
        command += ["torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    name = "ours" if side == "two" else side
    command += ["tests.bench.training.sides", name, "--folder", str(folder)]
    for option in ("model", "prompts", "longest", "steps"):
        command += [f"--{option}", str(getattr(options, option))]
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **quiet}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BenchError(f"{side} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads((folder / "figures.json").read_text())
    return figures


def _agreement(rounds: Sequence[Round]) -> str:
    furthest = max(one["two"]["furthest"] for one in rounds)
    agree = all(one["two"]["processes_agree"] for one in rounds)
    return (
        f"Two processes: their parameters {'agree' if agree else 'DIFFER'}; "
        f"after one step {furthest:.1e} from one process's at most."
    )


def _write(options: argparse.Namespace, rounds: Sequence[Round]) -> None:
    settings = ("rounds", "steps", "prompts", "longest")
    result = {
        "machine": machine.describe(),
        "settings": {name: getattr(options, name) for name in settings}
        | {"model": options.model.name},
        "figures": [line.as_json("ponder", "other") for line in lines(rounds)],
        "two_processes": _agreement(rounds),
        "rounds": rounds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
