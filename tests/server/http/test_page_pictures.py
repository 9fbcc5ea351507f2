"""The README's pictures: how they are drawn, and those that are there."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pictures
import pytest
from browser import Page

from .conftest import Serve

DOCS = Path(__file__).parents[3] / "docs"
MOST_BYTES = 150_000


def test_they_are_drawn_from_a_server(
    serve: Serve, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve()
    monkeypatch.setattr(pictures, "DOCS", tmp_path)
    pictures.draw(page, running.url, "5")
    _check(tmp_path)
    assert page.complaints == []


def test_those_in_the_readme_are_there() -> None:
    readme = DOCS.with_name("README.md").read_text(encoding="utf-8")
    assert re.findall(r"!\[[^\]]+\]\(docs/([^)]+)\)", readme) == ["page.png", "budget-curve.svg"]
    _check(DOCS)


def _check(folder: Path) -> None:
    """The page is a picture of a few bytes; the curve stands without the page's style sheet."""
    assert (folder / "page.png").read_bytes().startswith(b"\x89PNG")
    assert 10_000 < (folder / "page.png").stat().st_size <= MOST_BYTES
    drawing = ElementTree.parse(folder / "budget-curve.svg").getroot()
    elements = list(drawing.iter())
    assert not any("class" in element.attrib for element in elements)
    dots = [element for element in elements if element.tag.endswith("circle")]
    assert len(dots) == 8 and all(dot.attrib["fill"].startswith("rgb") for dot in dots)
    words = {element.text for element in elements if element.tag.endswith("text")}
    assert {"tokens of thought, mean", "right answers", "100 %"} <= words
