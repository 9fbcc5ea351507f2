"""What docs/extending gives to copy works on real engines."""

from __future__ import annotations

import os
from pathlib import Path

import openai
import pytest

from .conftest import start_server

pytestmark = pytest.mark.engine

EXAMPLES = Path(__file__).parents[2] / "examples" / "extending"


def test_the_engine_on_plain_transformers_keeps_a_budget(tmp_path: Path) -> None:
    environment = {"PYTHONPATH": os.fspath(EXAMPLES), "OMP_NUM_THREADS": "1"}
    server = start_server(
        tmp_path / "log", "--engine", "transformers_engine", environment=environment
    )
    try:
        server.wait_ready()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            reply = client.chat.completions.create(
                model="tiny",
                messages=[{"role": "user", "content": "What is 17 + 25 - 9?"}],
                temperature=0,
                extra_body={"thinking_token_budget": 8},
            )
        (choice,) = reply.choices
        assert choice.message.content
        report = choice.model_extra["ponder"] if choice.model_extra else {}
        assert report["end_cause"] == "budget" and report["thinking_tokens"] <= 8
    finally:
        server.stop()
