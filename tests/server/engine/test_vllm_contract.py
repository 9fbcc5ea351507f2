"""What Ponder takes of vLLM is there: in the installed build, and in the GPU build that is pinned.

Nothing is imported, so the GPU build needs no GPU.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from .sources import Source, Unreachable, defines, installed, members, published

ROOT = Path(__file__).parents[3]


@cache
def gpu_build() -> Source:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pinned,) = (one for one in extras["optional-dependencies"]["gpu"] if one.startswith("vllm=="))
    return published(pinned)


@pytest.fixture(params=["installed", "gpu"])
def vllm(request: pytest.FixtureRequest) -> Source:
    if request.param == "installed":
        return installed("vllm")
    try:
        return gpu_build()
    except Unreachable as error:
        pytest.skip(f"the registry does not give the GPU build: {error}")


def imported() -> Iterator[tuple[str, str]]:
    for room in ("server", "training"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vllm."):
                    for alias in node.names:
                        yield str(node.module), alias.name


def test_every_imported_name_is_there(vllm: Source) -> None:
    names = set(imported())
    assert len(names) > 10
    assert {name for name in names if not defines(vllm, *name)} == set()


@pytest.mark.parametrize(
    ("module", "name", "used"),
    [
        (
            "vllm.sampling_params",
            "SamplingParams",
            "max_tokens temperature top_p top_k min_p presence_penalty frequency_penalty "
            "repetition_penalty seed min_tokens stop_token_ids ignore_eos logprobs flat_logprobs "
            "logit_bias stream_interval output_kind detokenize skip_clone",
        ),
        ("vllm.sampling_params", "RequestOutputKind", "DELTA"),
        ("vllm.outputs", "CompletionOutput", "token_ids logprobs finish_reason"),
        (
            "vllm.v1.engine.async_llm",
            "AsyncLLM",
            "from_engine_args generate check_health shutdown get_num_unfinished_requests",
        ),
        ("vllm.engine.arg_utils", "AsyncEngineArgs", "add_cli_args"),
        (
            "vllm.v1.metrics.stats",
            "SchedulerStats",
            "num_running_reqs num_waiting_reqs num_skipped_waiting_reqs kv_cache_usage",
        ),
        ("vllm.v1.metrics.loggers", "StatLoggerBase", "record log_engine_initialized"),
        (
            "vllm.engine.arg_utils",
            "EngineArgs",
            "model tokenizer revision tokenizer_revision generation_config from_cli_args "
            "override_generation_config block_size kv_cache_memory_bytes enforce_eager "
            "data_parallel_size data_parallel_rank data_parallel_external_lb "
            "data_parallel_hybrid_lb enable_chunked_prefill distributed_executor_backend "
            "served_model_name disable_log_stats",
        ),
    ],
)
def test_every_used_member_is_there(vllm: Source, module: str, name: str, used: str) -> None:
    assert set(used.split()) - members(vllm, module, name) == set()


def test_engines_are_started_by_the_context_that_two_modules_hold(vllm: Source) -> None:
    """Ponder replaces it there, to start engines as its own kind of process."""
    for module in ("vllm.v1.engine.utils", "vllm.v1.engine.coordinator"):
        assert defines(vllm, module, "get_mp_context")


def test_the_environment_is_read_under_the_names_that_are_set(vllm: Source) -> None:
    text = vllm("vllm/envs.py")
    assert text is not None
    for name in ("NO_USAGE_STATS", "LOGGING_LEVEL", "RPC_BASE_PATH", "CPU_OMP_THREADS_BIND"):
        assert f'"VLLM_{name}"' in text
