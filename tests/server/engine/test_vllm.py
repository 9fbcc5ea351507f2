"""The adapter's errors and its settings, without an engine: tests/integration has a real one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from multiprocessing.context import BaseContext
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest
import torch._dynamo
from vllm.exceptions import QueueOverflowError, VLLMValidationError
from vllm.v1.engine import utils
from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError
from vllm.v1.engine.exceptions import EngineGenerateError

from ponder.engine import machine, vllm
from ponder.engine.child import ForkedEngines, SpawnedEngines
from ponder.engine.protocol import (
    Chunk,
    EngineDeadError,
    EngineError,
    EngineOverloadedError,
    EngineRequest,
    EngineSetupError,
    RequestRefusedError,
    Sampling,
)
from ponder.engine.vllm import OptionsError, VLLMEngine, cpu_settings, parse_options
from ponder.server.settings import BUNDLED_MODEL

FORMATS = "--structured-outputs-config"


def raised(error: Exception | None, **sampling: Any) -> EngineError:
    """What becomes of an error that vLLM raises at the start of a request."""

    async def generate(*_given: object, **_named: object) -> AsyncGenerator[Any, None]:
        if error is not None:
            raise error
        yield

    config = SimpleNamespace(max_model_len=64, max_logprobs=20)
    llm: Any = SimpleNamespace(model_config=config, generate=generate)

    async def first() -> Chunk:
        rules = Sampling(**{"max_tokens": 4, **sampling})
        return await anext(VLLMEngine(llm).generate(EngineRequest([1], rules, "request")))

    with pytest.raises(EngineError) as caught:
        asyncio.run(first())
    return caught.value


def test_an_engine_that_ended_leaves_no_sockets_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever starts after it, a child too, would look for them in a directory that is gone."""
    sockets = TemporaryDirectory()
    monkeypatch.setenv("VLLM_RPC_BASE_PATH", sockets.name)
    config = SimpleNamespace(max_model_len=64, max_logprobs=20)
    llm: Any = SimpleNamespace(model_config=config, shutdown=lambda: None)
    VLLMEngine(llm, sockets).shutdown()
    assert "VLLM_RPC_BASE_PATH" not in os.environ
    assert not Path(sockets.name).exists()


def test_what_vllm_does_not_take_is_the_requests_fault() -> None:
    error = raised(VLLMValidationError("out of vocabulary", parameter="logit_bias", value=[999]))
    assert isinstance(error, RequestRefusedError)
    assert error.param == "logit_bias"
    assert "out of vocabulary" in str(error)


def test_parameters_that_vllm_does_not_make_are_the_requests_fault() -> None:
    error = raised(None, temperature=3.0)
    assert isinstance(error, RequestRefusedError)
    assert error.param == "temperature"


@pytest.mark.parametrize("error", [EngineGenerateError(), ValueError("x")])
def test_what_fails_in_vllm_is_not_the_requests_fault(error: Exception) -> None:
    assert type(raised(error)) is EngineError


def test_what_vllm_could_not_do_is_said() -> None:
    error = EngineGenerateError()
    error.__cause__ = OverflowError("too large")
    assert "OverflowError('too large')" in str(raised(error))


def test_a_full_queue_is_no_failure() -> None:
    assert type(raised(QueueOverflowError())) is EngineOverloadedError


@pytest.mark.parametrize(
    "options",
    [
        ("--model", "other"),
        ("--tokenizer=other",),
        ("--revision", "v2"),
        ("--tokenizer_revision", "v2"),
        ("--generation-config", "vllm"),
        ("--override-generation-config", '{"temperature": 0}'),
        ("--reasoning-parser", "qwen3"),
        ("--reasoning-parser-plugin", "own.py"),
        (FORMATS, '{"backend": "xgrammar", "reasoning_parser": "qwen3"}'),
        (FORMATS, '{"backend": "xgrammar", "reasoning_parser_plugin": "own.py"}'),
        (FORMATS, '{"backend": "xgrammar", "enable_in_reasoning": true}'),
    ],
)
def test_what_ponder_reads_too_is_not_for_vllm_alone(options: tuple[str, ...]) -> None:
    with pytest.raises(OptionsError, match="is not for vLLM alone"):
        parse_options(BUNDLED_MODEL, options)
    assert parse_options(BUNDLED_MODEL, ["--max-num-seqs", "7"]).max_num_seqs == 7


