"""Explains why a model did not load, from vLLM's output: one sentence, and what to do."""

from __future__ import annotations

import re

_KNOWN = (
    (
        r"KV cache is needed|No available memory for the cache blocks|"
        r"cache blocks.*increase|estimated maximum model length",
        "give the cache more room (`-- --kv-cache-memory-bytes`, on a GPU "
        "`-- --gpu-memory-utilization`), or lower `-- --max-model-len`",
    ),
    (
        r"out of memory|Cannot allocate memory|can't allocate memory|not enough memory|"
        r"MemoryError|bad_alloc|[Ff]ree memory on device|OutOfMemory",
        "free memory, take a smaller model, or ask for a smaller cache "
        "(`-- --kv-cache-memory-bytes`)",
    ),
    (
        r"max_model_len .* is greater than|max_model_len must be",
        "lower `-- --max-model-len` to what the model was made for",
    ),
    (
        r"Cannot find any model weights|no .*(?:safetensors|weights) files? |"
        r"No such file or directory: '[^']*\.(?:safetensors|bin)'",
        "the directory lacks its weights: download or export the model again",
    ),
    (
        r"SafetensorError|[Dd]eserializing header|HeaderTooLarge|HeaderTooSmall|"
        r"(?:Metadata)?IncompleteBuffer|PytorchStreamReader|invalid load key",
        "a file of weights is damaged or cut off: download or export the model again",
    ),
    (
        r"size of tensor|size mismatch|shape mismatch|not initialized from checkpoint|"
        r"[Tt]here is no module or parameter named|Attempted to load weight|assert loaded_weight",
        "the weights are not those of its config.json: download or export the model again",
    ),
    (
        r"architectures? .* not supported|does not recognize this architecture|"
        r"is not supported for now",
        "this vLLM cannot run the model's architecture: serve another model or a newer vLLM",
    ),
    (
        r"No CUDA GPUs are available|no NVIDIA driver|CUDA driver version is insufficient|"
        r"Failed to infer device type",
        "no GPU can be used: mend its driver, or install the CPU build (BUILD=cpu)",
    ),
    (
        r"ipc path .* is longer than",
        "its sockets lie in the folder for temporary files: set TMPDIR to one with a shorter path",
    ),
    (
        r"No working C\+\+ compiler|[Ff]ailed to find C compiler",
        "install a compiler, or do without compiled code (`TORCH_COMPILE_DISABLE=1`, and "
        "`-- --enforce-eager`)",
    ),
    (
        r"'EngineCore[^']*': -9",
        "the system killed the engine, most likely for want of memory: free some, or take a "
        "smaller model",
    ),
)
_PREFIX = re.compile(r"^(?:\([^)]*\) )?(?:[A-Z]+ \d\d-\d\d [\d:]+ \[[^\]]*\] )?")
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Interrupt)\b(?:: (?P<said>.*))?$")
_ELSEWHERE = re.compile(r"See root cause above|See stack trace \(above\)|failed to be inspected")
_INVALID = "Value error, "  # pydantic's prefix, for values that vLLM's configuration refused
_ENOUGH, _LONGEST = 60, 300


def explain(output: str) -> str:
    """`CAUSE: REMEDY`, from tracebacks and the lines printed before them."""
    lines = [_PREFIX.sub("", line).strip() for line in output.splitlines()]
    for pattern, remedy in _KNOWN:
        for line in lines:
            if re.search(pattern, line):
                return f"{_cut(line)}: {remedy}"
    raised = [line for line in lines if _RAISED.match(line)]
    causes = [line for line in lines if not _ELSEWHERE.search(line)]
    invalid = [line for line in causes if line.startswith(_INVALID)]
    own = [line for line in causes if _RAISED.match(line)]
    cause = (invalid or own or raised or ["the output gives no reason"])[0]
    return f"{_cut(cause)}: see what was printed before it"


def _cut(line: str) -> str:
    """The first sentences, without the exception's name and pydantic's notes."""
    found = _RAISED.match(line)
    said = (found and found["said"]) or line
    said = said.removeprefix(_INVALID).partition(" [type=")[0].rstrip(" .:")
    for end in re.finditer(r"(?<=[^. ])\. (?=[A-Z])", said):
        if end.start() >= _ENOUGH:
            return said[: end.start()]
    return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"
