"""The reproduction of docs/protocol.md, resumed run by run, then its results and plots.

python -m studies.reproduction
python -m studies.reproduction accept runs/reasoner-sft
python -m studies.reproduction power
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .runner import Study

COLD_START = Path(__file__).parent / "cold-start"
"""The checkpoint of `ponder train reasoner-sft`, from which all runs of protocol 4 start."""


def main(argv: Sequence[str] | None = None) -> int:
    """0 when all runs are recorded and reported, 1 when one failed, 2 where there is no cold start,
    130 on Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in _COMMANDS:
        return _COMMANDS[words[0]](words[1:])
    options = _parser().parse_args(words)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded

    from .report import write_report
    from .runner import Study

    if not options.report_only:
        try:
            study = Study(options.base, options.results, options.work)
        except OSError as error:
            _say(f"{error}: name a cold start with --base (`ponder train reasoner-sft` makes one)")
            return 2
        if other := study.of_other_code():
            _say(
                f"{other} records are of code that behaved differently and do not count: all "
                "runs start anew (--report-only shows the records)"
            )
        if code := _execute(study, options.jobs, time.monotonic() + options.seconds):
            return code
    print(write_report(options.results))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m studies.reproduction",
        description="Execute the study's missing runs, then write its results and plots.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--base", type=Path, default=COLD_START, help="directory of the cold start")
    add(
        "--results",
        type=Path,
        default=Path("docs/results"),
        help="directory of the records, kept in the repository; the report lies beside it",
    )
    add("--work", type=Path, default=Path("runs/study"), help="directory of the runs themselves")
    add("--jobs", type=int, choices=range(1, 65), default=2, metavar="N", help="runs at a time")
    add(
        "--for",
        type=float,
        default=math.inf,
        metavar="SECONDS",
        dest="seconds",
        help="begin no step after so many seconds; the same command resumes",
    )
    add("--report-only", action="store_true", help="start nothing: write what is recorded")
    return parser


def _accept(argv: Sequence[str]) -> int:
    """Exit status: 0 where the cold start meets protocol 4, 1 where not, 2 where there is none."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.reproduction accept",
        description="Measure whether a cold start meets protocol 4's criteria.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("base", type=Path, help="directory of the cold start")
    parser.add_argument("--tasks", nargs="+", help="families; without it all of the study's")
    parser.add_argument("--each", type=int, default=4, help="problems of a family and difficulty")
    parser.add_argument("--json", type=Path, help="file for the measurements")
    options = parser.parse_args(argv)

    from .acceptance import accept
    from .setting import TASKS, problems

    if not (options.base / "ponder.json").exists():
        _say(f"{options.base} holds no checkpoint: run `ponder train reasoner-sft` first")
        return 2
    found = accept(options.base, problems(options.each, options.tasks or TASKS))
    for line in found.lines():
        print(line)
    if options.json:
        options.json.write_text(json.dumps(found.as_json(), indent=1) + "\n", encoding="utf-8")
    return 0 if found.accepted else 1


def _power(argv: Sequence[str]) -> int:
    """Print the differences that the plan can detect; exit status 0."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.reproduction power",
        description="Print the difference that a plan can detect, from the variances of recorded "
        "runs.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--results", type=Path, default=Path("docs/results"), help="directory of the records")
    add("--seeds", type=int, nargs="+", default=[3, 5], metavar="N", help="seeds of the plan")
    add("--problems", type=int, default=300, metavar="N", help="test problems of the plan")
    options = parser.parse_args(argv)

    from .arms import PROTOCOL_VERSION
    from .power import lines
    from .records import read_records

    records = [r for r in read_records(options.results) if r["protocol"] == PROTOCOL_VERSION]
    for line in lines(records, options.seeds, options.problems):
        print(line)
    return 0


_COMMANDS = {"accept": _accept, "power": _power}


def _execute(study: Study, jobs: int, end: float) -> int:
    from .runner import StudyError

    try:
        study.execute(jobs, end)
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
