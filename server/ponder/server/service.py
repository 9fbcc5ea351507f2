"""What the routes share: one model on one engine, who may use it and how much at once."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TypeVar

from ponder.engine.protocol import Engine, EngineDeadError
from ponder.experiment.holdout import ARMS
from ponder.experiment.ledger import Ledger
from ponder.experiment.store import FEEDBACK_DAYS, Entry, StateError
from ponder.protocol.dialect import Dialect, StreamWriter, WholeWriter
from ponder.protocol.errors import ApiError, quoted, to_api_error
from ponder.protocol.savings import Feedback, SavingsReport
from ponder.server import logs
from ponder.server.completion import Completion
from ponder.server.gate import Gate, Place
from ponder.server.metrics import Metrics
from ponder.server.model import ServedModel
from ponder.server.savings import SavingsCollector, charge, holdout, report
from ponder.server.settings import Settings
from ponder.server.traces import PROPAGATED, RequestSpan, Traces
from ponder.server.verifier import Verifier, VerifierFailure
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import UNLIMITED, Limits
from ponder.thought.errors import AnswerDidNotFit, NoAnswerProduced
from ponder.thought.outcome import ThoughtDelta

T = TypeVar("T")

logger = logging.getLogger(__name__)
HEALTH_CHECK_SECONDS = 1.0
STATE_SECONDS = 1.0  # that a scrape waits for the state file


class Service:
    """State of one server process. `dead` is one-way."""

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
            running=lambda: self.gate.running,
            reading=lambda: self.gate.reading,
            silence=engine.silence,
            savings=SavingsCollector(self.ledger, settings.holdout),
        )
        self._verifier = verifier
        self._traces = traces
        self._judged: set[asyncio.Task[None]] = set()
        self.gate = Gate(settings.max_running, settings.request_timeout)
        # One at a time bounds what long prompts take of the memory and of the loop's time: reading
        # them holds the interpreter, and the loop would wait for each of several.
        self._planners = ThreadPoolExecutor(1, "plan")
        self.dead = False

    @property
    def running(self) -> int:
        """Choices being generated."""
        return self.gate.running

    @property
    def draining(self) -> bool:
        return self.gate.draining

    @property
    def ready(self) -> bool:
        return not (self.draining or self.dead or self.stalled)

    @property
    def stalled(self) -> bool:
        """Choices run, and the engine has given no token for too long. It may speak again."""
        return self.engine.silence() > self.settings.stall_timeout

    def authorise(self, header: str | None) -> None:
        """Raise 401 unless the header carries one of the keys, compared in constant time."""
        keys = [key.get_secret_value() for key in self.settings.api_key]
        if not keys:
            return
        scheme, _, rest = (header or "").partition(" ")
        given = rest.strip()
        matches = [hmac.compare_digest(given.encode(), key.encode()) for key in keys]
        if scheme.lower() == "bearer" and any(matches):
            return
        if scheme.lower() == "bearer" and given:
            message = "this API key is none of this server's: check it, or ask its operator for one"
        else:
            message = (
                "this server wants an API key: send it as `Authorization: Bearer KEY` or "
                "`x-api-key: KEY`"
            )
        challenge = {"www-authenticate": "Bearer"}
        raise ApiError(401, "invalid_api_key", message, headers=challenge)

    def check_served(self, model: str) -> None:
        """Raise 404 for a model of another name."""
        if model != self.model.name:
            raise ApiError(
                404,
                "model_not_found",
                f"the model {quoted(model)} is not served here: ask for {self.model.name!r}",
                field="model",
            )

    def enter(self) -> AbstractContextManager[Place]:
        """A place for a request that is about to be read. Raises 503."""
        if self.dead:
            raise EngineDeadError("the engine died")
        return self.gate.enter()

    async def beside(self, work: Callable[[], T]) -> T:
        """Do what a long body asks for in the planners' thread: the others go on meanwhile.

        A refusal comes without its traceback: the frames in it hold the whole prompt.
        """
        loop = asyncio.get_running_loop()
        doing = loop.run_in_executor(self._planners, _done_or_refused, work)
        del work
        done = await doing
        if isinstance(done, ApiError):
            raise done
        return done

    def complete(self, dialect: Dialect, body: bytearray, headers: Mapping[str, str]) -> Completion:
        """Read and plan a request. Raises everything the request itself is at fault for.

        The headers may name its conversation and its trace. A held-out conversation keeps the
        ceilings and what the client asks for, and goes without what the operator does to save.
        """
        request = dialect.read(body, headers)
        if request.model is not None:
            self.check_served(request.model)
        said = request.conversation
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

    async def whole(self, completion: Completion, place: Place, writer: WholeWriter) -> None:
        """Run a completion; `writer` gathers all that it says."""
        await self._run(completion, place, writer.event)

    async def streamed(
        self,
        completion: Completion,
        place: Place,
        writer: StreamWriter,
        put: Callable[[bytes], None],
    ) -> None:
        """Run a completion and put its events as they come."""
        await self._run(completion, place, lambda index, event: put(writer.event(index, event)))
        put(writer.closing())

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
                f"no response {quoted(response)} is known here: send the `id` of a response that "
                f"is complete and at most {FEEDBACK_DAYS:g} days old",
                field="id",
            )
        return Feedback(id=response, score=score)

    async def _run(
        self,
        completion: Completion,
        place: Place,
        emit: Callable[[int, ThoughtDelta | AnswerDelta], None],
    ) -> None:
        """Run a completion and charge it with what it spent, however it ends.

        Those that fail or are left count too: an arm that loses more of them must not look cheap.
        """
        answers: list[list[str]] = [[] for _ in range(completion.request.choices)]

        def heard(index: int, delta: ThoughtDelta | AnswerDelta) -> None:
            if isinstance(delta, AnswerDelta):
                answers[index].append(delta.text)
            emit(index, delta)

        try:
            async with place.time():
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
            logs.note(code="client_disconnected")
            raise
        finally:
            place.leave()  # however slowly the client takes what was said
        if self._verifier is not None:
            texts = ["".join(answer) for answer in answers]
            task = asyncio.create_task(self._judge(self._verifier, completion, texts))
            self._judged.add(task)
            task.add_done_callback(self._judged.discard)

    def _account(
        self, completion: Completion, span: RequestSpan | None, error: BaseException | None
    ) -> None:
        empty = isinstance(error, NoAnswerProduced)
        if empty and not isinstance(error, AnswerDidNotFit):
            self.metrics.empty(completion.assignment.arm)
        self.ledger.record(charge(completion, empty))
        if span is not None:
            span.end(error)
        outcomes = completion.outcomes
        first = [outcome.first_token_at for outcome in outcomes if outcome.first_token_at]
        logs.note(
            arm=completion.assignment.arm,
            budget=completion.longest_plan.budget,
            end_causes=[outcome.end_cause for outcome in outcomes],
            prompt_tokens=completion.prompt_tokens,
            thinking_tokens=sum(outcome.thinking_tokens for outcome in outcomes),
            completion_tokens=completion.spent_tokens,
            first_token_seconds=round(min(first) - completion.started_at, 6) if first else None,
            error=error and type(error).__name__,
        )

    async def _judge(self, verifier: Verifier, completion: Completion, answers: list[str]) -> None:
        """Record the scores; one that does not come is counted, and is no low one."""
        scores: list[float] = []

        async def judge(index: int, answer: str) -> None:
            try:
                score = await verifier.score(completion.turns(index), answer)
            except VerifierFailure as failure:
                logger.warning("%s", failure)
                self.metrics.unjudged(failure.reason)
                return
            if score is not None:
                scores.append(score)

        try:
            await asyncio.gather(*map(judge, range(len(answers)), answers))
        finally:
            if scores:
                measures = {"verifier": (float(len(scores)), sum(scores))}
                self.ledger.record(Entry(completion.assignment, measures))

    async def drain(self, hurry: asyncio.Event) -> None:
        """Refuse what is new, and return when all that runs has ended and is accounted for.

        What has not ended by itself after the drain timeout, or once `hurry` is set, ends with an
        error.
        """
        self.gate.draining = True
        ended, hurried = asyncio.create_task(self._ended()), asyncio.create_task(hurry.wait())
        await asyncio.wait(
            (ended, hurried),
            timeout=self.settings.drain_timeout,
            return_when=asyncio.FIRST_COMPLETED,
        )
        hurried.cancel()
        if not ended.done():
            logger.warning(
                "%s: %d running choices are cut, and the answers of %d requests go without "
                "the verifier's score",
                "another signal came"
                if hurry.is_set()
                else f"{self.settings.drain_timeout} s are over (--drain-timeout)",
                self.running,
                len(self._judged),
            )
            self.gate.shut()
            for task in self._judged:
                task.cancel()
            await ended

    async def _ended(self) -> None:
        await self.gate.emptied()
        while self._judged:
            await asyncio.wait(self._judged)

    async def watch_engine(self) -> None:
        """Return once the engine is dead; until then ask it every second."""
        stalled = False
        while True:
            try:
                await self.engine.check_health()
            except EngineDeadError as error:
                logger.critical("%s", error)
                self.dead = True
                return
            if self.stalled != stalled:
                stalled = not stalled
                _tell_stall(stalled, self.engine.silence())
            await asyncio.sleep(HEALTH_CHECK_SECONDS)


def _done_or_refused(work: Callable[[], T]) -> T | ApiError:
    try:
        return work()
    except Exception as error:
        refusal = to_api_error(error)
        if refusal is None:
            raise
    refusal.__context__ = refusal.__cause__ = None
    return refusal.with_traceback(None)


def _tell_stall(stalled: bool, seconds: float) -> None:
    if stalled:
        logger.error(
            "the engine has given no token for %.0f s: /readyz says that it is stalled", seconds
        )
    else:
        logger.warning("the engine gives tokens again: /readyz says that it is ready")
