"""The completion of a request: n choices on each of its prompts."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from ponder.checkpoint.chat import Prompt
from ponder.engine.protocol import Engine, Origin, Sampling, TokenLogprob
from ponder.experiment.holdout import Assignment
from ponder.protocol.chat import ChatRequest, Raw, Turns
from ponder.protocol.dialect import Spent
from ponder.protocol.errors import NO_RETRY, ApiError, error_code, invalid_request
from ponder.protocol.logprobs import TokenTexts
from ponder.protocol.response import PonderReport, ShadowReport, StrategyReport
from ponder.protocol.sampling import SEED_MASK
from ponder.server.answers import answer_rules
from ponder.server.choice import Choice, Scored, Single, live_all, unheard
from ponder.server.early import EarlyWatch, check_early_exit
from ponder.server.keys import EVERYBODY
from ponder.server.logprobs import check_logprobs
from ponder.server.model import ServedModel
from ponder.server.strategies.asking import check_strategy
from ponder.server.strategies.group import Group
from ponder.server.strategies.place import Home
from ponder.thought.budget import Limits, Plan
from ponder.thought.drive import Driver
from ponder.thought.exits.deadline import Due
from ponder.thought.exits.exit import Exit
from ponder.thought.exits.finish_now import FinishNow
from ponder.thought.outcome import Outcome
from ponder.thought.pace import Pace
from ponder.thought.thought import Event, Thought

# A client that waits for the whole answer does not need every token as it comes: gathering tokens
# halves the work between engine and socket. Log probabilities cost more than that, and the choices
# of a request often have theirs at the same time.
_WHOLE_CHUNK_TOKENS = 32
_LOGPROBS_CHUNK_TOKENS = 4
_DUE_CHUNK_TOKENS = 8  # tokens not yet reported when a deadline closes a thought are lost

TRACE_HEADERS = ("traceparent", "tracestate")
"""Headers of the W3C Trace Context recommendation."""

Judge = Callable[[Sequence[Mapping[str, str]], str], Awaitable[float | None]]
"""(conversation, answer) → the score of the operator's verifier; None without a score."""


