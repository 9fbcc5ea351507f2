"""`ponder`: finds the command, reads its options, runs it.

Commands are named here and imported when chosen: `ponder --help` is instant, and the base install
works without what `serve` and `train` need.
"""

from __future__ import annotations

import difflib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from typing import NamedTuple

from ponder.cli import spelling


class Command(NamedTuple):
    """`module` has a pydantic class `Options` and `run(options) -> int`, the exit status."""

    module: str
    help: str
    install: str = "ponder"


SERVER = "'ponder[cpu]', or 'ponder[gpu]' where there is an NVIDIA GPU"
EVALUATOR = (
    "'ponder[train]', and for a checkpoint 'ponder[train,cpu]' or 'ponder[train,gpu]'; in a clone "
    "of the repository, make train installs both"
)
TRAINER = "'ponder[train]', or make train in a clone of the repository"
COMMANDS = {
    "serve": Command("ponder.server.command", "serve a model with thinking budgets", SERVER),
    "chat": Command("ponder.cli.chat", "talk to a server in the terminal"),
    "models": Command("ponder.cli.models", "list a server's models, and what they accept"),
    "families": Command(
        "ponder.server.commands.families", "list the model families that Ponder can read", SERVER
    ),
    "contract": Command(
        "ponder.server.commands.contract", "show and check what Ponder learns from a model", SERVER
    ),
    "train": Command("ponder.training.command", "train a checkpoint from a recipe", TRAINER),
    "eval": Command(
        "ponder.evaluation.command",
        "measure accuracy and tokens per budget",
        EVALUATOR,
    ),
    "calibrate": Command(
        "ponder.evaluation.calibrate",
        "measure budgets and write the curves into a checkpoint, for efforts and auto",
        EVALUATOR,
    ),
    "completions": Command("ponder.cli.completions", "complete commands and options in a shell"),
}

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `ponder ARGV…` and returns its exit status: 2 for a mistake in the arguments."""
    _open_closed_streams()
    try:
        status = _main(argv)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough; Python would complain again at exit
        _drop_stdout()
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        what = error.filename or "the output"
        _complain("ponder", f"cannot write {what}: {error.strerror}: free some space")
        _drop_stdout()
        return 1
    return status


def _drop_stdout() -> None:
    """Let Python write what it still holds to nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _open_closed_streams() -> None:
    """Give a stream that is closed, as by `2>&-`, to nowhere: print would take stdout instead."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            setattr(sys, name, os.fdopen(nowhere, "w", encoding="utf-8", errors="replace"))


def _main(argv: Sequence[str] | None) -> int:
    spelling.install()
    words = list(sys.argv[1:] if argv is None else argv)
    first = words[0] if words else "--help"
    if first in ("-h", "--help"):
        print(_help())
        return 0
    if first == "--version":
        print(f"ponder {metadata.version('ponder')}")
        return 0
    if first not in COMMANDS:
        close = difflib.get_close_matches(first, COMMANDS, n=1)
        remedy = f"did you mean {close[0]}?" if close else "see ponder --help"
        _complain("ponder", f"{first} is not a command: {remedy}")
        return 2
    return _run(f"ponder {first}", COMMANDS[first], words[1:])


def _run(prog: str, command: Command, argv: Sequence[str]) -> int:
    from ponder.cli.arguments import UsageError, parse  # pydantic takes a quarter of a second

    try:
        module = import_module(command.module)
        return int(module.run(parse(module.Options, argv, prog=prog)))
    except UsageError as error:
        for problem in error.problems:
            _complain(prog, problem)
        return 2
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "ponder":
            raise
        _complain(prog, f"needs {error.name}, which is missing: pip install {command.install}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:  # --help, printed by argparse
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)


def _help() -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {it.help}" for name, it in COMMANDS.items())
    return f"""\
usage: ponder COMMAND [options]

Serve reasoning models that think only as long as a question deserves, and train them.

commands:
{commands}

ponder COMMAND --help lists a command's options; ponder --version prints the version."""


def _complain(prog: str, problem: str) -> None:
    print(f"{prog}: {problem}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
