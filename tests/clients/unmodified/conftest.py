"""The servers that unmodified clients ask, and what is kept of what they saw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from demo import free_port

from integration.conftest import ServerProcess, start_server
from ponder.server.settings import BUNDLED_MODEL
from waiting import wait_until

from .environments import ENVIRONMENTS
from .rows import ROWS

HERE = Path(__file__).parent
REPORT = "PONDER_CLIENTS_REPORT"
PROXY = """\
model_list:
  - model_name: hosted
    litellm_params: {model: hosted_vllm/tiny, api_base: "URL/v1", api_key: none}
  - model_name: openai
    litellm_params: {model: openai/tiny, api_base: "URL/v1", api_key: none}
"""
PROXY_KEY = "sk-a-key-of-the-proxys-own"

Variables = Mapping[str, str]
Saw = dict[str, dict[str, str]]
Told = dict[tuple[str, str], dict[str, Any]]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Variables]:
    """Ponder, real, on the bundled checkpoint."""
    with_model = start_server(tmp_path_factory.mktemp("clients") / "log", "--default-budget", "64")
    yield from _serving(with_model)


@pytest.fixture(scope="session")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Variables]:
    """Ponder on a scripted model that knows how to use a shell, which the bundled one does not."""
    model = tmp_path_factory.mktemp("shell-user") / "tiny"
    shutil.copytree(
        BUNDLED_MODEL, model, ignore=shutil.ignore_patterns("ponder.json", "*.safetensors")
    )
    shutil.copy(HERE / "shell_user.jinja", model / "chat_template.jinja")
    running = start_server(
        model.with_name("log"),
        *(str(model), "--engine", "clients.unmodified.shell_user", "--served-model-name", "tiny"),
        environment={"PYTHONPATH": str(HERE.parents[1])},
    )
    yield from _serving(running)


def _serving(running: ServerProcess) -> Iterator[Variables]:
    try:
        running.wait_ready()
        yield {"PONDER_URL": running.url}
    finally:
        running.stop()


@pytest.fixture(scope="session")
def proxy(server: Variables, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Variables]:
    """The litellm proxy in front of the server, with a key of its own."""
    litellm = ENVIRONMENTS["litellm"]
    litellm.make()
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "config.yaml").write_text(PROXY.replace("URL", server["PONDER_URL"]))
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(litellm.programs / "litellm", "--config", folder / "config.yaml"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            env=bare(folder) | {"LITELLM_MASTER_KEY": PROXY_KEY},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: _alive(process, url, folder / "log"))
        yield {**server, "PROXY_URL": url, "PROXY_KEY": PROXY_KEY}
    finally:
        process.kill()
        process.wait()


def _alive(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    try:
        return httpx.get(f"{url}/health/liveliness").status_code == 200
    except httpx.TransportError:
        return False


def bare(home: Path) -> dict[str, str]:
    """An environment in which a client finds no settings of the person who runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask the network
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_NUM_THREADS": "1",
    }


@pytest.fixture
def saw() -> Iterator[Saw]:
    """The verdict of a row, by its id; added to the file that the environment names."""
    verdicts: Saw = {}
    yield verdicts
    if REPORT in os.environ:
        path = Path(os.environ[REPORT])
        known = json.loads(path.read_text()) if path.exists() else {}
        found = {row.id: (known | verdicts).get(row.id) for row in ROWS}
        kept = {name: verdict for name, verdict in found.items() if verdict}
        path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


@pytest.fixture(scope="session")
def told() -> Told:
    """What the functions of a script saw, by the script and its server."""
    return {}
