"""Causes and remedies, out of what vLLM printed in each case."""

from __future__ import annotations

import pytest

from ponder.engine.failure import explain

PREFIX = "(EngineCore pid=7) ERROR 11-25 21:47:43 [core.py:1510] "
END = (
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
)


def printed(*lines: str) -> str:
    head = ["W1125 torch/_library/triton.py:53] Triton not available", f"{PREFIX}Traceback"]
    return "\n".join([*head, *(PREFIX + line for line in lines), "Traceback", END])


@pytest.mark.parametrize(
    ("line", "cause", "remedy"),
    [
        (
            "ValueError: To serve at least one request with the models's max seq len (4096), "
            "(0.01 GiB KV cache is needed, which is larger than the available KV cache memory "
            "(0.00 GiB). Try increasing gpu_memory_utilization.",
            "To serve at least one request",
            "--kv-cache-memory-bytes",
        ),
        (
            "RuntimeError: [enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: "
            "can't allocate memory: you tried to allocate 1000000000000 bytes. Error code 12",
            "DefaultCPUAllocator",
            "free memory",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 GiB.",
            "CUDA out of memory",
            "free memory",
        ),
        (
            "RuntimeError: Cannot find any model weights with `/models/mine`",
            "Cannot find any model weights",
            "download or export the model again",
        ),
        (
            "safetensors_rust.SafetensorError: Error while deserializing header: incomplete",
            "Error while deserializing header",
            "damaged",
        ),
        (
            "  Value error, User-specified max_model_len (100000) is greater than the derived "
            "max_model_len (max_position_embeddings=4096.0). To allow overriding, set X [type=v]",
            "User-specified max_model_len (100000)",
            "lower `-- --max-model-len`",
        ),
        (
            "    assert loaded_weight.shape[output_dim] == self.org_vocab_size",
            "assert loaded_weight.shape",
            "the weights are not those of its config.json",
        ),
        (
            'zmq.error.ZMQError: ipc path "/scratch/some/long/path" is longer than 107 characters '
            "(sizeof(sockaddr_un.sun_path)).",
            "/scratch/some/long/path",
            "set TMPDIR",
        ),
        (
            "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx",
            "No working C++ compiler",
            "TORCH_COMPILE_DISABLE=1",
        ),
        (
            "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. "
            "See stack trace (above) for the root cause.\n"
            "ponder.engine.warmup.WarmupError: the engine loaded, but fails at logprobs",
            "fails at logprobs",
            "see what was printed before it",
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/opt/python3'\n"
            "  Value error, Model architectures ['Qwen3ForCausalLM'] failed to be inspected. "
            "Please check the logs for more details. [type=value_error]",
            "Permission denied: '/opt/python3'",
            "see what was printed before it",
        ),
        (
            "  Value error, Model architectures ['Rare'] are not supported for now. Supported "
            "architectures: dict_keys(['Common']) [type=value_error]",
            "['Rare'] are not supported for now",
            "newer vLLM",
        ),
        ("KeyError: 'mystery'", "'mystery'", "see what was printed before it"),
        ("AssertionError", "AssertionError", "see what was printed before it"),
    ],
)
def test_a_cause_comes_with_its_remedy(line: str, cause: str, remedy: str) -> None:
    said = explain(printed(line))
    assert cause in said
    assert remedy in said
    assert "\n" not in said
    assert len(said) < 600
    assert "11-25" not in said


def test_an_engine_that_the_system_killed_was_short_of_memory() -> None:
    output = END.replace("{}", "{'EngineCore': -9}")
    assert "want of memory" in explain(output)


def test_silence_is_said_too() -> None:
    assert explain("") == "the output gives no reason: see what was printed before it"
