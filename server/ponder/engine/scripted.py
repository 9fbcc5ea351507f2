"""A deterministic engine and vocabulary, on which every rule of a thought is tested.

They ship because code that builds on the Engine protocol needs the same fake.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Literal

from ponder.engine.hermes import Hermes
from ponder.engine.protocol import (
    FORBIDDEN,
    Chunk,
    Demand,
    EngineDeadError,
    EngineError,
    EngineFacts,
    EngineRequest,
    EngineSetupError,
    Load,
    Sampling,
    TokenLogprob,
    Vocabulary,
)
from ponder.engine.pulse import Pulse

_REMEMBERED = 1000  # prompts that a later prompt may continue
_TAIL = 64  # tokens at a prompt's end that may close its thought

Script = Callable[[Sequence[int], int], Iterator[int]]
"""(prompt token ids, number of the request on this engine) → the tokens the model would sample."""


class ByteVocabulary:
    """One token per byte, and single tokens for EOS and the markers. ASCII scripts read easily.

    `special` are further tokens, without a text of their own.
    """

    EOS, THINK, END_THINK, TOOL_CALL = 256, 257, 258, 259
    _MARKERS = (("<think>", THINK), ("</think>", END_THINK), ("<tool_call>", TOOL_CALL))

    def __init__(self, *, single_token_markers: bool = True, special: Sequence[str] = ()) -> None:
        markers = self._MARKERS if single_token_markers else ()
        self._bytes = {token_id: text.encode() for text, token_id in markers}
        self._markers = (*markers, *((text, 260 + n) for n, text in enumerate(special)))

    @property
    def eos_token_ids(self) -> frozenset[int]:
        return frozenset({self.EOS})

    def encode(self, text: str) -> list[int]:
        for marker, token_id in self._markers:
            before, found, after = text.partition(marker)
            if found:
                return [*self.encode(before), token_id, *self.encode(after)]
        return list(text.encode())

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < self.EOS else self._bytes.get(token_id, b"")


class ScriptedEngine:
    """Plays a script under the engine's own rules: `max_tokens`, stop ids, EOS, `min_tokens`.

    A token that `min_tokens` or `logit_bias` masks becomes `masked_token`. A script that ends
    without EOS goes on with `masked_token` for ever, as models do. `chunk_sizes` is cycled;
    `delay` seconds pass before each chunk. Exceptions raised by the script are the engine's faults.

    As strict as a real engine, it refuses a request that asks for no token, does not fit in
    `max_model_len` or repeats the id of a running one. `requests` and `outputs` are parallel: each
    request, and every token sampled for it. `demand` is the load that it reports.
    """

    def __init__(
        self,
        script: Script,
        vocabulary: Vocabulary,
        *,
        max_model_len: int = 4096,
        chunk_sizes: Sequence[int] = (1,),
        masked_token: int = ord("x"),
        delay: float = 0.0,
    ) -> None:
        self._script = script
        self._vocabulary = vocabulary
        self._chunk_sizes = tuple(chunk_sizes)
        self._masked_token = masked_token
        self.delay = delay
        self._running: set[str] = set()
        self._dead = False
        self._pulse = Pulse()
        self._speaks = asyncio.Event()
        self._speaks.set()
        # It plays the script, whatever the grammar.
        self.facts = EngineFacts(
            max_model_len=max_model_len,
            scores_prompts=True,
            check=lambda _: None,
            calling=Hermes(),
            demand=lambda: self.demand,
        )
        self.demand = Demand()
        self.requests: list[tuple[list[int], Sampling]] = []
        self.outputs: list[list[int]] = []

    async def generate(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        prompt, sampling = request.prompt, request.sampling
        if self._dead:
            raise EngineDeadError("the scripted engine was killed")
        if sampling.max_tokens < 1:
            raise EngineError(f"max_tokens must be at least 1, not {sampling.max_tokens}")
        if len(prompt) + sampling.max_tokens > self.facts.max_model_len:
            raise EngineError(
                f"{len(prompt)} prompt tokens and max_tokens {sampling.max_tokens} do not fit in "
                f"{self.facts.max_model_len}"
            )
        if request.id in self._running:
            raise EngineError(f"request {request.id!r} is already running")
        number = len(self.requests)
        self.requests.append((list(prompt), sampling))
        self.outputs.append([])
        self._running.add(request.id)
        self._pulse.begin()
        play = self._play(request, self._script(prompt, number), self.outputs[number])
        try:
            async with aclosing(play):
                async for chunk in play:
                    self._pulse.beat()
                    yield chunk
        finally:
            self._running.discard(request.id)
            self._pulse.end()

    async def _play(
        self, request: EngineRequest, script: Iterator[int], output: list[int]
    ) -> AsyncGenerator[Chunk, None]:
        sampling = request.sampling
        told: list[TokenLogprob | None] | None = None
        if (most := sampling.prompt_logprobs) is not None:
            told = [None, *(_logprob(token_id, most) for token_id in request.prompt[1:])]
        stops = set(sampling.stop_token_ids)
        if not sampling.ignore_eos:
            stops |= self._vocabulary.eos_token_ids
        turn = 0
        batch: list[int] = []
        finish: Literal["stop", "length"] | None = None
        while finish is None:
            token_id = next(script, self._masked_token)
            early = token_id in stops and len(output) < sampling.min_tokens
            if early or sampling.logit_bias.get(token_id, 0.0) <= FORBIDDEN:
                token_id = self._masked_token
            batch.append(token_id)
            output.append(token_id)
            if token_id in stops:
                finish = "stop"
            elif len(output) >= sampling.max_tokens:
                finish = "length"
            if finish or len(batch) >= self._chunk_sizes[turn % len(self._chunk_sizes)]:
                await asyncio.sleep(self.delay)
                await self._speaks.wait()
                if self._dead:
                    raise EngineDeadError("the scripted engine was killed")
                logprobs = None
                if sampling.logprobs is not None:
                    logprobs = [_logprob(t, sampling.logprobs) for t in batch]
                yield Chunk(batch, finish, logprobs, prompt_logprobs=told)
                batch, turn, told = [], turn + 1, None

    def unfinished(self) -> int:
        return len(self._running)

    def silence(self) -> float:
        return self._pulse.silence()

    async def check_health(self) -> None:
        if self._dead:
            raise EngineDeadError("the scripted engine was killed")

    def kill(self) -> None:
        """Die, as an engine process does."""
        self._dead = True

    def hang(self) -> None:
        """Give no token until `go_on`, as a stopped engine process."""
        self._speaks.clear()

    def go_on(self) -> None:
        self._speaks.set()

    def shutdown(self) -> None:
        self._dead = True


def load(load: Load) -> ScriptedEngine:
    """The engine for trying clients without a model's weights: it replies with the options' texts.

    Each text is one reply, and the last one repeats: `ponder serve --engine scripted -- "Let me
    see.</think>42"`. Raises `EngineSetupError` where there is none.
    """
    if not load.options:
        raise EngineSetupError(
            "the scripted engine needs its replies: give it a text for each reply after `--`, with "
            "the end marker of the model's thoughts where the thought ends"
        )
    return ScriptedEngine(_Replies(load), load.vocabulary)


class _Replies:
    """A script of whole replies: a text for each prompt.

    A prompt whose thought is closed gets the part of the text behind the thought. If it continues
    an earlier prompt, it gets the rest of that prompt's text.
    """

    def __init__(self, load: Load) -> None:
        self._texts = list(load.options)
        self._vocabulary = load.vocabulary
        self._end = load.end_of_thought or ""
        self._marker = load.vocabulary.encode(self._end)
        self._begun: deque[tuple[list[int], str]] = deque(maxlen=_REMEMBERED)

    def __call__(self, prompt: Sequence[int], _number: int) -> Iterator[int]:
        ids, closed = list(prompt), self._closed(prompt)
        known = (text for begun, text in self._begun if closed and ids[: len(begun)] == begun)
        text = next(known, None)
        if text is None:
            text = self._texts.pop(0) if len(self._texts) > 1 else self._texts[0]
            self._begun.appendleft((ids, text))
        if closed and self._end in text:
            text = text.partition(self._end)[2].lstrip()
        yield from self._vocabulary.encode(text)
        yield min(self._vocabulary.eos_token_ids)

    def _closed(self, prompt: Sequence[int]) -> bool:
        """Whether the prompt's last tokens hold the end marker."""
        tail, size = list(prompt)[-_TAIL:], len(self._marker)
        return size > 0 and any(
            tail[at : at + size] == self._marker for at in range(len(tail) - size + 1)
        )


def _logprob(token_id: int, alternatives: int) -> TokenLogprob:
    """Log probabilities with the sampled token first, and the next ids as alternatives."""
    top = tuple((token_id + rank, -1.0 - rank) for rank in range(alternatives))
    return TokenLogprob(token_id, -1.0, top)


def say(*texts: str, vocabulary: Vocabulary) -> Script:
    """A script that says one text per request, EOS after each; the last one repeats."""

    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        yield from vocabulary.encode(texts[min(number, len(texts) - 1)])
        yield min(vocabulary.eos_token_ids)

    return script
