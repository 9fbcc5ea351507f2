"""`ponder eval` on the real engine: through a real server, and on a checkpoint of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from ponder.evaluation.command import Options, run
from ponder.evaluation.protocol import Ask
from ponder.evaluation.responders.http import HttpResponder
from ponder.server.settings import BUNDLED_MODEL
from ponder.thought.contract import Contract

from .conftest import ServerProcess

pytestmark = pytest.mark.engine


def test_a_server_is_measured(
    server: ServerProcess, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "e.json"
    options = {"target": server.url, "modes": ["natural", "truncated"], "json": file}
    assert run(Options.model_validate(options | {"budgets": [0, 32], "n": 10, "samples": 2})) == 0
    assert "anytime accuracy" in capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["subject"]["trained_budgets"] == [40, 80, 160, 200]
    natural, none, cut = written["conditions"]
    assert none["tokens"]["mean"] == 0 < cut["tokens"]["mean"] <= 32 < natural["tokens"]["mean"]
    assert natural["accuracy"]["mean"] > none["accuracy"]["mean"]
    assert natural["natural"] == 1.0


def test_a_server_lacks_what_it_does_not_offer(
    server: ServerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Options(target=server.url, modes=["efficient"], n=5)) == 1
    assert "possible are natural, truncated, served" in capsys.readouterr().err


def test_any_openai_server_is_asked_in_its_own_terms(server: ServerProcess) -> None:
    """The same server with its `ponder` blocks taken away is a foreign one."""

    class Foreign(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            content = json.loads(await response.aread())
            for part in content.get("data", []) + content.get("choices", []):
                part.pop("ponder")
            return httpx.Response(response.status_code, json=content)

    async def ask() -> None:
        responder = HttpResponder(server.url, max_tokens=400, transport=Foreign())
        try:
            lacks = (await responder.subject()).lacks
            assert set(lacks) == {"efficient", "hinted", "truncated", "served"}
            question = "What is 38 + 45 - 17 + 26?"
            ((reply,),) = await responder.answer([Ask(question, 1)], lambda _: None)
        finally:
            await responder.close()
        assert reply.text
        assert reply.thinking_tokens is not None and reply.thinking_tokens > 0

    asyncio.run(ask())


def evaluation(*options: str) -> list[str]:
    command = [sys.executable, "-m", "ponder.cli.main", "eval", str(BUNDLED_MODEL)]
    return [*command, "--n", "10", *options]


def test_a_checkpoint_is_measured_and_its_engine_leaves_quietly(tmp_path: Path) -> None:
    modes = ["--modes", "efficient,hinted,truncated", "--budgets", "16,-1"]
    done = subprocess.run(
        [*evaluation(*modes, "--samples", "2", "--json", str(tmp_path / "e.json"))],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    written = json.loads((tmp_path / "e.json").read_text(encoding="utf-8"))
    assert written["hint_ratio"]["mean"] > 1.2
    tokens = {(it["mode"], it["budget"]): it["tokens"]["mean"] for it in written["conditions"]}
    assert tokens["truncated", 16] <= 16 < tokens["efficient", None] < tokens["truncated", -1]


def test_an_interrupted_evaluation_leaves_nothing_behind(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            evaluation("--samples", "2000"),
            stdout=subprocess.DEVNULL,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 240
        while "answer/s" not in log.read_text() or "| 0/" in log.read_text()[-60:]:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        family = psutil.Process(process.pid).children(recursive=True)
        assert family
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the engine is told too
        assert process.wait(60) == 130, log.read_text()
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not alive
        assert "Traceback" not in log.read_text()
        told = [line for line in log.read_text().splitlines() if "ponder eval:" in line]
        assert told and all(" answers; --n" in line or " left" in line for line in told)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


def test_a_checkpoint_is_calibrated_as_it_is_served(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(BUNDLED_MODEL, model)
    argv = ["--tasks", "sum", "--n", "20", "--seeds", "1", "--budgets", "16,64,-1"]
    command = [sys.executable, "-m", "ponder.cli.main", "calibrate", str(model), *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "on 10 other problems" in done.stdout
    assert "a budget by prompt is not shown to be as good as auto" in done.stdout
    contract = Contract.load(model)
    assert contract is not None and contract.curves is not None
    none, cut, told, free = contract.curves.tasks["sum"].points
    assert [point.budget for point in (none, cut, told, free)] == [0, 16, 64, -1]
    assert none.accuracy < told.accuracy
    assert none.tokens < cut.tokens < min(told.tokens, free.tokens)
