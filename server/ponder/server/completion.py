"""The completion of a request: n thoughts on each of its prompts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from ponder.checkpoint.chat import Prompt
from ponder.engine.protocol import Engine, TokenLogprob
from ponder.experiment.holdout import Assignment
from ponder.protocol.chat import ChatRequest, Raw, Turns
from ponder.protocol.dialect import Spent
from ponder.protocol.errors import error_code, invalid_request
from ponder.protocol.logprobs import TokenTexts
from ponder.protocol.response import PonderReport, ShadowReport
from ponder.protocol.sampling import SEED_MASK
from ponder.server.answers import answer_rules
from ponder.server.early import EarlyWatch, check_early_exit
from ponder.server.model import ServedModel
from ponder.thought.budget import Limits, Plan
from ponder.thought.drive import drive
from ponder.thought.errors import NoAnswerProduced
from ponder.thought.outcome import Outcome
from ponder.thought.thought import Event, Thought

# Whoever waits for the whole answer does not need every token as it comes: gathering them
# halves the work between engine and socket. With log probabilities the work is theirs, and the
# choices of a request often have theirs at the same time.
_WHOLE_CHUNK_TOKENS = 32
_LOGPROBS_CHUNK_TOKENS = 4
MOST_LOGPROBS = 4_000_000
"""Log probabilities that one reply may hold: some 70 bytes of text each."""


class Completion:
    """A validated request, planned and ready to run on an engine.

    Building it raises every error that the request itself is at fault for.
    """

    def __init__(
        self,
        request: ChatRequest,
        model: ServedModel,
        engine: Engine,
        limits: Limits,
        assignment: Assignment,
        *,
        trace: Mapping[str, str] = MappingProxyType({}),
        shadowed: bool = False,
    ) -> None:
        self.created = int(time.time())
        self.started_at = time.perf_counter()
        self.request = request
        self.model = model
        self.assignment = assignment
        check_early_exit(request, engine.facts)
        specials = model.tokenizer.special_tokens if request.tools is not None else {}
        self._rules = answer_rules(request, engine.facts, specials)
        self.prompts = model.prompts(request, limits, self._rules)
        self.prompt_tokens = sum(len(prompt.token_ids) for prompt in self.prompts)
        self._bound_logprobs()
        self._engine = engine
        whole = _WHOLE_CHUNK_TOKENS if request.logprobs is None else _LOGPROBS_CHUNK_TOKENS
        self._sampling = request.sampling.over(
            model.tokenizer.sampling_defaults,
            logprobs=request.logprobs,
            chunk_tokens=1 if request.stream else whole,
        )
        if request.echo and request.logprobs is not None:
            if not engine.facts.scores_prompts:
                raise invalid_request(
                    "this server's engine scores no prompts: leave echo or `alternatives` out",
                    "echo",
                )
            self._sampling = replace(self._sampling, prompt_logprobs=request.logprobs)
        self.trace = trace  # the client's headers of it
        self.headers = {"x-request-id": self.id}  # of the reply; observers may add
        self._shadowed = shadowed  # its early exits only watch
        self._watches: dict[int, EarlyWatch] = {}
        self._thoughts: list[Thought] = []
        self.outcomes: list[Outcome] = []

    async def run(self, emit: Callable[[int, Event], None]) -> None:
        """Run every choice to its end; `outcomes` holds what happened.

        One that the engine fails fails the request and aborts the others. One without an answer
        says so in its outcome; where none has an answer, the first one's error is raised.
        """
        thoughts = [self._thought(index) for index in range(self.request.choices)]
        self._thoughts = thoughts
        if len(thoughts) == 1:
            self.outcomes = [await self._drive(0, emit)]
            return
        tasks = []
        try:
            async with asyncio.TaskGroup() as group:
                for index in range(len(thoughts)):
                    tasks.append(group.create_task(self._live(index, emit)))
                    await asyncio.sleep(0)  # all at once, they would hold the loop
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        unanswered = [failure for task in tasks if (failure := task.result()) is not None]
        if len(unanswered) == len(thoughts):
            raise unanswered[0]
        self.outcomes = [thought.outcome for thought in thoughts]

    async def _drive(self, index: int, emit: Callable[[int, Event], None]) -> Outcome:
        name = f"{self.id}-{index}"
        tell: Callable[[Event], None] = partial(emit, index)
        if watch := self._watches.get(index):
            tell = watch.hearing(tell)
        return await drive(self._thoughts[index], self._engine, name, tell)

    async def _live(
        self, index: int, emit: Callable[[int, Event], None]
    ) -> NoAnswerProduced | None:
        try:
            await self._drive(index, emit)
        except NoAnswerProduced as failure:
            return failure
        return None

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
        """What a choice goes on from."""
        return self.prompts[index // self.request.n]

    def turns(self, index: int) -> list[dict[str, str]]:
        """The conversation that a choice answers: role and content of each turn.

        A raw prompt is what a user said.
        """
        asked = self.request.prompts[index // self.request.n]
        if isinstance(asked, Raw):
            said = asked.content
            text = said if isinstance(said, str) else self.model.tokenizer.decode(said)
            return [{"role": "user", "content": text}]
        return [{"role": turn["role"], "content": turn["content"]} for turn in asked.turns]

    @property
    def operation(self) -> Literal["chat", "text_completion"]:
        """What OpenTelemetry's conventions call it."""
        return "chat" if isinstance(self.request.prompts[0], Turns) else "text_completion"

    @property
    def longest_plan(self) -> Plan:
        """Of the prompt whose thoughts may be the longest."""
        return max((prompt.plan for prompt in self.prompts), key=lambda plan: plan.budget)

    @property
    def spent_tokens(self) -> int:
        """Completion tokens until now, also of choices that failed or were left."""
        return sum(thought.spent_tokens for thought in self._thoughts)

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
            arm=self.assignment.arm,
            error=error_code(outcome.failure) if outcome.failure else None,
            shadow=self.shadow(index),
        )

    def shadow(self, index: int) -> ShadowReport | None:
        """What a choice's early exit would have done, where it only watched."""
        watch = self._watches.get(index)
        return watch.report() if watch else None

    def thought(self, index: int) -> str:
        """The text of a choice's thought, markers and all."""
        said = map(self.model.tokenizer.token_bytes, self._thoughts[index].thinking)
        return b"".join(said).decode(errors="replace")

    def echo(self, index: int) -> str:
        """The prompt of a choice as its echo has it; empty where none was asked for."""
        if not self.request.echo:
            return ""
        return self.model.tokenizer.decode(self.prompt(index).token_ids)

    def scored(self, index: int) -> tuple[Sequence[int], Sequence[TokenLogprob | None]]:
        """The tokens of a choice's prompt, with their log probabilities."""
        return self.prompt(index).token_ids, self._thoughts[index].outcome.prompt_logprobs

    def spent(self) -> Spent:
        """What a finished completion cost."""
        outcomes = self.outcomes
        return Spent(
            prompt=self.prompt_tokens,
            completion=sum(outcome.completion_tokens for outcome in outcomes),
            thinking=sum(outcome.thinking_tokens for outcome in outcomes),
            cached=sum(
                max(outcome.cached_tokens for outcome in outcomes[first : first + self.request.n])
                for first in range(0, len(outcomes), self.request.n)
            ),
        )

    def _bound_logprobs(self) -> None:
        """Raise 400 where a reply could hold more of them than there is memory for."""
        request = self.request
        if request.logprobs is None:
            return
        each = request.choices * (1 + request.logprobs)
        plans = [prompt.plan for prompt in self.prompts]
        tokens = max(min(plan.allowance, plan.max_answer or plan.allowance) for plan in plans)
        if request.echo:
            tokens += max(len(prompt.token_ids) for prompt in self.prompts)
        if each * tokens > MOST_LOGPROBS:
            raise invalid_request(
                f"{request.choices} choices of up to {tokens} tokens with {request.logprobs} "
                f"alternatives each may have {each * tokens} log probabilities, and a reply holds "
                f"at most {MOST_LOGPROBS}: set `max_completion_tokens` to {MOST_LOGPROBS // each} "
                f"or less, or lower n or `alternatives`",
                "logprobs",
            )

    def _thought(self, index: int) -> Thought:
        """Seeds count a prompt's choices: another prompt beside it changes nothing."""
        sampling = self._sampling
        if sampling.seed is not None:
            seed = (sampling.seed + index % self.request.n) & SEED_MASK
            sampling = replace(sampling, seed=seed)
        request, checkpoint = self.request, self.model.checkpoint
        exits = self.model.exits(request.ponder)
        if request.ponder.early_exit is not None:
            watch = EarlyWatch(request.ponder, self.model.checkpoint, shadowed=self._shadowed)
            self._watches[index] = watch
            exits.append(watch.exit)
        return checkpoint.thought(self.prompt(index), sampling, self._rules, exits=exits)
