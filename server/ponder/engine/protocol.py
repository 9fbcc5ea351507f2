"""The interface between a thought and the engine that generates its tokens.

Token ids go in, token ids come out. Ponder never uses an engine's own text: when a request is
re-entered in the middle of a character, engines return pieces of the prompt.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from ponder.errors import PonderError, SetupError


class EngineError(PonderError):
    """The engine failed on this request; other requests may still be served."""


class RequestRefusedError(EngineError):
    """The engine does not take this request; `param` is the field at fault, where it says so."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class EngineOverloadedError(EngineError):
    """The engine takes no more requests at the moment."""


class EngineDeadError(EngineError):
    """The engine is gone; nothing more will be served by this process."""


class EngineSetupError(SetupError, ValueError):
    """The operator's settings for the engine cannot work; the message says how to mend them."""


FORBIDDEN = -100.0
"""The logit bias of a token that is not to be sampled."""


@dataclass(frozen=True, slots=True)
class Grammar:
    """A constraint on the sampled text, as in vLLM's `structured_outputs`.

    `rule` is a pattern for `regex`, EBNF for `grammar`, and JSON text for the others: a schema, a
    list of texts, an xgrammar structural tag.
    """

    kind: Literal["json", "regex", "choice", "grammar", "structural_tag"]
    rule: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that an answer may call. `parameters` is the JSON schema of its arguments.

    `strict` holds a call's arguments to the schema where nothing else asks for that.
    """

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The rules of one engine request, in vLLM's vocabulary and with its neutral defaults.

    `min_tokens` masks EOS and `stop_token_ids` until that many tokens are sampled. `logprobs` is
    the number of alternatives beside the sampled token. A `logit_bias` of -100 forbids a token.
    `chunk_tokens` is how many tokens the engine may gather before it reports them: a promise about
    size, not a limit on length. `prompt_logprobs` is the number of alternatives for each token of
    the prompt. Only requests with the same `cache_salt` share cached prompts. With a `grammar`, the
    sampled text follows it and ends with it.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    min_tokens: int = 0
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    chunk_tokens: int = 1
    grammar: Grammar | None = None
    prompt_logprobs: int | None = None
    cache_salt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The client request that an engine's request is part of, for routers and schedulers.

    `tenant` is a pseudonym of the key, `trace` holds the W3C headers of the request's trace, and
    `due_at` is when its answer is due, in seconds of `time.perf_counter`.
    """

    tenant: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    due_at: float | None = None


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """A request to an engine for the tokens that follow `prompt`, sampled by `sampling`.

    No other running request has its `id`. All requests of a thought have one `affinity`: the engine
    that served the one before has the prompt in its prefix cache.
    """

    prompt: Sequence[int]
    sampling: Sampling
    id: str
    affinity: str = ""
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True, slots=True)
class CallPart:
    """The next part of an answer's call number `index`; the first part has `id` and `name`.

    `arguments` is a piece of JSON text: the pieces of a call concatenate to its arguments.
    """

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


CALL = "\ud802"
"""A call's header in gpt-oss's answers: a surrogate, which no text of a model can hold."""


class AnswerParser(Protocol):
    """Separates the text of one answer from the calls in it. Special tokens are spelt out."""

    def feed(
        self, text: str, token_ids: Sequence[int], *, last: bool = False
    ) -> tuple[str, Sequence[CallPart]]:
        """Returns text outside calls, and parts of calls.

        `last` says that the answer ends here, and was not truncated: held text is released.
        """
        ...


