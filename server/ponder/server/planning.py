"""Decides before a request runs: its arm, its limits, when its answer is due."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType

from ponder.engine.protocol import Engine
from ponder.errors import PonderError
from ponder.experiment.holdout import Assignment, Holdout
from ponder.protocol.chat import ChatRequest
from ponder.protocol.deadline import HEADER as DEADLINE_HEADER
from ponder.protocol.deadline import read_deadline
from ponder.protocol.dialect import Reader
from ponder.protocol.errors import ApiError, to_api_error
from ponder.server.completion import TRACE_HEADERS, Completion, Judge
from ponder.server.keys import EVERYBODY
from ponder.server.model import ServedModel
from ponder.server.replies import CLIENT_ID
from ponder.server.savings import holdout, load_holdout
from ponder.server.settings import Settings
from ponder.server.shedding import Shedding
from ponder.thought.budget import AUTO, UNLIMITED, Limits
from ponder.thought.pace import Pace

_BOUNDLESS = 1 << 40  # tokens: more than a body can hold


class Planner:
    """Plans the requests of one model on one engine.

    `load` says how full server and engine are; `judge` is the operator's verifier, if there is one.
    """

    def __init__(
        self,
        settings: Settings,
        model: ServedModel,
        engine: Engine,
        load: Callable[[], float],
        judge: Judge | None = None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._unsaving = replace(model, hints=False, loop_exit=False, auto=False)
        self._engine = engine
        self._judge = judge
        self.limits = Limits(
            max_model_len=engine.facts.max_model_len,
            default=AUTO if settings.default_budget == "auto" else settings.default_budget,
            ceiling=settings.budget_ceiling,
        )
        self.pace = Pace()
        self.holdout = holdout(settings)
        self.load_holdout = load_holdout(self.holdout)
        self._shadowing = Holdout(settings.early_exit_shadow, self.holdout.key)
        self.shedding = None
        if settings.shed_load != "off":
            self.shedding = Shedding(load, asked=settings.shed_load == "all")

    def plan(
        self,
        reader: Reader,
        request: ChatRequest,
        headers: Mapping[str, str],
        max_model_len: int | None = None,
        *,
        tenant: str = EVERYBODY,
        arrived_at: float | None = None,
    ) -> Completion:
        """Plan a request of a `tenant`. Raises every error that the request is at fault for.

        The headers may give its name, its trace and its deadline. A deadline counts from
        `arrived_at` and ends no later than --request-timeout. A held-out conversation keeps the
        ceilings, the deadlines and what the client asks for, and goes without the operator's
        saving policy; `auto` is no limit there. A request that is only counted may have another
        context than the model's (`max_model_len`), and has no deadline.
        """
        if request.model is not None:
            self._model.check_served(request.model)
        said = request.conversation
        name = said or f"request:{secrets.token_hex(16)}"
        assignment = self.holdout.assign(name)
        if said is None:
            assignment = replace(assignment, conversation=None)
        model, limits = self._model, self.limits
        if max_model_len is not None:
            limits = replace(limits, max_model_len=max_model_len)
        if assignment.arm == "holdout" and request.ponder.holdout != "never":
            model, limits = self._unsaving, replace(limits, default=UNLIMITED)
        limits, under_load = self._shed(limits, request, name)
        trace = {name: headers[name] for name in TRACE_HEADERS if name in headers}
        with in_words_of(reader, request, headers):
            return Completion(
                request,
                model,
                self._engine,
                limits,
                assignment,
                tenant=tenant,
                client_id=headers.get(CLIENT_ID) or None,
                under_load=under_load,
                shadowed=self._shadowed(request, name),
                trace=trace,
                pace=self.pace,
                due_at=self._due_at(request, headers, arrived_at),
                judge=self._judge,
            )

    def count(self, reader: Reader, request: ChatRequest, headers: Mapping[str, str]) -> int:
        """The tokens of a request's prompt, even if it is too long for the model."""
        try:
            return self.plan(reader, request, headers).prompt_tokens
        except ApiError as error:
            if error.code != "context_length_exceeded":
                raise
        return self.plan(reader, request, headers, _BOUNDLESS).prompt_tokens

    def _shed(
        self, limits: Limits, request: ChatRequest, conversation: str
    ) -> tuple[Limits, Assignment | None]:
        """The limits under the present load, and the request's arm while load is shed."""
        if self.shedding is None or not (level := self.shedding.look()).step:
            return limits, None
        drawn = self.load_holdout.assign(conversation)
        if drawn.arm == "shed" or request.ponder.holdout == "never":
            limits = self.shedding.shed(limits, level)
        if request.conversation is None:
            drawn = replace(drawn, conversation=None)
        return limits, drawn if self.load_holdout.share else None

    def _due_at(
        self, request: ChatRequest, headers: Mapping[str, str], arrived_at: float | None
    ) -> float | None:
        """When the answer is due; None without a deadline, or for a request that only counts."""
        asked = read_deadline(headers, request.ponder.deadline_ms)
        deadline_ms = self._settings.default_deadline_ms if asked is None else asked
        if deadline_ms is None or arrived_at is None:
            return None
        return arrived_at + min(deadline_ms / 1000, self._settings.request_timeout)

    def _shadowed(self, request: ChatRequest, name: str) -> bool:
        """Whether this conversation's early exits only watch: one draw holds for all of it."""
        if request.ponder.early_exit is None or request.ponder.holdout == "never":
            return False
        return self._shadowing.assign(f"early exit:{name}").arm == "holdout"


@contextmanager
def in_words_of(
    reader: Reader, request: ChatRequest, headers: Mapping[str, str] = MappingProxyType({})
) -> Iterator[None]:
    """Have errors inside name the request's fields as its client did."""
    try:
        yield
    except PonderError as error:
        refused = to_api_error(error)
        if refused is None:
            raise
        names = {**reader.fields, "budget": request.ask.spelled, **request.spelled}
        if request.ponder.deadline_ms is None and DEADLINE_HEADER in headers:
            names["deadline_ms"] = DEADLINE_HEADER
        raise refused.spelled(names) from error
