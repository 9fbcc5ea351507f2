"""The processes in which a study's runs are executed."""

from __future__ import annotations

from pathlib import Path

from killing import kill_parent

STUDY = """
import multiprocessing, os, signal
from concurrent.futures import ProcessPoolExecutor
from studies.reproduction.runner import _start_worker

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(signal.pause).result()
"""


def test_a_killed_study_takes_its_workers_with_it(tmp_path: Path) -> None:
    script = tmp_path / "study.py"
    script.write_text(STUDY)
    kill_parent([script])
