"""`python -m studies.device`: a cold start and arms from it, within a limit of time.

What there is already is not made again: a cold start that was exported is used as it is, and every
arm goes on from its last checkpoint. RESULTS gets what is small: the cold start's weights and its
acceptance, and an archive for each arm with its metrics, its log and its last weights in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ponder.training.run.recipe import PolicyRecipe, find_recipe, load_recipe

ROOT = Path(__file__).parents[2]
# Of an arm: read by people, and served.
_KEPT = ("metrics.jsonl", "recipe.json", "samples.jsonl", "model.safetensors", "ponder.json")
_EXPORT_S = 30.0


def main() -> int:
    """0 when all that was asked for was reached; 1 when a part failed, which is named."""
    options = _options()
    end = time.monotonic() + options.seconds
    for folder in (options.work, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    base = options.work / "cold-start"
    if not (base / "ponder.json").exists() and not _cold_start(options, base):
        return 1
    if not (options.results / "acceptance.json").exists():
        _accept(options, base)
    return _arms(options, base, end)


def _cold_start(options: argparse.Namespace, base: Path) -> bool:
    command = ["train", options.cold_start, "--out", str(base), "--for", str(options.cold_seconds)]
    log = options.work / "cold-start.log"
    code = _ponder(command, log).wait()
    _say(f"cold start ended with {code}: {_last_line(log)}")
    if code:
        return False
    files = [p for p in base.iterdir() if p.is_file() and p.suffix != ".partial"]
    archive = options.results / "cold-start"
    staged = options.work / "cold-start-archive"
    staged.mkdir(parents=True, exist_ok=True)
    for path in (*files, log):
        shutil.copy(path, staged / path.name)
    shutil.make_archive(str(archive), "tar", staged)
    return True


def _accept(options: argparse.Namespace, base: Path) -> None:
    from studies.reproduction.setting import accept, problems

    arm = load_recipe(find_recipe(options.arms[0]))
    assert isinstance(arm, PolicyRecipe)
    found = accept(base, problems(options.each, arm.tasks))
    (options.results / "acceptance.json").write_text(json.dumps(found.as_json(), indent=1) + "\n")
    for line in found.lines():
        _say(line)


def _arms(options: argparse.Namespace, base: Path, end: float) -> int:
    """All arms at once; each ends by itself in time to export."""
    left = end - time.monotonic() - _EXPORT_S
    if left <= 0:
        _say("no time is left for the arms: the same command with more of it goes on")
        return 1
    running = {}
    for arm in options.arms:
        name = Path(arm).stem
        out = options.work / name
        command = ["train", arm, "--out", str(out), "--base", str(base), "--threads", "1"]
        command += ["--for", str(round(left, 1))]
        command += [word for change in options.changes for word in ("--set", change)]
        if any((out / "checkpoints").glob("checkpoint-*")):
            command.append("--resume")
        log = options.work / f"{name}.log"
        running[name] = (_ponder(command, log), out, log)
    failed = 0
    for name, (process, out, log) in running.items():
        try:
            code = process.wait(max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        failed += bool(code)
        _keep(out, log, options.results)
        _say(f"{name} ended with {code}: {_last_line(log)}")
    return int(failed > 0)


def _keep(out: Path, log: Path, results: Path) -> None:
    """One archive an arm, so that few files travel."""
    staged = out.with_name(f"{out.name}-archive")
    staged.mkdir(parents=True, exist_ok=True)
    for path in (*(out / kept for kept in _KEPT), log):
        if path.exists():
            shutil.copy(path, staged / path.name)
    shutil.make_archive(str(results / out.name), "gztar", staged)


def _ponder(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    quiet = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    with log.open("ab") as written:
        return subprocess.Popen(
            [sys.executable, "-m", "ponder.cli.main", *command],
            cwd=ROOT,
            env={**os.environ, **quiet},
            stdout=written,
            stderr=subprocess.STDOUT,
        )


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()
    return lines[-1][-300:] if lines else ""


def _say(text: str) -> None:
    print(f"study: {text}", flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m studies.device",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--cold-start", required=True, metavar="RECIPE", help="a shipped name or a YAML file")
    add("--cold-seconds", type=float, default=210.0, help="for the cold start")
    add("--arms", nargs="+", required=True, metavar="RECIPE", help="what starts from it")
    add("--each", type=int, default=1, help="problems of a family and difficulty to accept it on")
    add("--set", action="append", default=[], dest="changes", help="KEY=VALUE for every arm")
    add("--for", type=float, default=480.0, dest="seconds", help="seconds for everything")
    add("--work", type=Path, default=Path("runs/device"), help="directory of the runs")
    add("--results", type=Path, default=Path("runs/device/results"), help="what is small")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