class Completion:
    """A validated request, planned and ready to run on an engine.

    `tenant` is who sent it (`ponder.server.keys`), and `client_id` the client's name for it.
    `assignments` are the arms that it is charged to: its conversation's and, `under_load`, its arm
    of the load experiment. The constructor raises every error that the request is at fault for.
    """

    def __init__(
        self,
        request: ChatRequest,
        model: ServedModel,
        engine: Engine,
        limits: Limits,
        assignment: Assignment,
        *,
        tenant: str = EVERYBODY,
        client_id: str | None = None,
        under_load: Assignment | None = None,
        trace: Mapping[str, str] = MappingProxyType({}),
        shadowed: bool = False,
        pace: Pace | None = None,
        due_at: float | None = None,
        judge: Judge | None = None,
    ) -> None:
        self.created = int(time.time())
        self.started_at = time.perf_counter()
        self.request = request
        self.model = model
        self.assignment = assignment
        self.assignments = [assignment, *([under_load] if under_load else [])]
        self.tenant = tenant
        self.client_id = client_id
        check_early_exit(request, engine.facts)
        specials = model.tokenizer.special_tokens if request.tools is not None else {}
        self._rules = answer_rules(request, engine.facts, specials)
        self._pace = Pace() if pace is None else pace
        self._due = None
        if due_at is not None:
            least = request.ask.min_answer_tokens
            self._due = Due(due_at, self.started_at, self._pace, least)
        self._plan(limits)
        check_logprobs(request, self.prompts, engine.facts)
        self._check_reachable()
        self._engine = engine
        whole = _WHOLE_CHUNK_TOKENS if request.logprobs is None else _LOGPROBS_CHUNK_TOKENS
        if self._due is not None:
            whole = min(whole, _DUE_CHUNK_TOKENS)
        self._sampling = request.sampling.over(
            model.tokenizer.sampling_defaults,
            logprobs=request.logprobs,
            chunk_tokens=1 if request.stream and request.ponder.strategy is None else whole,
        )
        check_strategy(request, self._sampling, verifier=judge is not None)
        if request.echo and request.logprobs is not None:
            self._sampling = replace(self._sampling, prompt_logprobs=request.logprobs)
        self.trace = trace  # the client's trace headers
        self.headers = {"x-request-id": self.id}  # the reply's; observers may add
        self._shadowed = shadowed  # its early exits only watch
        self._judge = judge
        self._watches: dict[int, EarlyWatch] = {}
        self._choices: list[Choice] = []
        self._running = False
        self.outcomes: list[Outcome] = []

    def _plan(self, limits: Limits) -> None:
        """Decide the prompts, and the plans of their thoughts."""
        self._limits = limits
        self.prompts = self.model.prompts(self.request, limits, self._rules, self._due)
        self.prompt_tokens = sum(len(prompt.token_ids) for prompt in self.prompts)

    @property
    def budgets(self) -> list[int]:
        """The budget of every choice, in tokens; the thoughts of one answer share it."""
        return [prompt.plan.budget for prompt in self.prompts for _ in range(self.request.n)]

    @property
    def thoughts(self) -> int:
        """How many thoughts each prompt has at once."""
        strategy = self.request.ponder.strategy
        return self.request.n if strategy is None else strategy.n

    def shrink(self, pool: int) -> None:
        """Plan anew with at most `pool` tokens for each thought, as the pools lend.

        To be called before `run`. Raises the errors of the constructor.
        """
        self._plan(replace(self._limits, pool=pool))

    async def run(self, emit: Callable[[int, Event], None]) -> None:
        """Run every choice to its end; `outcomes` holds what happened.

        If the engine fails a choice, the request fails and the other choices are aborted. A choice
        without an answer says so in its outcome; if no choice has one, the first's error is raised.
        """
        make = self._choice if self.request.ponder.strategy is None else self._group
        self._choices = [make(index, partial(emit, index)) for index in range(self.request.choices)]
        self._running = True
        try:
            await live_all(self._choices)
        finally:
            self._running = False
        self.outcomes = [choice.outcome for choice in self._choices]

    def finish(self, choice: int | None = None) -> Sequence[int]:
        """Close the thought of one choice, or of all that think; returns their indices.

        A choice whose thought was finished before counts again. Raises `ApiError`: 400 for a choice
        that the reply does not have, 409 where none thinks.
        """
        most = self.request.choices - 1
        if choice is not None and choice > most:
            has = f"choices 0 to {most}" if most else "choice 0 alone"
            raise invalid_request(
                f"choice {choice} is none of this reply's: it has {has}", "choice"
            )
        closed = [
            index
            for index, running in enumerate(self._choices)
            if self._running and choice in (None, index) and running.finish()
        ]
        if not closed:
            raise ApiError(
                409,
                "not_thinking",
                "there is no thought to finish: the answer is being written; wait for it",
                headers=NO_RETRY,
            )
        return closed

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def model_name(self) -> str:
        return self.model.name

    @property
    def token_texts(self) -> TokenTexts:
        return self.model.token_texts

    def prompt(self, index: int) -> Prompt:
        """The prompt of a choice."""
        return self.prompts[index // self.request.n]

    def turns(self, index: int) -> list[dict[str, str]]:
        """The conversation that a choice answers: role and content of each turn.

        A raw prompt is a turn of the user.
        """
        asked = self.request.prompts[index // self.request.n]
        if isinstance(asked, Raw):
            said = asked.content
            text = said if isinstance(said, str) else self.model.tokenizer.decode(said)
            return [{"role": "user", "content": text}]
        return [{"role": turn["role"], "content": turn["content"]} for turn in asked.turns]

    @property
    def operation(self) -> Literal["chat", "text_completion"]:
        """The operation's name in OpenTelemetry's conventions."""
        return "chat" if isinstance(self.request.prompts[0], Turns) else "text_completion"

    @property
    def longest_plan(self) -> Plan:
        """The plan of the prompt whose thoughts may be the longest."""
        return max((prompt.plan for prompt in self.prompts), key=lambda plan: plan.budget)

    @property
    def spent_tokens(self) -> int:
        """Completion tokens until now, also of choices that failed or were left."""
        return sum(choice.spent_tokens for choice in self._choices)

    @property
    def thinking_tokens(self) -> int:
        """Tokens of thought until now, also of choices that failed or were left."""
        return sum(choice.thinking_tokens for choice in self._choices)

    def report(self, index: int) -> PonderReport:
        prompt, outcome = self.prompt(index), self.outcomes[index]
        plan = prompt.plan
        return PonderReport(
            budget_requested=plan.requested,
            budget_effective=plan.budget,
            budget_source=plan.source,
            hint_budget=prompt.hint.budget if prompt.hint else None,
            thinking_tokens=outcome.thinking_tokens,
            forced_tokens=outcome.forced_tokens,
            answer_tokens=outcome.answer_tokens,
            retry_tokens=outcome.retry_tokens,
            probe_tokens=outcome.probe_tokens,
            end_cause=outcome.end_cause,
            answer_forced=outcome.answer_forced,
            deadline_met=self.in_time(outcome),
            arm=self.assignment.arm,
            error=error_code(outcome.failure) if outcome.failure else None,
            shadow=self.shadow(index),
            strategy=self.strategy(index),
        )

    def in_time(self, outcome: Outcome) -> bool | None:
        """Whether an answer came before it was due; None where there was no deadline."""
        if self._due is None:
            return None
        return outcome.ended_at is not None and outcome.ended_at <= self._due.at

    def shadow(self, index: int) -> ShadowReport | None:
        """What a choice's early exit would have done, where it only watched."""
        watch = self._watches.get(index)
        return watch.report() if watch else None

    def strategy(self, index: int) -> StrategyReport | None:
        """How several thoughts gave a choice's answer; None for a single thought."""
        choice = self._choices[index]
        return choice.report() if isinstance(choice, Group) else None

    def thinking_ids(self, index: int) -> Sequence[int]:
        """The tokens of a choice's thought; of several, those of the one whose answer is given."""
        return self._choices[index].thinking_ids

    def thought(self, index: int) -> str:
        """The text of a choice's thought."""
        return self.model.tokenizer.decode(self.thinking_ids(index))

    def echo(self, index: int) -> str:
        """The echoed prompt of a choice; empty where the request wants no echo."""
        if not self.request.echo:
            return ""
        return self.model.tokenizer.decode(self.prompt(index).token_ids)

    def scored(self, index: int) -> tuple[Sequence[int], Sequence[TokenLogprob | None]]:
        """The tokens of a choice's prompt, with their log probabilities."""
        return self.prompt(index).token_ids, self._choices[index].outcome.prompt_logprobs

    def spent(self) -> Spent:
        """What a finished completion cost."""
        outcomes = self.outcomes
        return Spent(
            prompt=self.prompt_tokens,
            completion=sum(outcome.completion_tokens for outcome in outcomes),
            thinking=sum(outcome.thinking_tokens for outcome in outcomes),
            cached=sum(
                min(outcome.cached_tokens for outcome in outcomes[first : first + self.request.n])
                for first in range(0, len(outcomes), self.request.n)
            ),
        )

    def _check_reachable(self) -> None:
        """Raise 408 where no answer can come in time, not even one without a thought."""
        if self._due is None:
            return
        exits = [self._due.exit(prompt.plan) for prompt in self.prompts]
        longest = max(exits, key=lambda exit: exit.tokens)
        needed, left = longest.needed(self._due.now), self._due.at - self._due.now
        if needed > left:
            over = "`deadline_ms` was over before the request was read: raise it"
            raise ApiError(
                408,
                "deadline_unreachable",
                over
                if left <= 0
                else f"an answer of {longest.tokens} tokens takes about {1000 * needed:.0f} ms at "
                f"the moment, and {1000 * left:.0f} ms are left of `deadline_ms`: raise it, or say "
                f"with `min_answer_tokens` that the answer is shorter",
                field="deadline_ms",
                headers=NO_RETRY,
            )

    def _seeded(self, number: int) -> Sampling:
        """The sampling of a prompt's thought: seeds count per prompt, whatever is beside it."""
        sampling = self._sampling
        if sampling.seed is None:
            return sampling
        return replace(sampling, seed=(sampling.seed + number) & SEED_MASK)

    def _choice(self, index: int, emit: Callable[[Event], None]) -> Choice:
        sampling = self._seeded(index % self.request.n)
        request, checkpoint = self.request, self.model.checkpoint
        prompt, button, hear = self.prompt(index), FinishNow(), emit
        exits = [button, *self.model.exits(request.ponder, prompt.plan, self._due)]
        if request.ponder.early_exit is not None:
            watch = EarlyWatch(request.ponder, checkpoint, shadowed=self._shadowed)
            self._watches[index] = watch
            exits.append(watch.exit)
            hear = watch.hearing(emit)
        thought = checkpoint.thought(prompt, sampling, self._rules, exits=exits)
        name = f"{self.id}-{index}"
        hear = unheard if request.scores_only else hear
        driver = Driver(thought, self._engine, name, hear, self._pace, origin=self._origin)
        return (Scored if request.scores_only else Single)(thought, driver, button)

    @property
    def _origin(self) -> Origin:
        """The request as the engine knows it; an observer's span is the newest of its trace."""
        trace = {name: value for name, value in self.headers.items() if name in TRACE_HEADERS}
        return Origin(
            tenant=self.tenant,
            trace={**self.trace, **trace},
            due_at=None if self._due is None else self._due.at,
        )

    def _group(self, index: int, emit: Callable[[Event], None]) -> Choice:
        asked, prompt, model = self.request.ponder.strategy, self.prompt(index), self.model
        assert asked is not None

        def make(number: int, exits: Sequence[Exit]) -> Thought:
            own = model.exits(self.request.ponder, prompt.plan, self._due)  # they have a state
            sampling = self._seeded(number)
            return model.checkpoint.thought(prompt, sampling, self._rules, exits=[*exits, *own])

        return Group(
            asked,
            prompt,
            Home(self._engine, f"{self.id}-{index}", self._pace, self._origin),
            make,
            emit,
            vocabulary=model.tokenizer,
            score=self._judge and partial(self._judge, self.turns(index)),
            seed=self._sampling.seed,
        )
