"""Generates a page for Prometheus, and links for panels, from docs/runbook.md.

An alert's `runbook_url` must open wherever somebody reads the alert. The only address that each
alert knows is that of the Prometheus that raised it, so the page is one of Prometheus' consoles.
"""

from __future__ import annotations

import re
from pathlib import Path

from markdown_it import MarkdownIt

PAGE = Path(__file__).resolve().parents[2] / "docs" / "runbook.md"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1.5rem }
:target { background: #ffd54d55 }
code { background: #8882; padding: 0 .2em }
:root { color-scheme: light dark }
"""


def sections() -> dict[str, str]:
    """The text of each alert's section, by the alert's name."""
    _, *parts = re.split(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def panels(section: str) -> list[str]:
    """The titles of the panels that a section names, in italics."""
    found = (name.replace("\n", " ") for name in section.split("*")[1::2])
    return [name for name in found if name[:1].isupper()]


def anchor(alert: str) -> str:
    """The anchor of an alert's section, as sites that show Markdown make it."""
    return alert.lower()


def render() -> str:
    """The page. Links to other files become text: Prometheus does not serve them."""
    markdown = MarkdownIt()
    tokens = markdown.parse(PAGE.read_text(encoding="utf-8"))
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            token.attrSet("id", anchor(tokens[place + 1].content))
        token.children = [
            child for child in token.children or [] if child.type not in ("link_open", "link_close")
        ]
    body = markdown.renderer.render(tokens, markdown.options, {})
    if "{{" in body:
        raise ValueError("docs/runbook.md holds {{, which Prometheus would read as a template")
    return (
        "<!-- Written by deploy/generate.py out of docs/runbook.md. -->\n"
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        "<title>Ponder: runbook</title>\n"
        f"<style>{STYLE}</style>\n{body}</html>\n"
    )
