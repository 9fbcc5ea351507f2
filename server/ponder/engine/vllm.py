"""vLLM in process, over `AsyncLLM`: the default engine, on GPU and on CPU.

Ponder passes token ids in and takes token ids out (`detokenize=False`): only the thought's own
decoder makes text.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NoReturn

from ponder.engine import machine, vllm_grammars
from ponder.engine.child import ForkedEngines, SpawnedEngines
from ponder.engine.harmony_calls import Harmony
from ponder.engine.protocol import (
    Calling,
    Chunk,
    Demand,
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineOverloadedError,
    EngineRequest,
    EngineSetupError,
    Load,
    RequestRefusedError,
)
from ponder.engine.pulse import Pulse
from ponder.engine.tokenizer import HFTokenizer
from ponder.engine.vllm_calls import VLLMCalling
from ponder.engine.vllm_demand import Demands
from ponder.engine.vllm_ranks import Ranks
from ponder.engine.vllm_tokens import logprobs_of, prompt_logprobs_of, sampling_params
from ponder.engine.weights import check_weights

if TYPE_CHECKING:
    from vllm.config import StructuredOutputsConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger("ponder")  # the log that operators read
MIB = 1 << 20
_IN_PROCESS = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
}
_THREADS = ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS")
_SOCKETS = "VLLM_RPC_BASE_PATH"
_DEAD = "the vLLM engine died"
_ONE_MODEL = "name the model before the `--`; for another revision, name a directory that has it"
_ONE_SAMPLING = "set sampling in each request, and its defaults in generation_config.json"
_ONE_READER = "Ponder reads thoughts itself, and vLLM would wait for an end marker in the prompt"
_NOT_AFTER_DASHES = {
    "model": _ONE_MODEL,
    "tokenizer": _ONE_MODEL,
    "revision": _ONE_MODEL,
    "tokenizer_revision": _ONE_MODEL,
    "generation_config": _ONE_SAMPLING,
    "override_generation_config": _ONE_SAMPLING,
    "reasoning_parser": _ONE_READER,
    "reasoning_parser_plugin": _ONE_READER,
}
_READERS = ("reasoning_parser", "reasoning_parser_plugin", "enable_in_reasoning")


class OptionsError(EngineSetupError):
    """An option after `--` is not for vLLM; the message says what to do."""


def cpu_settings(model: Path) -> tuple[dict[str, str], list[str]]:
    """Environment and vLLM options for a machine without a GPU, as measured on shared cores.

    - Thread binding off: bound threads of a shared core wait for each other (16 tokens/s against
      311). One thread for a model whose layers are too small to split; otherwise as many as the
      process has processors.
    - KV cache for 32 full contexts, at most a quarter of the memory: unset, vLLM takes half.
    - Blocks of 32 tokens: the CPU default of 128 caches nothing for short thoughts.
    - Eager, without code that torch compiles on first use, such as the ranks of log probabilities:
      compiling takes half a minute and a C++ compiler; without one, it ends the engine.
    - No chunked prefill: a seeded request whose prompt is prefilled in pieces kills the engine
      ("CPU Generator does not use offset"); 64 of them at once were enough.
    - With one thread, the worker runs inside the engine's process: a worker process of its own
      halves the rate and costs 300 MB. vLLM replaces the short name "uni" on CPUs, because that
      executor cannot set the threads; ours are set before the import.

    Raises `EngineSetupError` for a config.json that describes no model.
    """
    path = model / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        hidden = int(config["hidden_size"])
        heads = int(config.get("num_key_value_heads") or config["num_attention_heads"])
        head_size = int(config.get("head_dim") or hidden // int(config["num_attention_heads"]))
        token_bytes = 2 * int(config["num_hidden_layers"]) * heads * head_size * 4
        context_bytes = token_bytes * int(config.get("max_position_embeddings", 4096))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineSetupError(
            f"{path} does not describe a model ({type(error).__name__}: {error}): give a directory "
            "as Hugging Face's save_pretrained writes it"
        ) from error
    threads = 1 if hidden <= 512 else machine.processors()
    cache = min(max(32 * context_bytes, 64 * MIB), machine.memory() // 4)
    environment = {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        "TORCH_COMPILE_DISABLE": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings on CPUs are about triton and tcmalloc
    }
    options = ["--block-size", "32", "--kv-cache-memory-bytes", str(cache), "--enforce-eager"]
    options += ["--no-enable-chunked-prefill"]
    if threads == 1:
        options += ["--distributed-executor-backend", _IN_PROCESS]
    return environment, options


def on_cpu() -> bool:
    """True where the installed vLLM is the CPU build."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        version("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


