"""A checkpoint on this machine, thinking under the controller that serves."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Self

from ponder.engine import vllm
from ponder.engine.base import Engine, Sampling
from ponder.engine.tokenizer import HFTokenizer
from ponder.thought import budget as budgets
from ponder.thought.answer import AnswerDelta
from ponder.thought.contract import FILE_NAME, Contract
from ponder.thought.controller import AnswerRules, Thought, ThoughtDelta
from ponder.thought.errors import NoAnswerProduced, ThoughtError
from ponder.thought.format import CompiledFormat, ThoughtFormat

from ..protocol import Ask, Mode, Reply, ResponderError, Subject, concurrently, hint_text
from .replay import ReplayEngine

# Nobody reads along: gathered tokens halve the work between engine and controller.
_CHUNK_TOKENS = 16


class LocalResponder:
    """A checkpoint with a contract; `start` makes its engine when the first question comes.

    `max_tokens` bounds thought and answer together; None leaves the whole context.
    """

    def __init__(
        self, directory: Path, start: Callable[[], Engine], max_tokens: int | None = None
    ) -> None:
        contract = Contract.load(directory)
        if contract is None:
            raise ResponderError(
                f"{directory} has no {FILE_NAME}: serve it with `ponder serve {directory}` and "
                "evaluate the server's URL"
            )
        self._directory = directory
        self._contract = contract
        self._tokenizer = HFTokenizer(directory)
        form = ThoughtFormat.of_contract(contract)
        self._form = CompiledFormat.of(form, contract.opened_by, self._tokenizer)
        self._start = start
        self._max_tokens = max_tokens
        self._engine: Engine | None = None
        self._numbers = itertools.count()

    @classmethod
    def on_vllm(cls, directory: Path, max_tokens: int | None = None) -> Self:
        """`directory` on vLLM in this process.

        Raises `ResponderError` where there is no contract, `ContractError` where it does not hold.
        """

        def start() -> Engine:
            options = vllm.prepare(directory)
            with _interruptible():
                return vllm.VLLMEngine.start(str(directory), options)

        return cls(directory, start, max_tokens)

    async def subject(self) -> Subject:
        contract = self._contract
        lacks: dict[Mode, str] = {}
        if not (contract.budget_hint and contract.trained_budgets):
            lacks["hinted"] = f"a budget_hint with trained_budgets in its {FILE_NAME}"
        digest = hashlib.sha256((self._directory / FILE_NAME).read_bytes()).hexdigest()
        return Subject(str(self._directory), contract.trained_budgets, digest, lacks)

    async def answer(
        self, asks: Sequence[Ask], advance: Callable[[int], object]
    ) -> list[list[Reply]]:
        if self._engine is None:
            await asyncio.sleep(0)  # a Ctrl-C so far is heard here, before the load begins
            self._engine = self._start()
        engine = self._engine

        async def one(ask: Ask) -> list[Reply]:
            # The largest budget first: the others find their thought in its record.
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
        form = self._form
        text = self._tokenizer.render([{"role": "user", "content": ask.question}], {})
        prompt = self._tokenizer.encode(text)
        opening = self._tokenizer.encode(form.start.text) if form.opened_by == "model" else []
        if ask.hint is not None:
            prompt += opening + self._tokenizer.encode(hint_text(ask.hint, self._contract))
            form, opening = replace(form, opened_by="template"), []
        answer: list[str] = []

        def emit(delta: ThoughtDelta | AnswerDelta) -> None:
            if isinstance(delta, AnswerDelta):
                answer.append(delta.text)

        try:
            plan = budgets.resolve(
                budgets.Ask(budget=budget, max_completion_tokens=self._max_tokens),
                budgets.Limits(max_model_len=engine.max_model_len),
                prompt_tokens=len(prompt),
                close_tokens=len(opening) + len(form.close.ids),
                thinks=True,
            )
        except ThoughtError as error:
            raise ResponderError(f"{ask.question[:60]!r} cannot be asked: {error}") from error
        if plan.budget == 0:
            closing = [*opening, *form.close.ids]
            prompt += closing
            plan = replace(plan, allowance=plan.allowance - len(closing))
        thought = Thought(
            engine,
            self._tokenizer,
            form,
            prompt=prompt,
            plan=plan,
            sampling=Sampling(max_tokens=0, seed=ask.seed, chunk_tokens=_CHUNK_TOKENS),
            rules=AnswerRules(),
            request_id=f"eval-{next(self._numbers)}",
            shown_prefix="" if plan.budget else form.close.shown,
        )
        try:
            outcome = await thought.run(emit)
        except NoAnswerProduced:
            outcome = thought.outcome  # a wrong answer, not a failed evaluation
        return Reply("".join(answer), outcome.thinking_tokens, outcome.end_cause)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end what blocks the event loop.

    asyncio's own handler only cancels the task, which takes effect when the loop runs again; a
    KeyboardInterrupt would be swallowed by vLLM, which then waits for its engine for ever. Signals
    reach the main thread alone: in any other there is nothing to do.
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
