"""The arrows between the rooms hold, and what holds them would notice."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "cage": "server/ponder/cage",
    "experiment": "server/ponder/experiment",
    "thought": "server/ponder/thought",
    "engine": "server/ponder/engine",
    "checkpoint": "server/ponder/checkpoint",
    "protocol": "server/ponder/protocol",
    "server": "server/ponder/server",
    "tasks": "training/ponder/tasks",
    "evaluation": "training/ponder/evaluation",
    "training": "training/ponder/training",
    "training.method": "training/ponder/training/method",
    "client": "clients/ponder/client",
    "cli": "clients/ponder/cli",
    "environment": "clients/ponder/environment",
}
FORBIDDEN = [
    ("cage", "ponder.tasks.problems"),
    ("cage", "ponder.server.observers.verifier"),
    ("cage", "numpy"),
    ("experiment", "ponder.thought.outcome"),
    ("experiment", "pydantic"),
    ("thought", "ponder.experiment.moments"),
    ("thought", "pydantic"),
    ("thought", "ponder.engine.scripted"),
    ("engine", "ponder.thought.budget"),
    ("engine", "vllm"),
    ("checkpoint", "ponder.server.app"),
    ("checkpoint", "ponder.protocol.fields"),
    ("checkpoint", "pydantic"),
    ("protocol", "ponder.server.app"),
    ("protocol", "ponder.engine.tokenizer"),
    ("server", "ponder.training.coldstart.sft"),
    ("server", "ponder.client.client"),
    ("server", "torch"),
    ("server", "ponder.tasks.tiny"),
    ("tasks", "ponder.training.run.recipe"),
    ("tasks", "torch"),
    ("server", "ponder.evaluation.evaluate"),
    ("evaluation", "ponder.training.run.recipe"),
    ("evaluation", "ponder.server.app"),
    ("evaluation", "torch"),
    ("training", "studies.reproduction.arms"),
    ("training", "ponder.server.app"),
    ("training", "ponder.protocol.fields"),
    ("training", "fastapi"),
    ("training", "accelerate"),
    ("training", "peft"),
    ("training", "trl"),
    ("training", "verl"),
    ("training", "vllm"),
    ("training.method", "ponder.training.run.export"),
    ("training.method", "ponder.training.engines.accelerate"),
    ("training.method", "ponder.thought.budget"),
    ("training.method", "ponder.checkpoint.checkpoint"),
    ("training.method", "transformers"),
    ("training.method", "peft"),
    ("client", "ponder.server.app"),
    ("client", "ponder.cli.main"),
    ("cli", "ponder.engine.scripted"),
    ("cli", "torch"),
    ("environment", "ponder.client.client"),
    ("environment", "pydantic"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy of the house with a stranger in every room."""
    copy = tmp_path_factory.mktemp("house")
    for folder in ("server", "training", "clients", "studies"):
        only_sources = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.json")
        shutil.copytree(ROOT / folder, copy / folder, ignore=only_sources)
    for room, place in ROOMS.items():
        lines = [f"import {module}\n" for source, module in FORBIDDEN if source == room]
        (copy / place / "stranger.py").write_text("".join(lines))
    linter = Path(sys.executable).with_name("lint-imports")
    path = os.pathsep.join(str(copy / folder) for folder in ("server", "training", "clients"))
    done = subprocess.run(
        [linter, "--no-cache", "--no-logo", "--config", ROOT / "pyproject.toml"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("room", "module"), FORBIDDEN)
def test_a_forbidden_import_is_noticed(report: str, room: str, module: str) -> None:
    assert f"ponder.{room}.stranger -> {module} (l." in report


def imported(file: Path) -> Iterator[str]:
    """The full name of every module that a file imports, wherever in it; `..` as it stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level != 1:
            yield "." * node.level + (node.module or "")


def strangers(folder: Path, allowed: tuple[str, ...]) -> list[str]:
    """What the files of a folder import beside the standard library and `allowed`."""
    return sorted(
        f"{file.name}: {module}"
        for file in folder.rglob("*.py")
        for module in imported(file)
        if module.partition(".")[0] not in sys.stdlib_module_names
        and not any(f"{module}.".startswith(f"{name}.") for name in allowed)
    )


def test_the_thought_needs_the_standard_library_only() -> None:
    """import-linter can only forbid by name; this forbids everything that is not named."""
    thought = ROOT / ROOMS["thought"]
    assert strangers(thought, ("ponder.errors", "ponder.thought", "ponder.engine.protocol")) == []


def test_the_cage_needs_the_standard_library_only() -> None:
    assert strangers(ROOT / ROOMS["cage"], ("ponder.cage",)) == []


def test_the_experiment_needs_the_standard_library_only() -> None:
    """And one adapter its database's."""
    allowed = ("ponder.errors", "ponder.experiment", "ponder.environment")
    assert strangers(ROOT / ROOMS["experiment"], allowed) == ["postgres.py: psycopg"]


def test_methods_need_torch_and_pydantic_only() -> None:
    judged = ("ponder.tasks.problems", "ponder.tasks.workers", "..rollout")
    assert strangers(ROOT / ROOMS["training.method"], ("torch", "pydantic", *judged)) == []
