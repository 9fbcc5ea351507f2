"""The reproduction of docs/protocol.md, resumed run by run, then its results and plots.

python -m studies.reproduction --base runs/tiny-sft
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runner import Study


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all runs are recorded and reported, 1 when one failed, 2 where there is no cold start,
    130 on Ctrl-C.
    """
    options = _parser().parse_args(argv)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

    from .report import write_report
    from .runner import Study

    if not options.report_only:
        try:
            study = Study(options.base, options.results, options.work)
        except OSError as error:
            _say(f"{error}: run `ponder train tiny-sft` first, or name its directory with --base")
            return 2
        if other := study.of_other_code():
            _say(
                f"{other} records are of code that did otherwise, and count for nothing here: all "
                "runs start anew (--report-only shows what was recorded)"
            )
        if code := _execute(study, options.jobs):
            return code
    print(write_report(options.results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.reproduction",
        description="Run what the reproduction still lacks, then write its results and plots.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--base", type=Path, default=Path("tiny-sft"), help="directory of the cold start")
    add(
        "--results",
        type=Path,
        default=Path("docs/results"),
        help="directory of the records, kept in the repository; the report lies beside it",
    )
    add("--work", type=Path, default=Path("runs/study"), help="directory of the runs themselves")
    add("--jobs", type=int, choices=range(1, 65), default=2, metavar="N", help="runs at a time")
    add("--report-only", action="store_true", help="start nothing: write what is recorded")
    return parser


def _execute(study: Study, jobs: int) -> int:
    from .runner import StudyError

    try:
        study.execute(jobs)
    except StudyError as error:
        _say(f"{error}; the same command resumes the others")
        return 1
    except KeyboardInterrupt:
        _say("stopped; the same command resumes")
        return 130
    return 0


def _say(text: str) -> None:
    print(f"study: {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
