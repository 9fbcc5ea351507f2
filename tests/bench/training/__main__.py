"""`python -m tests.bench.training`: alternating rounds, a table of ratios, every figure as JSON."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from .. import machine
from ..errors import BenchError

ROOT = Path(__file__).parents[3]
BUNDLED = ROOT / "server" / "ponder" / "models" / "tiny"

Figures = Mapping[str, float]
Round = Mapping[str, Figures]
"""Side → what it measured."""

SIDES = ("ours", "stock", "two", "packing", "sampling")


@dataclass(frozen=True, slots=True)
class Line:
    """A figure: one of a round's sides over another's, and the bound on its median."""

    label: str
    unit: str
    above: tuple[str, str]
    below: tuple[str, str]
    at_most: float | None = None

    def values(self, rounds: Sequence[Round]) -> tuple[list[float], list[float]]:
        return tuple([one[s][f] for one in rounds] for s, f in (self.above, self.below))  # type: ignore[return-value]


LINES = (
    Line("a step, against stock TRL", "s", ("ours", "seconds"), ("stock", "seconds"), 1.10),
    Line("peak memory, against stock TRL", "MiB", ("ours", "peak_mib"), ("stock", "peak_mib")),
    Line("a step, 2 processes against 1", "s", ("two", "seconds"), ("ours", "seconds")),
    Line(
        "BRPO's tokens, packed against separate", "tokens",
        ("packing", "packed_tokens"), ("packing", "separate_tokens"),
    ),
    Line(
        "BRPO's time, packed against separate", "s",
        ("packing", "packed_seconds"), ("packing", "separate_seconds"),
    ),
    Line("rollouts, against generate", "tokens/s", ("sampling", "ours"), ("sampling", "generate")),
)  # fmt: skip


def main() -> int:
    options = _options()
    rounds: list[Round] = []
    try:
        for number in range(options.rounds):
            order = SIDES if number % 2 == 0 else SIDES[::-1]
            rounds.append(_round(options, number, order))
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
        prog="python -m tests.bench.training", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--model", type=Path, default=BUNDLED, help="model directory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6, help="steps a side; the first is dropped")
    parser.add_argument("--prompts", type=int, default=12, help="a step's, 8 rows each")
    parser.add_argument("--longest", type=int, default=128, help="tokens of a completion")
    parser.add_argument("--out", type=Path, default=ROOT / "bench-results" / "training.json")
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


def table(rounds: Sequence[Round]) -> str:
    """Ratios as Markdown; the machine is named above."""
    about = machine.describe()
    rows = [
        f"{len(rounds)} rounds on {about['cores']} cores of {about['cpu']}:",
        "",
        "| figure | unit | Ponder | the other | ratio, median | range | target | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in LINES:
        above, below = line.values(rounds)
        ratios = [a / b for a, b in zip(above, below, strict=True)]
        median = statistics.median(ratios)
        target = f"≤ {line.at_most:.2f}" if line.at_most else ""
        verdict = ("met" if median <= line.at_most else "missed") if line.at_most else ""
        rows.append(
            f"| {line.label} | {line.unit} | {statistics.median(above):.4g} | "
            f"{statistics.median(below):.4g} | {median:.2f} | "
            f"{min(ratios):.2f} – {max(ratios):.2f} | {target} | {verdict} |"
        )
    furthest = max(one["two"]["furthest"] for one in rounds)
    agree = all(one["two"]["processes_agree"] for one in rounds)
    rows += [
        "",
        f"Two processes: their parameters {'agree' if agree else 'DIFFER'}; "
        f"{furthest:.1e} from one process's at most.",
    ]
    return "\n".join(rows)


def _write(options: argparse.Namespace, rounds: Sequence[Round]) -> None:
    settings = ("rounds", "steps", "prompts", "longest")
    result = {
        "machine": machine.describe(),
        "settings": {name: getattr(options, name) for name in settings}
        | {"model": options.model.name},
        "table": table(rounds).splitlines(),
        "rounds": rounds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main())
