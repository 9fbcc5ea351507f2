"""Asks a checkpoint on this machine, with the code that serves it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Self

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.protocol import Engine, EngineSetupError, Load, Sampling
from ponder.engine.table import load_engine, prepare_engine
from ponder.engine.tokenizer import ModelFiles, TokenizerError
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import UNLIMITED, Limits
from ponder.thought.budget import Ask as Wish
from ponder.thought.contract import FILE_NAME, ContractError
from ponder.thought.drive import drive
from ponder.thought.errors import InvalidCloseText, NoAnswerProduced, ThoughtError
from ponder.thought.exits.loop import Loop
from ponder.thought.thought import Event

from ..protocol import Ask, Mode, Reply, ResponderError, Subject, concurrently, opening
from .replay import ReplayEngine

# No client reads the stream, and chunks of tokens halve the work between engine and thought.
_CHUNK_TOKENS = 16


class LocalResponder:
    """A checkpoint; `start` makes its engine for the first question.

    `max_tokens` bounds thought and answer together; None leaves the whole context.
    """

    def __init__(
        self, directory: Path, start: Callable[[], Engine], max_tokens: int | None = None
    ) -> None:
        try:
            self._checkpoint = Checkpoint.load(ModelFiles.find(str(directory)))
        except (FileNotFoundError, ContractError, TokenizerError, InvalidCloseText) as error:
            raise ResponderError(f"{directory}: {error}") from error
        self._directory = directory
        self._start = start
        self._max_tokens = max_tokens
        self._engine: Engine | None = None
        self._numbers = itertools.count()

    @classmethod
    def on_vllm(cls, directory: Path, max_tokens: int | None = None) -> Self:
        """A responder for the checkpoint in `directory`, on vLLM in this process.

        Raises `ResponderError` where its files are invalid.
        """
        try:
            prepare_engine("vllm", ModelFiles.find(str(directory)).directory)
        except (FileNotFoundError, EngineSetupError) as error:
            raise ResponderError(f"{directory}: {error}") from error

        def start() -> Engine:
            load = Load(
                name=str(directory),
                directory=directory,
                served_as=str(directory),
                vocabulary=responder._checkpoint.tokenizer,
            )
            try:
                with _interruptible():
                    return load_engine("vllm", load)
            except EngineSetupError as error:
                raise ResponderError(str(error)) from error

        responder = cls(directory, start, max_tokens)
        return responder

    async def subject(self) -> Subject:
        form, contract = self._checkpoint.form, self._directory / FILE_NAME
        lacks: dict[Mode, str] = {}
        if form is None:
            modes: tuple[Mode, ...] = ("efficient", "hinted", "truncated", "served")
            lacks = dict.fromkeys(modes, "thoughts of a form that Ponder knows")
        elif not (form.hint and form.trained_budgets):
            lacks["hinted"] = f"a budget_hint with trained_budgets in its {FILE_NAME}"
        digest = hashlib.sha256(contract.read_bytes()).hexdigest() if contract.exists() else None
        budgets = form.trained_budgets if form else ()
        return Subject(str(self._directory), budgets, digest, lacks)

    async def answer(
        self, asks: Sequence[Ask], advance: Callable[[int], object]
    ) -> list[list[Reply]]:
        if self._engine is None:
            await asyncio.sleep(0)  # handle an earlier Ctrl-C here, before the load begins
            self._engine = self._start()
        engine = self._engine

        async def one(ask: Ask) -> list[Reply]:
            # The largest budget comes first, so that the others can replay its thought.
            replay = ReplayEngine(engine)
            replies: list[Reply] = []
            for budget in reversed(ask.budgets):
                replies.append(await self._live(replay, ask, budget))
                advance(1)
            return replies[::-1]

        return await concurrently(one, asks)

    async def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()

    async def _live(self, engine: Engine, ask: Ask, budget: int) -> Reply:
        """One thought under one budget, and the answer to it."""
        checkpoint, form = self._checkpoint, self._checkpoint.form
        whole = form is None and budget == UNLIMITED  # a model that does not think has no budget
        answer: list[str] = []

        def emit(event: Event) -> None:
            if isinstance(event, AnswerDelta):
                answer.append(event.text)

        try:
            prompt = checkpoint.prompt(
                ask.messages,
                Wish(budget=None if whole else budget, max_completion_tokens=self._max_tokens),
                Limits(max_model_len=engine.facts.max_model_len),
                arguments={"tools": list(ask.tools)} if ask.tools else {},
                hinted=ask.hint == "served",
                begun=opening(ask.hint, form.hint if form else None),
            )
        except (ThoughtError, TokenizerError) as error:
            raise ResponderError(f"{ask.question[:60]!r} cannot be asked: {error}") from error
        sampling = Sampling(max_tokens=0, seed=ask.seed, chunk_tokens=_CHUNK_TOKENS)
        exits = [Loop()] if ask.hint == "served" else []
        thought = checkpoint.thought(prompt, sampling, exits=exits)
        try:
            outcome = await drive(thought, engine, f"eval-{next(self._numbers)}", emit)
        except NoAnswerProduced:
            outcome = thought.outcome  # a wrong answer, not a failed evaluation
        return Reply(
            "".join(answer),
            outcome.thinking_tokens,
            outcome.end_cause,
            outcome.completion_tokens,
            outcome.answer_tokens,
            outcome.probe_tokens,
        )


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt code that blocks the event loop.

    asyncio's own handler only cancels the task, which takes effect when the loop runs again; vLLM
    would swallow a KeyboardInterrupt and then wait for its engine for ever. Only the main thread
    gets signals, so that in any other this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: FrameType | None) -> None:
        if callable(before):
            before(number, frame)
        raise asyncio.CancelledError

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
