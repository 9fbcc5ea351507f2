"""How scripts run a client that is a program."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PROGRAMS = Path(os.environ["PONDER_PROGRAMS"])


def run_program(name, *arguments, cwd=None, **variables):
    """What the program of this name, of the client's environment, wrote on standard output."""
    done = subprocess.run(
        [PROGRAMS / name, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
        raise SystemExit(f"{name} ended with {done.returncode}")
    return done.stdout


def folder():
    return Path(tempfile.mkdtemp(prefix="ponder-client-"))


def work_done(work, said):
    """What a coding assistant did in its folder, and its last word."""
    file = work / "ran.txt"
    return {"ran": file.is_file() and "ponder" in file.read_text(), "said": said.strip()[-300:]}