class VLLMEngine:
    """An `AsyncLLM` behind the Engine protocol. Build it inside a running event loop."""

    def __init__(
        self,
        llm: AsyncLLM,
        sockets: TemporaryDirectory[str] | None = None,
        demands: Demands | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self._llm = llm
        self._ranks = ranks or Ranks(1)
        self._sockets = sockets
        self._demands = demands or Demands()
        self._pulse = Pulse()
        config = llm.model_config
        most = config.max_logprobs  # -1: all of the vocabulary
        self.facts = EngineFacts(
            max_model_len=config.max_model_len,
            max_logprobs=None if most < 0 else most,
            scores_prompts=True,
            check=vllm_grammars.check,
            demand=self._demand if demands else None,
        )

    @classmethod
    def start(cls, model: str, options: Sequence[str] = ()) -> VLLMEngine:
        """Load `model` (a directory or hub name) with vLLM's own command-line options.

        Call it in the main thread: the engine dies with the thread that starts it. Raises
        `OptionsError`, and vLLM's exception where a model does not load.
        """
        from vllm.envs import enable_envs_cache
        from vllm.v1.engine.async_llm import AsyncLLM

        own = logging.getLogger("vllm")
        own.handlers.clear()  # its lines are formatted as all others are
        own.propagate = True
        arguments = parse_options(model, options)
        # vLLM leaves its sockets behind: they get a temporary directory.
        sockets = None
        if _SOCKETS not in os.environ:
            sockets = TemporaryDirectory(prefix="ponder-")
            os.environ[_SOCKETS] = sockets.name
        # Exceptions that vLLM's imports keep hold this frame: no local may be the AsyncLLM itself.
        demands = None if arguments.disable_log_stats else Demands()
        loggers = [demands.logger()] if demands else None
        with _engine_processes():
            engine = cls(
                AsyncLLM.from_engine_args(arguments, stat_loggers=loggers),
                sockets,
                demands,
                Ranks.of(arguments),
            )
        enable_envs_cache()  # its statistics read the environment at every token
        return engine

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        from vllm.exceptions import GracefulHTTPError, VLLMClientError, VLLMError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

        self._pulse.begin()
        try:
            # Making the parameters checks them; vLLM checks the rest when the request starts.
            params = sampling_params(request.sampling)
            prompt = tokens_input(list(request.prompt), cache_salt=request.sampling.cache_salt)
            with self._ranks.taken(request.affinity or request.id) as rank:
                stream = self._llm.generate(prompt, params, request.id, data_parallel_rank=rank)
                async with aclosing(stream):
                    async for output in stream:
                        self._pulse.beat()
                        yield _chunk(request, output)
        except VLLMEngineDeadError as error:
            raise EngineDeadError(_DEAD) from error
        except VLLMClientError as error:  # is no ValueError
            param = getattr(error, "parameter", None)
            raise RequestRefusedError(f"vLLM refused the request: {error}", param) from error
        except GracefulHTTPError as error:  # its admission control
            raise EngineOverloadedError(str(error)) from error
        except (VLLMError, ValueError) as error:
            cause = error.__cause__ or error  # vLLM's own message does not say what happened
            raise EngineError(f"vLLM failed the request: {cause!r}") from error
        finally:
            self._pulse.end()

    def unfinished(self) -> int:
        unfinished: int = self._llm.get_num_unfinished_requests()
        return unfinished

    def silence(self) -> float:
        return self._pulse.silence()

    def _demand(self) -> Demand:
        """The reported load; nothing for an idle engine, which takes no step to report it in."""
        return self._demands.total() if self.unfinished() else Demand()

    async def check_health(self) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError as VLLMEngineDeadError

        try:
            await self._llm.check_health()
        except VLLMEngineDeadError as error:
            raise EngineDeadError(_DEAD) from error

    def shutdown(self) -> None:
        """End the engine's processes; nothing can be generated any more."""
        self._llm.shutdown()
        del self._llm  # its destructor fails once the interpreter has unloaded vLLM's modules
        if self._sockets is not None:
            from vllm.envs import disable_envs_cache

            disable_envs_cache()  # a later engine, here or in a child, has sockets of its own
            os.environ.pop(_SOCKETS, None)
            self._sockets.cleanup()


def load(load: Load) -> VLLMEngine:
    """Start vLLM with the options for this machine, followed by the operator's own.

    Checks the weights of a directory first: vLLM takes half a minute to find them damaged. Raises
    `OptionsError`, `WeightsError`.
    """
    if load.name == str(load.directory) and not _own_loader(load.options):
        check_weights(load.directory)  # weights from a hub are downloaded when the model loads
    options = [
        "--served-model-name",
        load.served_as,
        *prepare(load.directory),
    ]
    threads = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
    logger.info("starting vLLM: %s", " ".join([*threads, *vllm_grammars.OPTIONS, *options]))
    calls = calling(load)
    engine = VLLMEngine.start(load.name, [*options, *load.options])
    engine.facts = replace(engine.facts, calling=calls)
    return engine


def calling(load: Load) -> Calling | None:
    """The parser of the model's calls: vLLM's, except for harmony.

    Raises `EngineSetupError` where it is needed.
    """
    if load.calls is None or not isinstance(load.vocabulary, HFTokenizer):
        return None
    if load.calls == Harmony.name:
        return Harmony(load.vocabulary)
    try:
        return VLLMCalling(load.calls, load.vocabulary.transformers)
    except EngineSetupError as error:
        if load.calls_needed:
            raise
        logger.warning("tools are refused: %s", error)
        return None


def _own_loader(options: Sequence[str]) -> bool:
    """Whether an option reads the weights from another place or in another format."""
    return any(option.replace("_", "-").startswith("--load-format") for option in options)


def prepare(model: Path) -> list[str]:
    """Set the environment that torch and vLLM read when they are imported.

    Variables that the user has set stay as they are. Returns the options chosen for this machine.
    Raises `EngineSetupError`.
    """
    environment = dict(_ENVIRONMENT)
    options: list[str] = []
    if on_cpu():
        cpu_environment, options = cpu_settings(model)
        environment |= cpu_environment
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    return options


def parse_options(model: str, options: Sequence[str]) -> AsyncEngineArgs:
    """vLLM's own parser on vLLM's own options; the last of two equal options wins.

    The backend of formats is fixed. Raises `OptionsError` for an option that vLLM does not take,
    and for one that Ponder reads itself: the two must not differ.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    class Parser(FlexibleArgumentParser):  # type: ignore[misc]
        def error(self, message: str) -> NoReturn:
            found = re.search(r"unrecognized arguments: (\S+)", message)
            if found is None:
                raise OptionsError(f"after `--`, {message}")
            close = difflib.get_close_matches(found[1], self._option_string_actions, n=1)
            remedy = f"did you mean {close[0]}?" if close else "leave it out"
            raise OptionsError(f"{found[1]} after `--` is no option of vLLM: {remedy}")

    parser = AsyncEngineArgs.add_cli_args(Parser(prog="ponder serve MODEL --"))
    fixed = ["--model", model, *vllm_grammars.OPTIONS]
    parsed, own = (parser.parse_args([*fixed, *more]) for more in (options, []))
    for name, remedy in _NOT_AFTER_DASHES.items():
        if getattr(parsed, name) != getattr(own, name):
            raise OptionsError(f"--{name.replace('_', '-')} is not for vLLM alone: {remedy}")
    _check_formats(parsed.structured_outputs_config)
    return AsyncEngineArgs.from_cli_args(parsed)


def _check_formats(config: StructuredOutputsConfig) -> None:
    """Raise `OptionsError` for another backend than the one that formats are checked for.

    An operator's `--structured-outputs-config` replaces all of Ponder's, however it is spelt.
    """
    if config.backend != vllm_grammars.BACKEND:
        raise OptionsError(
            f"--structured-outputs-config after `--` would enforce formats with the backend "
            f"{config.backend}, and Ponder checks them for {vllm_grammars.BACKEND}: leave it out, "
            f'or add "backend": "{vllm_grammars.BACKEND}" to it'
        )
    for name in _READERS:
        if getattr(config, name):
            raise OptionsError(
                f"--structured-outputs-config.{name} is not for vLLM alone: {_ONE_READER}"
            )


@contextmanager
def _engine_processes() -> Iterator[None]:
    """In this block vLLM starts its engine as our own kind of process.

    A fork has what torch read when it was imported, which may have been before `prepare`.
    """
    import torch._dynamo
    from vllm.v1.engine import coordinator, utils

    compiles = os.environ.get("TORCH_COMPILE_DISABLE") != "1"
    prepared = torch._dynamo.config.disable is not compiles
    forks = on_cpu() and torch.get_num_threads() == 1 and prepared
    context = ForkedEngines() if forks else SpawnedEngines()
    before = {module: module.get_mp_context for module in (utils, coordinator)}
    try:
        for module in before:
            module.get_mp_context = lambda: context
        yield
    finally:
        for module, own in before.items():
            module.get_mp_context = own


def _chunk(request: EngineRequest, output: RequestOutput) -> Chunk:
    part = output.outputs[0]
    reason = part.finish_reason
    if reason is not None and reason not in ("stop", "length"):
        raise EngineError(f"the engine ended the request with {reason!r}")
    return Chunk(
        part.token_ids,
        reason,
        logprobs_of(part) if request.sampling.logprobs is not None else None,
        output.num_cached_tokens,
        prompt_logprobs_of(request, output),
    )
