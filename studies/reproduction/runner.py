"""Executes the plan's missing runs, several at a time, and keeps a record of each.

RESULTS/started.jsonl     a line per run that was ever started
RESULTS/runs/KEY.json     the record of a finished run: recipe, curve, measurements
WORK/KEY/                 the run itself, from which a killed one resumes
"""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import platform
import signal
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ponder.cage.parent import die_with
from ponder.training.run.directory import RECIPE, checkpoints, write_whole

from .arms import PROTOCOL_VERSION, Base, Planned
from .behaviour import Behaviour
from .records import COLD_START, Record, Recorded, read_records


class StudyError(Exception):
    """A run failed; the message names it."""


class Study:
    """The study on one cold start; a run with a record under `results` is never repeated.

    A run that diverges is a result and recorded as one. Raises `OSError` where `base` holds no
    checkpoint.
    """

    def __init__(self, base: Path, results: Path, work: Path) -> None:
        self._base = Base.at(base)
        self._results = results
        self._work = work
        (results / "runs").mkdir(parents=True, exist_ok=True)
        if cold := self._cold():
            # Keys name the behaviour as first measured: a run may go on at another machine.
            self._base = replace(self._base, behaviour=Behaviour.recorded(cold))

    def missing(self) -> list[Planned]:
        """Runs without a record, in the plan's order; scored runs only once their arm is tuned."""
        return self._recorded().missing()

    def of_other_code(self) -> int:
        """Records that do not count: runs on this base, made by code that has changed since."""
        records = read_records(self._results)
        return sum(
            r["base_sha256"] == self._base.sha256 and not self._base.made(r) for r in records
        )

    def execute(self, jobs: int, end: float = math.inf) -> None:
        """Execute all missing runs, `jobs` at a time; an interrupt leaves running ones resumable.

        So does `end` (of the monotonic clock), after which no step begins. When a run fails, waits
        for the runs beside it and raises `StudyError`.
        """
        if self._cold() is None:
            _measure_cold_start(self._base, self._results)
        recorded = self._recorded()
        context = multiprocessing.get_context("spawn")
        with (
            tqdm(
                total=recorded.total(),
                initial=len(recorded.counted()),
                desc="study",
                unit="run",
            ) as bar,
            ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker) as pool,
        ):
            while (todo := self.missing()) and time.monotonic() < end:
                # Tuning is over for all arms of a stage before its first scored run starts.
                batch = list(takewhile(partial(_beside, todo[0]), todo))
                futures = {
                    pool.submit(execute, run, self._results, self._work, end): run for run in batch
                }
                for future in as_completed(futures):
                    if error := future.exception():
                        pool.shutdown(wait=False, cancel_futures=True)
                        raise StudyError(f"{futures[future].key} failed: {error!r}") from error
                    bar.set_postfix_str(futures[future].label)
                    bar.update(len(self._recorded().counted()) - bar.n)

    def _recorded(self) -> Recorded:
        cold = self._cold()
        assert cold is not None
        return Recorded.of(read_records(self._results), cold, self._base)

    def _cold(self) -> Record | None:
        """The measurement of the base itself."""
        records = read_records(self._results)
        return next((r for r in records if r["kind"] == COLD_START and self._base.made(r)), None)


def _beside(first: Planned, run: Planned) -> bool:
    """Whether both may run at the same time."""
    return (run.kind, run.arm.stage) == (first.kind, first.arm.stage)


def cold_key(base: Base) -> str:
    return f"{COLD_START}-{base.sha256[:8]}-{base.behaviour.label}"


