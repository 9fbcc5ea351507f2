"""What the routes share: one model on one engine, who may use it and how much at once."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from ponder.engine.base import Engine, EngineDeadError
from ponder.protocol.conversation import HEADER as CONVERSATION_HEADER
from ponder.protocol.conversation import read_conversation
from ponder.protocol.errors import NO_RETRY, ApiError, invalid_request
from ponder.protocol.request import ChatCompletionRequest
from ponder.protocol.response import ChatCompletion
from ponder.protocol.savings import Feedback, SavingsReport
from ponder.server.completion import Completion, StreamedReply, WholeReply
from ponder.server.ledger import Ledger
from ponder.server.metrics import Metrics
from ponder.server.model import ServedModel
from ponder.server.savings import SavingsCollector, charge, holdout, report
from ponder.server.settings import Settings
from ponder.server.store import FEEDBACK_DAYS, Entry, StateError
from ponder.server.traces import PROPAGATED, RequestSpan, Traces
from ponder.server.verifier import Verifier, VerifierFailure
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import UNLIMITED, Limits
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.holdout import ARMS
from ponder.thought.outcome import ThoughtDelta

logger = logging.getLogger(__name__)
HEALTH_CHECK_SECONDS = 1.0
STATE_SECONDS = 1.0  # that a scrape waits for the state file


class Service:
    """State of one server process. `draining` and `dead` are one-way."""

    def __init__(
        self,
        settings: Settings,
        model: ServedModel,
        engine: Engine,
        ledger: Ledger,
        *,
        verifier: Verifier | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.settings = settings
        self.model = model
        self._unhinted = replace(model, hints=False)
        self.engine = engine
        self.limits = Limits(
            max_model_len=engine.max_model_len,
            default=settings.default_budget,
            ceiling=settings.budget_ceiling,
        )
        self.ledger = ledger
        self.holdout = holdout(settings)
        self.metrics = Metrics(
            model.name,
            ARMS if settings.holdout else ARMS[:1],
            running=lambda: self.running,
            savings=SavingsCollector(self.ledger, settings.holdout),
        )
        self._verifier = verifier
        self._traces = traces
        self._judged: set[asyncio.Task[None]] = set()
        self._places: set[asyncio.Timeout] = set()
        self._less = asyncio.Event()  # something ended
        self.running = 0
        self.draining = False
        self._cut = False
        self.dead = False

    @property
    def ready(self) -> bool:
        return not (self.draining or self.dead)

    def authorise(self, header: str | None) -> None:
        """Raise 401 unless the header carries one of the keys, compared in constant time."""
        keys = [key.get_secret_value() for key in self.settings.api_key]
        if not keys:
            return
        scheme, _, given = (header or "").partition(" ")
        matches = [hmac.compare_digest(given.encode(), key.encode()) for key in keys]
        if scheme.lower() != "bearer" or not any(matches):
            raise ApiError(
                401,
                "invalid_api_key",
                "this server wants an API key: send it as `Authorization: Bearer KEY`",
                headers={"www-authenticate": "Bearer"},
            )

    def complete(self, request: ChatCompletionRequest, headers: Mapping[str, str]) -> Completion:
        """Plan a request. Raises everything the request itself is at fault for.

        The headers may name its conversation and its trace. A held-out conversation keeps the
        ceilings and what the client asks for, and goes without what the operator does to save.
        """
        if request.model is not None and request.model != self.model.name:
            raise ApiError(
                404,
                "model_not_found",
                f"the model {request.model!r} is not served here: ask for {self.model.name!r}",
                param="model",
            )
        said = read_conversation(request, headers.get(CONVERSATION_HEADER))
        name = said or f"request:{secrets.token_hex(16)}"
        assignment = self.holdout.assign(name)
        if said is None:
            assignment = replace(assignment, conversation=None)
        model, limits = self.model, self.limits
        if assignment.arm == "holdout" and request.ponder.holdout != "never":
            model, limits = self._unhinted, replace(limits, default=UNLIMITED)
        completion = Completion(request, model, self.engine, limits, assignment)
        if self._traces is not None:
            completion.trace = {name: headers[name] for name in PROPAGATED if name in headers}
        return completion

    async def whole(self, completion: Completion) -> ChatCompletion:
        """Run a completion and return it whole."""
        reply = WholeReply(completion)
        await self._run(completion, reply.emit)
        return reply.response()

    async def streamed(self, completion: Completion, put: Callable[[bytes], None]) -> None:
        """Run a completion and put its events as they come."""
        reply = StreamedReply(completion)
        await self._run(completion, lambda index, delta: put(reply.event(index, delta)))
        put(reply.closing())

    async def exposition(self) -> bytes:
        """All metrics; where the state cannot be read, the savings are as they last were."""
        try:
            async with asyncio.timeout(STATE_SECONDS):
                await self.ledger.refresh()
        except StateError as error:
            logger.error("%s", error)
        except TimeoutError:
            logger.error("the state file was not read within %g seconds", STATE_SECONDS)
        return self.metrics.render()

    async def savings(self) -> SavingsReport:
        """Raises `StateError`."""
        return await report(self.ledger, self.settings.holdout)

    async def rate(self, response: str, score: float) -> Feedback:
        """Take a client's word for how good a response was. Raises `StateError`."""
        if not await self.ledger.rate(response, score):
            raise ApiError(
                404,
                "response_not_found",
                f"no response {response!r} is known here: send the `id` of a response that is "
                f"complete and at most {FEEDBACK_DAYS:g} days old",
                param="id",
            )
        return Feedback(id=response, score=score)

    async def _run(
        self, completion: Completion, emit: Callable[[int, ThoughtDelta | AnswerDelta], None]
    ) -> None:
        """Run a completion and charge it with what it spent, however it ends.

        Those that fail or are left count too: an arm that loses more of them must not look cheap.
        """
        answers: list[list[str]] = [[] for _ in range(completion.request.n)]

        def heard(index: int, delta: ThoughtDelta | AnswerDelta) -> None:
            if isinstance(delta, AnswerDelta):
                answers[index].append(delta.text)
            emit(index, delta)

        try:
            async with self._place(completion.request.n):
                span = self._traces.begin(completion) if self._traces is not None else None
                try:
                    await completion.run(heard if self._verifier else emit)
                except BaseException as error:
                    self.metrics.unfinished(completion)
                    self._account(completion, span, error)
                    raise
                self.metrics.completed(completion)
                self._account(completion, span, None)
        except asyncio.CancelledError:  # what ran out of time is an ApiError by now
            self.metrics.left()
            raise
        if self._verifier is not None:
            texts = ["".join(answer) for answer in answers]
            task = asyncio.create_task(self._judge(self._verifier, completion, texts))
            self._judged.add(task)
            task.add_done_callback(self._judged_one)

    def _account(
        self, completion: Completion, span: RequestSpan | None, error: BaseException | None
    ) -> None:
        empty = isinstance(error, NoAnswerProduced)
        if empty:
            self.metrics.empty(completion.assignment.arm)
        self.ledger.record(charge(completion, empty))
        if span is not None:
            span.end(error)
        fields = {
            "arm": completion.assignment.arm,
            "budget": completion.prompt.plan.budget,
            "end_causes": [outcome.end_cause for outcome in completion.outcomes],
            "thinking_tokens": sum(outcome.thinking_tokens for outcome in completion.outcomes),
            "completion_tokens": completion.spent_tokens,
            "seconds": round(time.perf_counter() - completion.started_at, 6),
            "error": error and type(error).__name__,
        }
        logger.info("request ended", extra={"fields": fields})

    async def _judge(self, verifier: Verifier, completion: Completion, answers: list[str]) -> None:
        """Record the scores; one that does not come is counted, and is no low one."""
        turns = [{"role": m.role, "content": m.text} for m in completion.request.messages]
        scores: list[float] = []

        async def judge(answer: str) -> None:
            try:
                score = await verifier.score(turns, answer)
            except VerifierFailure as failure:
                logger.warning("%s", failure)
                self.metrics.unjudged(failure.reason)
                return
            if score is not None:
                scores.append(score)

        try:
            await asyncio.gather(*map(judge, answers))
        finally:
            if scores:
                measures = {"verifier": (float(len(scores)), sum(scores))}
                self.ledger.record(Entry(completion.assignment, measures))

    def _judged_one(self, task: asyncio.Task[None]) -> None:
        self._judged.discard(task)
        self._less.set()

    @asynccontextmanager
    async def _place(self, choices: int) -> AsyncIterator[None]:
        """Hold a place for each choice, for as long as a request may take.

        Raises 503 rather than queue without bound, and 504 when the time is up.
        """
        self.admit(choices)
        self.running += choices
        place = asyncio.timeout(self.settings.request_timeout)
        self._places.add(place)
        try:
            async with place:
                yield
        except TimeoutError as error:
            if self._cut:
                raise self._leaving("was shut down before the answer was there") from error
            raise ApiError(
                504,
                "deadline_exceeded",
                f"the request took longer than {self.settings.request_timeout:g} seconds "
                f"(--request-timeout): ask for fewer tokens",
                headers=NO_RETRY,
            ) from error
        finally:
            self._places.discard(place)
            self.running -= choices
            self._less.set()

    def admit(self, choices: int) -> None:
        """Raise 503 where there is no place, or no server any more."""
        if self.dead:
            raise EngineDeadError("the engine died; this server is about to exit")
        if self.draining:
            raise self._leaving("is shutting down")
        if choices > self.settings.max_running:
            raise invalid_request(
                f"n is {choices}, but this server generates at most "
                f"{self.settings.max_running} choices at once (--max-running): lower n",
                "n",
            )
        if self.running + choices > self.settings.max_running:
            raise ApiError(
                503,
                "overloaded",
                f"{self.running} choices are being generated and at most "
                f"{self.settings.max_running} may be (--max-running): try again in a moment",
                headers={"retry-after": "1"},
            )

    def _leaving(self, why: str) -> ApiError:
        return ApiError(
            503,
            "draining",
            f"this server {why}: send the request to another one",
            headers={"retry-after": "1"},
        )

    async def drain(self, hurry: asyncio.Event) -> None:
        """Refuse what is new, and return when all that runs has ended and is accounted for.

        What has not ended by itself after the drain timeout, or once `hurry` is set, ends with an
        error.
        """
        self.draining = True
        ended, hurried = asyncio.create_task(self._ended()), asyncio.create_task(hurry.wait())
        await asyncio.wait(
            (ended, hurried),
            timeout=self.settings.drain_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurried.cancel()
        if not ended.done():
            logger.warning(
                "%d choices did not end in time (--drain-timeout): they are cut, and the answers "
                "of %d requests go without the verifier's score",
                self.running,
                len(self._judged),
            )
            self._cut = True
            for place in self._places:
                if not place.expired():
                    place.reschedule(0)
            for task in self._judged:
                task.cancel()
            await ended

    async def _ended(self) -> None:
        while self.running or self._judged:
            self._less.clear()
            await self._less.wait()

    async def watch_engine(self) -> None:
        """Return once the engine is dead; until then ask it every second."""
        while True:
            try:
                await self.engine.check_health()
            except EngineDeadError as error:
                logger.critical("%s", error)
                self.dead = True
                return
            await asyncio.sleep(HEALTH_CHECK_SECONDS)