class Calling(Protocol):
    """How a model writes calls.

    `headed` says that a header precedes every message, which is read by token ids: the parsers look
    for no special token as text, and no blank precedes an answer.
    """

    headed: bool

    def parsers(self, tools: Sequence[Tool]) -> Callable[[], AnswerParser]:
        """Returns a function that makes the parser of one answer."""
        ...

    def grammar(self, tools: Sequence[Tool], *, required: bool, several: bool) -> Grammar | None:
        """A grammar that allows only well-formed calls; None where no tool and no caller asks.

        `required` allows no answer without a call. Raises `RequestRefusedError` where no grammar
        can enforce this model's calls.
        """
        ...

    def beside_calls(self, form: Mapping[str, Any]) -> Mapping[str, Any]:
        """A structural tag's format of an answer, as it begins where a call may stand instead."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """An engine's load: requests that run and wait, and the used share of its KV cache (0 to 1)."""

    running: int = 0
    waiting: int = 0
    cache: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What an engine can do. `max_model_len` bounds prompt + sampled tokens; `max_logprobs` the
    alternatives beside a sampled token, None for no bound.

    `scores_prompts` says that it returns the log probabilities of a prompt. `check` raises
    `RequestRefusedError` for a grammar that the engine cannot enforce; None means that it enforces
    none. `calling` is None if the engine was loaded without a syntax of calls. `demand` returns the
    current load; None for an engine that does not know it.
    """

    max_model_len: int
    max_logprobs: int | None = None
    scores_prompts: bool = False
    check: Callable[[Grammar], None] | None = None
    calling: Calling | None = None
    demand: Callable[[], Demand] | None = None


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Log probability of one sampled token and of its best alternatives (id → logprob)."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Newly sampled tokens, including the stop token and EOS.

    `finish` is set on the last chunk: "stop" after EOS or a stop token id, "length" at
    `max_tokens`. `logprobs` is parallel to `token_ids` when they were asked for.
    `cached_tokens` is how many prompt tokens came from the prefix cache. The first chunk has the
    `prompt_logprobs`, if asked for; the prompt's first token follows nothing and has None.
    """

    token_ids: Sequence[int]
    finish: Literal["stop", "length"] | None = None
    logprobs: Sequence[TokenLogprob] | None = None
    cached_tokens: int | None = None
    prompt_logprobs: Sequence[TokenLogprob | None] | None = None


class Vocabulary(Protocol):
    """The part of a tokenizer that a thought needs.

    `token_bytes` gives the UTF-8 bytes a token stands for, empty for special tokens such as EOS;
    the bytes of consecutive tokens concatenate to the text.
    """

    @property
    def eos_token_ids(self) -> frozenset[int]: ...
    def encode(self, text: str) -> list[int]: ...
    def token_bytes(self, token_id: int) -> bytes: ...


class Engine(Protocol):
    """A generator of tokens.

    `generate` yields chunks until `finish`; closing the generator early (`aclose`, or cancelling
    the task that reads it) aborts the request in the engine at once. It raises `EngineError` when
    this request failed and `EngineDeadError` when the engine is gone. `ponder.engine.scripted`
    is the fake that ships beside it.

        >>> import asyncio
        >>> from contextlib import aclosing
        >>> from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
        >>> vocabulary = ByteVocabulary()
        >>> engine = ScriptedEngine(say("42", vocabulary=vocabulary), vocabulary)
        >>> async def sampled(prompt):
        ...     request = EngineRequest(vocabulary.encode(prompt), Sampling(max_tokens=8), "sum")
        ...     async with aclosing(engine.generate(request)) as stream:
        ...         return [token_id async for chunk in stream for token_id in chunk.token_ids]
        >>> asyncio.run(sampled("6 * 7 ="))
        [52, 50, 256]
    """

    @property
    def facts(self) -> EngineFacts: ...
    def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]: ...
    def unfinished(self) -> int:
        """Requests the engine has not finished or aborted yet."""
        ...

    def silence(self) -> float:
        """Seconds without a token, while requests run; 0 while none does."""
        ...

    async def check_health(self) -> None:
        """Raise `EngineDeadError` when the engine is gone for good, and `EngineOverloadedError`
        while it takes no requests.
        """
        ...

    def shutdown(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The model that an engine is to load, and the operator's options for this engine.

    `name` is a directory or a hub name, `directory` has the model's files without its weights, and
    `vocabulary` is its tokenizer. `served_as` is what clients call the model. `end_of_thought` is
    the marker that ends its thoughts, None for a model that does not think. `calls` names the
    syntax of its calls, as vLLM's `--tool-call-parser` does. Without `calls_needed` that name is a
    guess, and an engine that cannot read such calls starts without them. A request that gives no
    token for `stall_timeout` seconds has stalled; None sets no limit.
    """

    name: str
    directory: Path
    served_as: str
    vocabulary: Vocabulary
    end_of_thought: str | None = None
    calls: str | None = None
    calls_needed: bool = False
    options: Sequence[str] = ()
    stall_timeout: float | None = None


class Loader(Protocol):
    """Loads an engine, in the main thread and inside a running event loop.

    Raises `EngineSetupError` for a fault that the operator can mend, and any other exception where
    the model does not load.
    """

    def __call__(self, load: Load) -> Engine: ...