def _start_worker() -> None:
    """Load all code at once, so that later edits of the files do not change a running study.

    Ctrl-C and a killed study end the workers, too; their runs resume from their checkpoints.
    """
    study = multiprocessing.parent_process()
    assert study is not None
    assert study.pid is not None
    die_with(study.pid)
    for name in ("ponder.training.run.run", f"{__package__}.measure"):
        import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def execute(run: Planned, results: Path, work: Path, end: float) -> None:
    """Train (or resume), measure and record one run, on one thread. A run that has not finished by
    `end` gets no record and can be resumed.
    """
    if time.monotonic() > end:
        return
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    import torch

    from ponder.tasks.workers import VerifierPool
    from ponder.training.engines.protocol import Diverged
    from ponder.training.run.run import Run

    from .measure import MANY_SAMPLES, NATURAL_SAMPLES, Bench

    torch.set_num_threads(1)
    out = work / run.key
    if not out.exists():
        _append(results / "started.jsonl", {**_identity(run), "started": _now()})
    machines = _machines(out)
    _move_in(out, run.recipe.base)
    failure = {}
    try:
        with VerifierPool() as pool:
            Run(run.recipe, out, pool.judge, resume=True).train(progress=False, end=end)
    except Diverged as error:
        failure = {"diverged": str(error)}
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().split("\n")[:-1]]
    last_step = max((line["step"] for line in lines if line["kind"] == "step"), default=0)
    if not failure and (last_step < run.recipe.optimisation.steps or time.monotonic() > end):
        return
    recipe = run.recipe.model_copy(update={"base": run.base.path.name})
    record: dict[str, Any] = {
        **_identity(run),
        **failure,
        "recipe": json.loads(recipe.model_dump_json()),
        "machines": machines,
        "finished": _now(),
        "steps": [_rounded(line) for line in lines if line["kind"] == "step"],
        "validations": [_rounded(line) for line in lines if line["kind"] == "validation"],
    }
    if run.kind != "tuning" and not failure:
        samples = MANY_SAMPLES if run.recipe.method.method in ("dapo", "htpo") else NATURAL_SAMPLES
        # Not the exported weights: bfloat16 would round a part of a small rate's training away.
        last = checkpoints(out)[-1]
        record["measured"] = Bench(last, run.base.path).everything(samples).as_json()
        if run.arm.keep_checkpoints:
            updates = run.recipe.optimisation.updates
            record["frontier"] = list(_frontier(out, run.base.path, updates))
    _write(results / "runs" / f"{run.key}.json", record)


def _frontier(out: Path, base: Path, updates: int) -> Iterator[Record]:
    """Natural mode at some of the saved checkpoints, the last one among them."""
    from .measure import FRONTIER_STEPS, Bench

    for path in checkpoints(out):
        step = int(path.name.rpartition("-")[2]) // updates
        if step % FRONTIER_STEPS:
            continue
        natural = Bench(path, base).natural()
        yield {"step": step, "correct": natural.correct, "tokens": natural.tokens}


def _measure_cold_start(base: Base, results: Path) -> None:
    import torch

    from .measure import MANY_SAMPLES, Bench, test_problems
    from .variance import gradient_variance

    torch.set_num_threads(2)
    bench = Bench(base.path, base.path)
    problems = test_problems()
    record = {
        "key": cold_key(base),
        "kind": COLD_START,
        "arm": COLD_START,
        "seed": 0,
        "protocol": PROTOCOL_VERSION,
        "base_sha256": base.sha256,
        "behaviour": asdict(base.behaviour),
        "machine": _machine(),
        "finished": _now(),
        "problems": [
            {"id": p.id, "family": p.family, "difficulty": p.difficulty} for p in problems
        ],
        "floors": bench.floors(),
        "measured": bench.everything(MANY_SAMPLES).as_json(),
        "gradient_variance": gradient_variance(base.path),
    }
    _write(results / "runs" / f"{cold_key(base)}.json", record)


def _identity(run: Planned) -> Record:
    return {
        "key": run.key,
        "kind": run.kind,
        "arm": run.arm.name,
        "seed": run.recipe.seed,
        "protocol": PROTOCOL_VERSION,
        "base_sha256": run.base.sha256,
        "recipe_sha256": run.sha256,
        "behaviour": asdict(run.base.behaviour),
    }


def _rounded(line: Mapping[str, Any]) -> Record:
    return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in line.items()}


def _machine() -> dict[str, object]:
    import torch
    import transformers

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _machines(out: Path) -> list[dict[str, object]]:
    """Every kind of machine on which the run of this directory was trained, this one last."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "machines.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    here = _machine()
    found = [*(machine for machine in before if machine != here), here]
    _write(path, found)
    return found


def _move_in(out: Path, base: str) -> None:
    """Let a run that was begun in another checkout name its base where it is here; its key says
    that it is the same.
    """
    if (saved := out / RECIPE).exists():
        recipe = json.loads(saved.read_text(encoding="utf-8"))
        write_whole(saved, json.dumps({**recipe, "base": base}, indent=2) + "\n")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _append(path: Path, entry: Mapping[str, object]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def _write(path: Path, record: object) -> None:
    write_whole(path, json.dumps(record) + "\n")
