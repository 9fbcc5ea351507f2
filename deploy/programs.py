"""Finds programs that no Python package ships: on PATH, else from Debian's packages in `.tools`.

    python3 deploy/programs.py promtool nginx        fetches missing programs; needs no root

A browser needs libraries that a server may lack: they are unpacked beside it, and `libraries` names
their folders.

Standard library only: it runs before `.venv` is there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "nginx": "nginx",
    "chromium": "chromium-headless-shell",
    "redis-server": "redis-server",
    "postgres": "postgresql",
}
VERSIONS = "usr/lib/postgresql/*/bin"
# Unpacked together with those of their dependencies that this machine lacks.
WITH_LIBRARIES = {"chromium", "redis-server", "postgres"}


class NotFound(Exception):
    """A program cannot be found or fetched here; the message says how to get it."""

    def __init__(self, program: str, why: str = "neither on PATH nor in .tools") -> None:
        remedy = f"apt-get install {PACKAGES[program]} on Debian, or put it on PATH"
        super().__init__(f"{program} is missing ({why}): {remedy}")


def find(program: str) -> Path:
    """The path of a program of `PACKAGES`. Raises `NotFound`."""
    # Chromium's command in `bin` is a script that seeks the program in the system's folders.
    unpacked = [str(TOOLS / "usr" / folder) for folder in ("lib/chromium", "bin", "sbin")]
    # Postgres is in a folder named by its version.
    versions = [*Path("/").glob(VERSIONS), *TOOLS.glob(VERSIONS)]
    places = os.pathsep.join(
        [os.environ.get("PATH", ""), "/usr/sbin", *unpacked, *map(str, sorted(versions))]
    )
    found = shutil.which(program, path=places) or shutil.which(PACKAGES[program], path=places)
    if found is None:
        raise NotFound(program)
    return Path(found)


def libraries() -> str:
    """`LD_LIBRARY_PATH` for a program with libraries."""
    found = {
        library.parent
        for depth in ("", "*/")  # some packages keep libraries of their own in a folder
        for library in TOOLS.glob(f"usr/lib/*-linux-gnu/{depth}lib*.so*")
    }
    return os.pathsep.join(map(str, sorted(found)))


def fetch(program: str) -> None:
    """Unpack the program's package into `.tools`, for most programs without its dependencies."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        raise NotFound(program, "and this is no Debian, to fetch it from")
    package = PACKAGES[program]
    print(f"setup: unpacking Debian's package {package} into .tools", flush=True)
    state = TOOLS / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    # Package lists of its own: the machine's may be empty, and only root may renew them.
    apt = ["apt-get", "-qq", "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}"]
    apt += ["-o", "APT::Sandbox::User=root", "-o", "Acquire::http::Timeout=15"]
    load = ["download", package]
    if program in WITH_LIBRARIES:  # nothing is installed, so there is nothing to lock
        apt += ["-o", "Debug::NoLocking=1", "--no-install-recommends", "--yes"]
        load = ["--download-only", "install", package]
    try:
        for step in (["update"], load):
            done = subprocess.run(
                [*apt, *step], cwd=state, stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                said = done.stderr.strip().splitlines() or ["it did not say why"]
                raise NotFound(program, f"apt-get {step[0]}: {said[-1]}")
        for archive in state.rglob("*.deb"):
            subprocess.run(["dpkg", "-x", archive, TOOLS], check=True)
    finally:
        shutil.rmtree(state)
    find(program)


def main(programs: list[str]) -> int:
    """Fetch missing programs; returns 0 if all are there in the end."""
    status = 0
    for program in programs:
        try:
            find(program)
        except NotFound:
            try:
                fetch(program)
            except NotFound as error:
                print(f"setup: {error}", file=sys.stderr)
                status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
