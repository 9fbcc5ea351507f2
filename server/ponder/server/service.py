"""State that the routes share: one model on one engine, its gate and its observers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import TypeVar

from ponder.engine.protocol import Demand, Engine, EngineDeadError
from ponder.experiment.holdout import ARMS
from ponder.experiment.ledger import Ledger
from ponder.experiment.store import FEEDBACK_DAYS, StateError
from ponder.protocol.dialect import Reader, StreamWriter, WholeWriter
from ponder.protocol.errors import ApiError, quoted, to_api_error
from ponder.protocol.response import Capabilities
from ponder.protocol.savings import Feedback, SavingsReport
from ponder.server.completion import Completion
from ponder.server.gate import Gate, Place
from ponder.server.lending import Lending, configured_pools
from ponder.server.model import ServedModel
from ponder.server.observers.charges import Charges
from ponder.server.observers.judging import Judging
from ponder.server.observers.log import Notes
from ponder.server.observers.metrics import Metrics
from ponder.server.observers.protocol import Observer
from ponder.server.observers.verifier import Verifier
from ponder.server.planning import Planner, in_words_of
from ponder.server.replies import OwnReplies, Replies
from ponder.server.savings import SavingsCollector, report
from ponder.server.settings import Settings
from ponder.server.shared.link import Link
from ponder.server.shedding import load_of
from ponder.server.watch import EngineWatch
from ponder.thought.thought import Event

T = TypeVar("T")

logger = logging.getLogger(__name__)
STATE_SECONDS = 1.0  # the longest that a scrape waits for the state


class Service:
    """State of one server process: runs planned completions while its observers watch.

    `observers` are added to those of every server, which count, charge and log. A `verifier`
    scores every answer, and the answers that a strategy chooses from. Over `link`, the server
    shares pools and running replies with others.
    """

    def __init__(
        self,
        settings: Settings,
        model: ServedModel,
        engine: Engine,
        ledger: Ledger,
        observers: Sequence[Observer] = (),
        *,
        verifier: Verifier | None = None,
        link: Link | None = None,
    ) -> None:
        self.settings = settings
        self.model = model
        self.engine = engine
        self.ledger = ledger
        self.gate = Gate(settings.max_running, settings.request_timeout)
        self.replies: Replies = OwnReplies()
        if link is not None:
            from ponder.server.shared.replies import SharedReplies

            self.replies = SharedReplies(link)
        self.watch = EngineWatch(engine, settings.stall_timeout)
        self._judging = Judging(verifier, ledger) if verifier else None
        judge = self._judging.score if self._judging else None
        self.planner = Planner(settings, model, engine, self._load, judge)
        shedding = self.planner.shedding
        pools = configured_pools(settings, link)
        self._lending = Lending(pools, refuses=settings.on_exhausted == "error") if pools else None
        seeing = [*observers, *filter(None, (self._judging, self._lending))]
        self.metrics = Metrics(
            model.name,
            ARMS if settings.holdout else ARMS[:1],
            running=lambda: self.gate.running,
            reading=lambda: self.gate.reading,
            silence=engine.silence,
            savings=SavingsCollector(self.ledger, settings.holdout),
            collectors=[
                *(collector for one in seeing for collector in one.collectors),
                *(shedding.collectors if shedding else ()),
                *(link.collectors if link else ()),
            ],
        )
        self._observers = (self.metrics, Charges(ledger), Notes(), *seeing)
        # Reading a long body holds the interpreter, and several at once would hold up the loop for
        # as long as all of them take, and fill the memory: only one is read at a time.
        self.turn = asyncio.Lock()
        self._planners = ThreadPoolExecutor(1, "plan")

    @property
    def running(self) -> int:
        """Choices being generated."""
        return self.gate.running

    @property
    def draining(self) -> bool:
        return self.gate.draining

    @property
    def unready(self) -> str:
        """Why the server takes no requests; empty where it does."""
        if self.watch.dead:
            return "engine dead"
        if self.draining:
            return "draining"
        if self.watch.away:
            return "engine away"
        return "engine stalled" if self.watch.stalled else ""

    @property
    def capabilities(self) -> Capabilities:
        deadline_ms = self.settings.default_deadline_ms
        return self.model.capabilities(
            *(self.planner.limits, self.engine.facts, deadline_ms),
            verifier=self._judging is not None,
        )

    def enter(self) -> AbstractContextManager[Place]:
        """Hold a place for a request that is about to be read. Raises 503 where there is none."""
        if self.watch.dead:
            raise EngineDeadError("the engine died")
        return self.gate.enter()

    async def beside(self, work: Callable[[], T]) -> T:
        """Do the work of a long body in the planners' thread, while other requests go on.

        Raises a refusal without its traceback, whose frames hold the whole prompt.
        """
        loop = asyncio.get_running_loop()
        doing = loop.run_in_executor(self._planners, _done_or_refused, work)
        del work
        done = await doing
        if isinstance(done, ApiError):
            raise done
        return done

    def _load(self) -> float:
        """How full the server and its engine are; see `load_of`."""
        gate, tell = self.gate, self.engine.facts.demand
        return load_of((gate.running + gate.reading) / gate.most, tell() if tell else Demand())

    async def lend(self, reader: Reader, completion: Completion, place: Place) -> None:
        """Borrow the request's thinking tokens from the tenant's pools; shrink its budgets to them.

        The pools settle when the request leaves its place. Raises 429 (see `Lending`).
        """
        lending, request = self._lending, completion.request
        if lending is None:
            return
        budgets = completion.budgets
        with in_words_of(reader, request):
            loan = await lending.lend(completion.tenant, request.conversation, budgets)
        place.on_leave = lambda: lending.settle(loan, completion.thinking_tokens)
        completion.headers.update(loan.headers)
        if loan.each < max(budgets):

            def shrink() -> None:
                with in_words_of(reader, request):
                    completion.shrink(loan.each)

            await self.beside(shrink)

    async def whole(self, completion: Completion, place: Place, writer: WholeWriter) -> None:
        """Run a completion; `writer` gathers the whole reply."""
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
        """All metrics; the savings are the last known ones where the state cannot be read."""
        try:
            async with asyncio.timeout(STATE_SECONDS):
                await self.ledger.refresh()
        except StateError as error:
            logger.error("%s", error)
        except TimeoutError:
            logger.error("the state was not read within %g seconds", STATE_SECONDS)
        return self.metrics.render()

    async def savings(self) -> SavingsReport:
        """What the policy saves, from the state. Raises `StateError`."""
        sheds = self.planner.shedding is not None
        return await report(self.ledger, self.settings.holdout, sheds=sheds)

    async def rate(self, response: str, score: float) -> Feedback:
        """Record a client's score of a response. Raises 404, and `StateError`."""
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
        self, completion: Completion, place: Place, emit: Callable[[int, Event], None]
    ) -> None:
        """Run a completion while observers watch; tell them how it ended, in any case."""
        watches = [observer.began(completion) for observer in self._observers]
        hearing = [watch.heard for watch in watches if watch.heard is not None]

        def emit_and_tell(index: int, event: Event) -> None:
            for heard in hearing:
                heard(index, event)
            emit(index, event)

        try:
            with self.replies.writing(completion):
                async with place.time():
                    await completion.run(emit_and_tell if hearing else emit)
        except BaseException as error:
            for watch in watches:
                watch.ended(error)
            raise
        else:
            for watch in watches:
                watch.ended(None)
        finally:
            place.leave()  # before a slow client has read everything

    async def drain(self, hurry: asyncio.Event) -> None:
        """Refuse new requests; return when all running ones have ended and are accounted for.

        After the drain timeout, or once `hurry` is set, the rest end with an error.
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
            undone = [said for observer in self._observers if (said := observer.cut())]
            logger.warning(
                "%s: %s",
                "another signal came"
                if hurry.is_set()
                else f"{self.settings.drain_timeout} s are over (--drain-timeout)",
                " and ".join([f"{self.running} running choices are cut", *undone]),
            )
            self.gate.shut()
            await ended

    async def _ended(self) -> None:
        await self.gate.emptied()
        for observer in self._observers:
            await observer.settled()


def _done_or_refused(work: Callable[[], T]) -> T | ApiError:
    try:
        return work()
    except Exception as error:
        refusal = to_api_error(error)
        if refusal is None:
            raise
    refusal.__context__ = refusal.__cause__ = None
    return refusal.with_traceback(None)
