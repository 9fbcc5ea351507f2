"""The tree of errors is the one that is drawn, and nothing is raised beside it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import ponder.errors
from ponder.errors import PonderError

ROOT = Path(__file__).parents[2]
ROOMS = ("server", "training", "clients")
OTHERS = {"ClientGone", "MistakenJudge", "Unavailable"}
"""Signals between parts, which reach nobody."""


def drawn() -> dict[str, str]:
    """Every class of the tree in the docstring, with its parent."""
    text = ponder.errors.__doc__ or ""
    tree: dict[str, str] = {}
    path: list[str] = ["PonderError"]
    for line in text.splitlines():
        found = re.match(r"([│├└─ ]*[├└]── )(\w+)", line)
        if found:
            depth = len(found[1]) // 4
            tree[found[2]] = path[depth - 1]
            path[depth:] = [found[2]]
    return tree


def defined() -> Iterator[tuple[Path, ast.ClassDef]]:
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    yield path, node


def test_the_tree_is_the_one_that_is_drawn() -> None:
    parents = {
        node.name: [base.id for base in node.bases if isinstance(base, ast.Name)]
        for _, node in defined()
    }
    tree = drawn()
    assert len(tree) > 20
    wrong = {name: parent for name, parent in tree.items() if parent not in parents[name]}
    assert wrong == {}
    known = {"PonderError", *tree}
    missing = {n for n, bases in parents.items() if known & set(bases) and n not in known}
    assert missing == set()


def test_no_error_stands_beside_the_tree() -> None:
    builtin = {"Exception", "ValueError", "RuntimeError", "TypeError", "OSError", "LookupError"}
    known = {"PonderError", *drawn(), *OTHERS}
    strangers = {
        f"{path.name}: {node.name}"
        for path, node in defined()
        if builtin & {base.id for base in node.bases if isinstance(base, ast.Name)}
        and node.name not in known
    }
    assert strangers == set()


def test_all_of_them_have_one_base() -> None:
    for name in ("ponder.engine.protocol", "ponder.thought.errors", "ponder.protocol.errors"):
        importlib.import_module(name)
    below = PonderError.__subclasses__()
    for kind in below:
        below.extend(kind.__subclasses__())
    assert {kind.__name__ for kind in below} <= set(drawn())
    assert pkgutil.resolve_name("ponder.engine.protocol:EngineDeadError") in below
