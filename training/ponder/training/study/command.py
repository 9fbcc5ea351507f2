"""`ponder study`: the reproduction of docs/protocol.md, resumed run by run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from ponder.training.study.runner import Study


class Options(BaseModel):
    """Run what the reproduction still lacks, then write its results and plots."""

    base: Path = Field(
        default=Path("tiny-sft"),
        description="directory of the cold start (`ponder train tiny-sft`)",
    )
    results: Path = Field(
        default=Path("docs/results"),
        description="directory of the records, kept in the repository; the report lies beside it",
    )
    work: Path = Field(default=Path("runs/study"), description="directory of the runs themselves")
    jobs: int = Field(default=2, ge=1, le=64, description="runs at a time, one thread each")
    report_only: bool = Field(
        default=False, description="start nothing: write the results of what is recorded"
    )


def run(options: Options) -> int:
    """0 when all runs are recorded and reported, 1 when one failed, 2 where there is no cold start,
    130 on Ctrl-C.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from ponder.training.study.report import write_report
    from ponder.training.study.runner import Study

    if not options.report_only:
        try:
            study = Study(options.base, options.results, options.work)
        except OSError as error:
            print(
                f"ponder study: {error}: run `ponder train tiny-sft` first, or name its directory "
                "with --base",
                file=sys.stderr,
            )
            return 2
        if other := study.of_other_code():
            print(
                f"ponder study: {other} records are of code that has changed since, and count for "
                "nothing here: all runs start anew (--report-only shows what was recorded)",
                file=sys.stderr,
            )
        if code := _execute(study, options.jobs):
            return code
    print(write_report(options.results))
    return 0


def _execute(study: Study, jobs: int) -> int:
    from ponder.training.study.runner import StudyError

    try:
        study.execute(jobs)
    except StudyError as error:
        print(f"ponder study: {error}; the same command resumes the others", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ponder study: stopped; the same command resumes", file=sys.stderr)
        return 130
    return 0
