"""docs/errors.md has a row for every code that the sources can send, and no other row."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ponder.protocol.errors import CODES

ROOT = Path(__file__).parents[2]
SERVER, CLIENT = "## Of the server", "## Of `ponder.client`"
ROW = re.compile(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)


def rows(section: str) -> dict[str, list[str]]:
    """Code → status, cause and remedy."""
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    text = page.partition(section)[2].partition("\n## ")[0]
    found = [(code, [cell.strip() for cell in cells]) for code, *cells in ROW.findall(text)]
    assert len(dict(found)) == len(found), "a code has two rows"
    return dict(found)


def raised(source: str, error: str) -> Iterator[tuple[str, int | None]]:
    """Codes and statuses: the first two arguments of `error`, and a status with a code anywhere."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            parts, is_error = node.args, isinstance(node.func, ast.Name) and node.func.id == error
        elif isinstance(node, ast.Tuple):
            parts, is_error = node.elts, False
        else:
            continue
        for at, (first, second) in enumerate(itertools.pairwise(parts)):
            if not (isinstance(second, ast.Constant) and isinstance(second.value, str)):
                continue
            status = first.value if isinstance(first, ast.Constant) else None
            known = isinstance(status, int) and 400 <= status < 600
            if known or (is_error and at == 0):
                yield second.value, status if known else None


def raised_in(folder: str, error: str) -> dict[str, set[int]]:
    codes: dict[str, set[int]] = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for code, status in raised(path.read_text(encoding="utf-8"), error):
            codes.setdefault(code, set()).update([status] if status else [])
    return codes


def test_every_code_of_the_server_has_a_row() -> None:
    codes, told = raised_in("server", "ApiError"), rows(SERVER)
    assert {"invalid_budget", "not_found", "no_answer_produced", "draining"} <= set(codes)
    assert sorted(set(codes) - set(told)) == [], "add a row to docs/errors.md"
    assert sorted(set(told) - set(codes)) == [], "nothing sends these codes any more"
    for code, statuses in codes.items():
        assert statuses <= {int(told[code][0])}, code
    assert {code: int(status) for code, (status, *_) in told.items()} == CODES


def test_every_code_of_the_client_has_a_row() -> None:
    codes, told = raised_in("clients", "PonderAPIError"), rows(CLIENT)
    assert {"unreachable", "stream_ended"} <= set(codes)
    assert set(codes) - set(rows(SERVER)) == set(told)


@pytest.mark.parametrize("section", [SERVER, CLIENT])
def test_rows_are_sentences(section: str) -> None:
    for code, (_, *sentences) in rows(section).items():
        assert all(re.match(r"[A-Z`].*[.?]$", sentence) for sentence in sentences), code


def test_rows_are_ordered_by_status() -> None:
    statuses = [int(status) for status, *_ in rows(SERVER).values()]
    assert statuses == sorted(statuses)


def test_a_code_that_is_new_would_be_noticed() -> None:
    source = 'refuse(418, "teapot")\nx = [(Cold, 503, "too_cold", {})]\nApiError(s, "odd", "text")'
    assert dict(raised(source, "ApiError")) == {"teapot": 418, "too_cold": 503, "odd": None}
