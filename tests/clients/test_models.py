"""`ponder models`: what a server serves, for people and for programs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ponder.cli.main import main

from .scripted import ScriptedServer, models


def shown(server: ScriptedServer, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["models", "--url", server.url, *argv]) == 0
    return capsys.readouterr().out


def facts(table: str) -> dict[str, str]:
    """The rows of a table with one model."""
    rows = (line.strip().partition("  ") for line in table.splitlines())
    return {name: value.strip() for name, _, value in rows}


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")


def test_what_a_model_can_be_asked_for(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    said: dict[str, Any] = {
        "format": "contract (hbpo)",
        "default_budget": 64,
        "budget_ceiling": 2048,
        "trained_budgets": [40, 80],
        "budget_hint": "at most {budget} tokens",
        "loop_exit": True,
        "early_exits": ["agreement", "entropy"],
        "strategies": ["self_consistency", "particles"],
        "efforts": {"none": 0, "low": 1024},
    }
    server.models = models("tiny", **said)
    assert facts(shown(server, capsys)) == {
        "model": "tiny",
        "context": "4096",
        "thinks": "yes, as contract (hbpo)",
        "default budget": "64",
        "budget ceiling": "2048",
        "trained budgets": "40, 80",
        "hints": "yes",
        "closes loops": "yes",
        "early exits": "agreement, entropy",
        "strategies": "self_consistency, particles",
        "auto budget": "none",
        "efforts": "none 0, low 1024",
    }


def test_a_calibrated_model_tells_its_auto_budget(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    efforts = {"none": 0, "max": -1}
    server.models = models("tiny", auto_budget=64, tasks=["sum", "root"], efforts=efforts)
    told = facts(shown(server, capsys))
    assert told["auto budget"] == "64 (tasks: sum, root)"
    assert told["efforts"] == "none 0, max no limit"


def test_a_model_that_does_not_think_says_so(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.models = models("plain", "other", thinks=False, format=None)
    table = shown(server, capsys)
    assert table.split()[:3] == ["model", "plain", "other"]
    assert "thinks           no     no" in table


def test_a_model_whose_thoughts_are_not_understood_says_so(
    server: ScriptedServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.models = models("odd", thinks=False, format=None, unread="<thought>")
    told = facts(shown(server, capsys))
    assert told["thinks"] == "not understood (<thought> in its chat template)"


def test_programs_get_json(server: ScriptedServer, capsys: pytest.CaptureFixture[str]) -> None:
    (card,) = json.loads(shown(server, capsys, "--json"))["data"]
    assert (card["id"], card["ponder"]["thinks"]) == ("tiny", True)


def test_no_server_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--url", "127.0.0.1:9"]) == 1
    assert capsys.readouterr().err == (
        "ponder models: no server answers at http://127.0.0.1:9: start one with `ponder serve`, "
        "or name another with --url\n"
    )
    assert main(["models", "--api-key", "schlüssel"]) == 2
    assert "a header carries only printable ASCII" in capsys.readouterr().err
