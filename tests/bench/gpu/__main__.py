"""`python -m tests.bench.gpu`: stages that fail by themselves, a line for each, figures as JSON.

Every stage is a process of its own, so that neither an error of the GPU nor a hang reaches another.
Figures are written after each one: what a limit of time cuts off loses nothing that was measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import machine
from ..scenario import RESULTS, ROOT
from .methods import VARIANTS

SIDE_BY_SIDE = 8


@dataclass(slots=True)
class Running:
    """A stage's process, and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    folder: Path
    began: float

    def result(self, stopped: bool) -> dict[str, Any]:
        """Its figures, or why there are none."""
        seconds = round(time.monotonic() - self.began, 1)
        try:
            figures = json.loads((self.folder / "figures.json").read_text())
        except FileNotFoundError:
            errors = (self.folder / "errors").read_text(errors="replace").strip()
            why = "the time was over" if stopped else errors[-2500:] or "it wrote nothing"
            return {"ok": False, "why": why, "seconds": seconds}
        return {"ok": True, "seconds": seconds, **figures}


def plan() -> list[list[tuple[str, str]]]:
    """Groups of (name, stage); a group's stages run side by side, one group after the other.

    What is timed is alone, or has beside it what it is to share the GPU with.
    """
    eight = [(f"eight-{n}", "speed:31M:bfloat16") for n in range(SIDE_BY_SIDE)]
    checks = ["agreement", *(f"method:{name}" for name in VARIANTS)]
    first, later = (
        ("speed:tiny:float32", "speed:31M:bfloat16"),
        ("cold-start:31M", "cold-start:tiny", "speed:31M:float32", "speed:tiny:bfloat16"),
    )
    sampling = ("graphs:tiny:float32", "graphs:31M:bfloat16")
    return [
        [(name, name) for name in checks],
        *([(name, name)] for name in (*sampling, *first)),
        eight,
        *([(name, name)] for name in later),
    ]


def start(name: str, stage: str, folder: Path, options: argparse.Namespace) -> Running:
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "tests.bench.gpu.stages", stage, "--folder", str(folder)]
    command += ["--scale", str(options.scale), "--device", options.device]
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    if options.device == "cpu":
        quiet["CUDA_VISIBLE_DEVICES"] = ""
    with (folder / "errors").open("wb") as errors:
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **quiet}, stderr=errors)
    return Running(name, process, folder, time.monotonic())


def finish(running: Sequence[Running], end: float) -> dict[str, dict[str, Any]]:
    """Wait for stages until `end` (of the monotonic clock), then stop them."""
    found = {}
    for stage in running:
        stopped = False
        try:
            stage.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            stage.process.kill()
            stage.process.wait()
            stopped = True
        found[stage.name] = stage.result(stopped)
        print(line(stage.name, found[stage.name]), flush=True)
    return found


def line(name: str, result: dict[str, Any]) -> str:
    if not result["ok"]:
        return f"FAILED {name} after {result['seconds']} s: {result['why']}"
    shown = {k: v for k, v in result.items() if k not in ("ok", "seconds")}
    return f"ok     {name} in {result['seconds']} s: {json.dumps(shown)}"


def main() -> int:
    """0 where every stage ran and agreed; 1 otherwise."""
    options = _options()
    end = time.monotonic() + options.seconds
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="ponder-gpu-") as room:
        for group in plan():
            chosen = [pair for pair in group if options.only in pair[0]]
            if not chosen:
                continue
            if time.monotonic() > end:
                found |= {n: {"ok": False, "why": "no time", "seconds": 0} for n, _ in chosen}
                continue
            jobs = options.jobs if group[0][0].startswith(("agree", "method")) else len(chosen)
            for first in range(0, len(chosen), jobs):
                running = [
                    start(name, stage, Path(room) / name, options)
                    for name, stage in chosen[first : first + jobs]
                ]
                found |= finish(running, end)
            _write(options, found)
    failed = [name for name, result in found.items() if not result["ok"]]
    print(f"{len(found) - len(failed)} of {len(found)} stages ok; figures: {options.out}")
    return int(bool(failed))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.gpu",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--out", type=Path, default=RESULTS / "gpu.json", help="where the figures go")
    add("--seconds", type=float, default=600.0, help="stop what runs then")
    add("--only", default="", metavar="TEXT", help="stages whose names hold this text")
    add("--jobs", type=int, default=16, help="checks that run side by side")
    add("--scale", type=float, default=1.0, help="of the timed batches: below 1 to try it out")
    add("--device", choices=("cuda", "cpu"), default="cuda", help="what trains")
    return parser.parse_args()


def _write(options: argparse.Namespace, found: dict[str, dict[str, Any]]) -> None:
    result = {"machine": {**machine.describe(), "gpu": _gpu()}, "stages": found}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def _gpu() -> str | None:
    asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


if __name__ == "__main__":
    sys.exit(main())
