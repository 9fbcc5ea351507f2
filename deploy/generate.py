"""Write the files that are made from others; the tests compare them with what this writes.

.venv/bin/python deploy/generate.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generators import (
    anytime,
    chat,
    clients,
    dashboard,
    metrics,
    noise,
    recipes,
    replies,
    rules,
    runbook,
    settings,
)

ROOT = Path(__file__).resolve().parent.parent

FILES: dict[str, Callable[[], str]] = {
    "deploy/grafana/ponder.json": dashboard.render,
    "deploy/kubernetes/monitoring/prometheusrule.yaml": rules.render,
    "deploy/prometheus/consoles/runbook.html": runbook.render,
    "docs/anytime.md": anytime.render,
    "docs/chat.md": chat.render,
    "docs/clients.md": clients.render,
    "docs/metrics.md": metrics.render,
    "docs/noise.md": noise.render,
    "docs/replies.md": replies.render,
    "docs/settings.md": settings.render,
    "docs/recipes.md": recipes.render,
}


def main() -> None:
    for path, render in FILES.items():
        (ROOT / path).write_text(render(), encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
