"""The house as it is meant to stand; import-linter holds the arrows between its rooms."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("server", "training", "clients")
HEAVY = ("torch", "vllm", "transformers", "fastapi", "tokenizers")
LONGEST = 400


def sources() -> list[Path]:
    return [path for folder in (*FOLDERS, "studies") for path in (ROOT / folder).rglob("*.py")]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_namespace_has_no_init(folder: str) -> None:
    """One stray `__init__.py` hides the other rooms at run time while type checkers stay green."""
    assert not (ROOT / folder / "ponder" / "__init__.py").exists()


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_room_is_typed(folder: str) -> None:
    rooms = [path.parent for path in (ROOT / folder / "ponder").glob("*/__init__.py")]
    assert rooms
    assert [room.name for room in rooms if not (room / "py.typed").exists()] == []


@pytest.mark.parametrize(
    "module", ["ponder.client", "ponder.cli.main", "ponder.cli.chat", "ponder.thought.thought"]
)
def test_the_base_install_is_light(module: str) -> None:
    """What a user without extras imports pulls in no engine and no web framework."""
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_can_be_read_in_one_sitting() -> None:
    long = [path.name for path in sources() if len(path.read_text().splitlines()) > LONGEST]
    assert long == []


def names_in(statement: ast.AST) -> set[str]:
    return {node.attr for node in ast.walk(statement) if isinstance(node, ast.Attribute)}


def test_lines_of_json_end_at_line_breaks_alone() -> None:
    """str.splitlines, and httpx's iter_lines, also split at U+2028, which JSON holds as it is."""
    simple = (ast.Assign, ast.AnnAssign, ast.Expr, ast.Return, ast.For, ast.AsyncFor)
    wrong = [
        f"{path.relative_to(ROOT)}:{statement.lineno}"
        for path in (*sources(), *(ROOT / "deploy").rglob("*.py"))
        for statement in ast.walk(ast.parse(path.read_text()))
        if isinstance(statement, simple)
        for names in [names_in(statement)]
        if {"loads", "splitlines"} <= names or {"iter_lines", "aiter_lines"} & names
    ]
    assert wrong == []


def test_every_error_code_has_a_test() -> None:
    """A code that the server can send is raised somewhere in the tests."""
    rooms = [ROOT / "server" / "ponder" / room for room in ("protocol", "server", "thought")]
    raised = "".join(path.read_text() for room in rooms for path in room.rglob("*.py"))
    codes = set(re.findall(r'\b[45]\d\d,\s*"([a-z_]+)"', raised))
    assert {"invalid_budget", "overloaded", "engine_dead"} <= codes
    tested = "".join(path.read_text() for path in (ROOT / "tests" / "server").rglob("*.py"))
    assert sorted(code for code in codes if f'"{code}"' not in tested) == []


def test_the_tree_in_the_readme_is_there() -> None:
    readme = (ROOT / "README.md").read_text()
    tree = readme.split("## The house")[1].split("```")[1]
    folder = ROOT
    for line in tree.splitlines():
        for name in re.findall(r"(?:^|\s{2,})([\w./-]+(?:\.py|/))(?=\s|$)", line):
            top = not line.startswith(" ")
            if top and name.endswith("/"):
                folder = ROOT / name
            place = folder / name if not top else ROOT / name
            assert place.exists() or any(folder.rglob(Path(name).name)), name
