"""What the documents name is there: files, sections, settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from ponder.server.settings import Settings

from .conftest import ROOT

PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "howto").glob("*.md")])
ELSEWHERE = {
    "appendonly",
    "maxmemory-policy",
    "web",
    "build",
    "build-arg",
    "budget",
    "budgets",
    "task",
    "tasks",
    "modes",
    "plots",
    "seeds",
    "dry-run",
    "write",
    "from-literal",
    *(
        "tensor-parallel-size",
        "data-parallel-size",
        "enable-scale-out",
        "tokens-only",
        "block-size",
    ),
    *("enable-prompt-tokens-details", "generation-config", "max-num-queued-reqs"),  # vLLM's
    *("worker-urls", "policy", "health-check-interval-secs", "health-failure-threshold"),
    "disable-circuit-breaker",
    "dialect",  # of `--engine http`
    *("owner", "pwprompt"),  # Postgres'
    *("logprobs-mode", "worker-cls", "weight-transfer-config"),
    *("head", "address", "num-cpus"),  # Ray's
    *(
        "set",
        "base",
        "out",
        "resume",
    ),  # of `ponder train`
}  # flags of other commands


def test_the_readme_lists_every_extra() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    table = (ROOT / "README.md").read_text().split("| extra | for |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == list(extras)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    lost = [x for x in links if "://" not in x and not (page.parent / x).exists()]
    assert lost == []


def test_every_header_of_ours_is_described_once() -> None:
    sources = (ROOT / "server").rglob("*.py")
    sent = {
        name for path in sources for name in re.findall(r'"(x-ponder-[\w-]+)"', path.read_text())
    }
    assert {"x-ponder-budget", "x-ponder-end-cause"} <= sent
    rows = re.findall(r"^\| `(x-ponder-[\w-]+)` ", (ROOT / "docs/endpoints.md").read_text(), re.M)
    assert sorted(rows) == sorted(sent)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.parent.name == "howto"], ids=lambda page: page.name
)
def test_howtos_name_settings_that_exist(page: Path) -> None:
    text = page.read_text()
    found = re.findall(r"(?<![\w-])--(?:no-)?([a-z][\w-]+)", text)
    flags = {name.replace("-", "_") for name in found}
    assert flags - {name.replace("-", "_") for name in ELSEWHERE} <= set(Settings.model_fields)
    variables = set(re.findall(r"PONDER_([A-Z_]*[A-Z])", text))
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
