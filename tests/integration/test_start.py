"""The start of a server: what it needs, what it prints, and one sentence where it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ponder.server.settings import BUNDLED_MODEL

from .conftest import start_server

pytestmark = pytest.mark.engine

FAIL_SECONDS = 600
TIMED = re.compile(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d (ponder: |[A-Z]+ /)")
QUESTION = [{"role": "user", "content": "What is 17 + 25 - 9?"}]
REQUESTS: dict[str, dict[str, Any]] = {
    "log probabilities": {"logprobs": True, "top_logprobs": 5},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.2},
    "seeds of several choices": {"seed": 7, "n": 4},
    "other sampling": {"top_k": 3, "top_p": 0.9, "min_p": 0.1, "logit_bias": {"5": -1}},
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the bundled checkpoint."""
    path = tmp_path / "model"
    shutil.copytree(BUNDLED_MODEL, path)
    return path


def refusal(log: Path, *options: str) -> str:
    """What a server that does not start says at last, and all that it says of why."""
    running = start_server(log, *options)
    try:
        assert running.process.wait(FAIL_SECONDS) == 1, log.read_text()
    finally:
        running.stop()
    text = log.read_text()
    assert "Traceback" not in text
    (said,) = [line for line in text.splitlines() if line.startswith("ponder: ")]
    assert text.splitlines()[-1] == said
    return said


@pytest.mark.parametrize("threads", ["1", "2"])  # a forked engine, and one that begins anew
def test_a_server_without_a_compiler_answers_everything_and_prints_what_is_its_own(
    tmp_path: Path, threads: str
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    lscpu = shutil.which("lscpu")
    assert lscpu is not None
    (tools / "lscpu").symlink_to(lscpu)
    environment = {"PATH": str(tools), "OMP_NUM_THREADS": threads}
    running = start_server(tmp_path / "log", environment=environment)
    try:
        running.wait_ready()
        # Ready means that tokens were generated.
        assert running.metric("vllm:generation_tokens_total") > 0
        for what, fields in REQUESTS.items():
            body = {"messages": QUESTION, "thinking_token_budget": 64, **fields}
            answer = httpx.post(f"{running.url}/v1/chat/completions", json=body)
            assert answer.status_code == 200, (what, answer.text)
        lines = running.log.read_text().splitlines()
        example = [line for line in lines if line.startswith("  ")]
        assert example[-2].startswith("  curl "), lines
        assert [line for line in lines if line.strip() and not TIMED.match(line)] == example
    finally:
        running.stop()


def test_an_engine_is_prepared_before_torch_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Afterwards torch reads nothing of what is set, and a forked engine has that from it."""
    (tmp_path / "preparing.py").write_text(
        "import sys\nfrom ponder.engine.protocol import EngineSetupError\n"
        "def prepare(directory):\n"
        "    place = 'here' if 'torch' in sys.modules else 'to come'\n"
        "    raise EngineSetupError(f'torch is {place}')\n"
        "def load(load):\n    raise AssertionError\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert refusal(tmp_path / "log", "--engine", "preparing") == "ponder: torch is to come"


def other_size(model: Path) -> None:
    config = model / "config.json"
    config.write_text(config.read_text().replace('"vocab_size": ', '"vocab_size": 1'))


@pytest.mark.parametrize(
    ("break_it", "options", "said"),
    [
        (other_size, [], "the weights are not those of its config.json"),
        (None, ["--kv-cache-memory-bytes", "1000000"], "give the cache more room"),
        (None, ["--max-model-len", "100000"], "lower `-- --max-model-len`"),
    ],
    ids=["other weights", "no room for the cache", "a context too long"],
)
def test_a_model_that_does_not_load_is_one_sentence_with_a_remedy(
    model: Path,
    tmp_path: Path,
    break_it: Callable[[Path], None] | None,
    options: list[str],
    said: str,
) -> None:
    if break_it is not None:
        break_it(model)
    sentence = refusal(tmp_path / "log", str(model), "--", *options)
    assert sentence.startswith("ponder: the model did not load: ")
    assert said in sentence
    found = re.search(r"all that was printed is in (\S+)\)$", sentence)
    assert found is not None
    kept = Path(found[1])
    assert "Traceback" in kept.read_text()
    shutil.rmtree(kept.parent)


def test_an_option_that_vllm_does_not_know_is_one_sentence(tmp_path: Path) -> None:
    said = refusal(tmp_path / "log", "--", "--max-model-length", "64")
    assert said.endswith("did you mean --max-model-len?")


def cut_off(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def contract(**changes: Any) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        path = model / "ponder.json"
        raw = json.loads(path.read_text()) | changes
        path.write_text(json.dumps({name: raw[name] for name in raw if raw[name] is not ...}))

    return change


@pytest.mark.parametrize(
    ("break_it", "options", "said"),
    [
        (contract(close_text=..., think_end=...), [], "lacks close_text, think_end"),
        (contract(tokenizer_sha256="0" * 64), [], "was written for another tokenizer"),
        (cut_off, [], "is no file of weights, or is damaged"),
        (None, ["--verifier", "no.such:judge"], "cannot load the verifier"),
        (None, ["--state", "/proc/nowhere/state"], "state"),
    ],
    ids=[
        "an incomplete contract",
        "another tokenizer",
        "weights cut off",
        "no verifier",
        "no state",
    ],
)
def test_what_can_be_checked_is_checked_before_the_model_loads(
    model: Path,
    tmp_path: Path,
    break_it: Callable[[Path], None] | None,
    options: list[str],
    said: str,
) -> None:
    if break_it is not None:
        break_it(model)
    assert said in refusal(tmp_path / "log", *options, str(model))
    assert "starting vLLM" not in (tmp_path / "log").read_text()


def test_a_model_that_is_nowhere_is_said(tmp_path: Path) -> None:
    assert "nowhere" in refusal(tmp_path / "log", str(tmp_path / "nowhere"))
