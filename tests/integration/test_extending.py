"""What docs/extending gives to copy works on real engines."""

from __future__ import annotations

import os
from pathlib import Path

import openai
import pytest

from bench.server import running as running_vllm
from ponder.server.settings import BUNDLED_MODEL

from .conftest import start_server

pytestmark = pytest.mark.engine

EXAMPLES = Path(__file__).parents[2] / "examples" / "extending"


def test_the_engine_that_speaks_http_thinks_on_a_stock_vllm_server(tmp_path: Path) -> None:
    with running_vllm("vllm", Path(BUNDLED_MODEL), "qwen3", tmp_path / "vllm.log") as vllm:
        options = ("--engine", "http_engine", "--", f"http://127.0.0.1:{vllm.port}")
        server = start_server(
            tmp_path / "log", *options, environment={"PYTHONPATH": os.fspath(EXAMPLES)}
        )
        try:
            server.wait_ready()
            with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
                reply = client.chat.completions.create(
                    model="tiny",
                    messages=[{"role": "user", "content": "What is 17 + 25 - 9?"}],
                    temperature=0,
                    logprobs=True,
                    top_logprobs=2,
                    extra_body={"thinking_token_budget": 8},
                )
            (choice,) = reply.choices
            assert choice.message.content
            assert choice.logprobs is not None and choice.logprobs.content
            assert [len(entry.top_logprobs) for entry in choice.logprobs.content][-1] == 2
            report = choice.model_extra["ponder"] if choice.model_extra else {}
            assert report["end_cause"] == "budget" and report["thinking_tokens"] <= 8
        finally:
            server.stop()