@pytest.mark.parametrize(
    "options",
    [
        (FORMATS, '{"backend": "guidance"}'),
        (FORMATS, '{"reasoning_parser": "qwen3"}'),
        (FORMATS, "{}"),
        (f'{FORMATS}={{"backend": "outlines"}}',),
        (f"{FORMATS}.backend=guidance",),
        (f"{FORMATS}.backend", "auto"),
        (f"{FORMATS.replace('-', '_').replace('__', '--', 1)}.backend", "lm-format-enforcer"),
    ],
)
def test_formats_are_enforced_by_the_backend_that_they_are_checked_for(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    with pytest.raises(OptionsError, match='add "backend": "xgrammar" to it'):
        parse_options(BUNDLED_MODEL, options)
    written = tmp_path / "options.yaml"
    written.write_text("structured-outputs-config.backend: guidance\n", encoding="utf-8")
    with pytest.raises(OptionsError, match='add "backend": "xgrammar" to it'):
        parse_options(BUNDLED_MODEL, ["--config", str(written)])


@pytest.mark.parametrize(
    "options", [(), (FORMATS, '{"backend": "xgrammar", "disable_any_whitespace": true}')]
)
def test_the_backend_of_formats_is_xgrammar(options: tuple[str, ...]) -> None:
    config = parse_options(BUNDLED_MODEL, options).structured_outputs_config
    assert config.backend == "xgrammar"
    assert config.disable_any_whitespace == bool(options)


@pytest.mark.parametrize("option", ["--guided-decoding-backend", "--guided-decoding-config"])
def test_older_names_of_the_backend_are_no_options(option: str) -> None:
    with pytest.raises(OptionsError, match="is no option of vLLM"):
        parse_options(BUNDLED_MODEL, [option, "guidance"])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-model-length", "64"), "did you mean --max-model-len?"),
        (("--no-such-option",), "--no-such-option after `--` is no option of vLLM"),
        (("--max-num-seqs", "many"), "argument --max-num-seqs: .*many"),
    ],
)
def test_an_option_that_vllm_does_not_have_is_one_sentence(
    options: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OptionsError, match=said):
        parse_options(BUNDLED_MODEL, options)
    assert capsys.readouterr().err == ""


def test_a_dead_engine_is_said_to_be_dead() -> None:
    assert type(raised(VLLMEngineDeadError())) is EngineDeadError


@pytest.mark.parametrize(("read", "kind"), [(True, ForkedEngines), (False, SpawnedEngines)])
def test_an_engine_is_forked_only_where_torch_has_read_its_settings(
    read: bool, kind: type[BaseContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm, "on_cpu", lambda: True)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    with torch._dynamo.config.patch(disable=read), vllm._engine_processes():
        assert type(utils.get_mp_context()) is kind


@pytest.mark.parametrize("config", [None, "{", "[]", "{}"])
def test_a_config_that_describes_no_model_is_one_sentence(
    config: str | None, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(EngineSetupError, match=r"config\.json does not describe a model"):
        cpu_settings(tmp_path)


def test_settings_keep_to_what_the_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "processors", lambda: 3)
    monkeypatch.setattr(machine, "memory", lambda: 400)
    config = (Path(BUNDLED_MODEL) / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"hidden_size": ', '"hidden_size": 10'))
    environment, options = cpu_settings(tmp_path)
    assert environment["OMP_NUM_THREADS"] == "3"
    assert environment["TORCH_COMPILE_DISABLE"] == "1"
    assert options[options.index("--kv-cache-memory-bytes") + 1] == "100"
