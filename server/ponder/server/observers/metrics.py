"""Prometheus metrics about thoughts. vLLM's own count requests to the engine instead.

Labels have bounded values: arms, causes and codes that this code names, never text of a client. A
process serves one model, which `ponder_build_info` names once: a fact about all series of a target
is no label of each (Prometheus, "target labels, not static scraped labels"). A process exports only
its own metrics; several processes are several scrape targets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import version

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.registry import Collector

from ponder.experiment.holdout import Arm
from ponder.protocol.errors import CODES
from ponder.protocol.response import ShadowReport, StrategyReport
from ponder.server.completion import Completion
from ponder.server.observers.protocol import Observer, Watch
from ponder.server.strategies.table import STRATEGIES
from ponder.thought.budget import Plan
from ponder.thought.errors import AnswerDidNotFit, NoAnswerProduced
from ponder.thought.exits.causes import CAUSES
from ponder.thought.exits.loop import AFTER, nearly_repeats
from ponder.thought.outcome import Outcome

logger = logging.getLogger(__name__)

_TOKEN_BUCKETS = [m * 10**e for e in range(6) for m in (1, 2, 5)]
_SECONDS_BUCKETS = [m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5)]
_RATIO_BUCKETS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]


class Metrics(Observer):
    """Counts every completed choice once, and renders all metrics.

    Counters and distributions have a registry each: `ponder_thinking_tokens_total` and the
    histogram `ponder_thinking_tokens` are two names in Prometheus' text format, but the client
    library strips `_total` and would see one. For the same reason series have no creation time.
    The output also holds `savings`, the observers' `collectors` and the default registry, which
    is vLLM's.
    """

    def __init__(
        self,
        model: str,
        arms: Sequence[Arm],
        *,
        running: Callable[[], int],
        silence: Callable[[], float],
        reading: Callable[[], int],
        savings: Collector,
        collectors: Iterable[Collector] = (),
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._counters = CollectorRegistry()
        self._distributions = CollectorRegistry()

        def counter(name: str, text: str, labels: Sequence[str] = ("arm",)) -> Counter:
            return Counter(f"ponder_{name}", text, labels, registry=self._counters)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(
                f"ponder_{name}", text, ["arm"], buckets=buckets, registry=self._distributions
            )

        self._requests = counter(
            "requests_total",
            "Choices of answered requests, by how their thought ended",
            ["end_cause", "arm"],
        )
        self._errors = counter(
            "errors_total",
            "Requests that ended in an error, by its code and HTTP status",
            ["code", "status"],
        )
        self._left = counter(
            "client_disconnects_total", "Requests whose client left before their end", []
        )
        self._refused = counter(
            "connections_refused_total", "Connections that the server ended, by reason", ["reason"]
        )
        self._prompt = counter(
            "prompt_tokens_total", "Tokens of prompts; the choices of a prompt count it once"
        )
        self._thinking = counter(
            "thinking_tokens_total", "Tokens of thoughts, in answered requests"
        )
        self._answer = counter("answer_tokens_total", "Tokens of answers, in answered requests")
        self._forced = counter(
            "forced_tokens_total",
            "Tokens that the server appended to close thoughts, in answered requests",
        )
        self._retry = counter(
            "retry_tokens_total", "Sampled tokens that a retry discarded, in answered requests"
        )
        self._probe = counter(
            "probe_tokens_total", "Tokens that probes of thoughts sampled, in answered requests"
        )
        self._failed_probes = counter(
            "probe_failures_total", "Probes that the engine failed; their thoughts went on"
        )
        self._unfinished = counter(
            "unfinished_tokens_total",
            "Completion tokens of all kinds, in requests that failed or whose client left",
        )
        self._truncations = counter(
            "truncations_total", "Thoughts that the server closed, by cause", ["cause", "arm"]
        )
        self._deadline = counter(
            "deadline_total", "Answers with a deadline, by whether they came in time", ["met"]
        )
        self._strategies = counter(
            "strategy_requests_total",
            "Requests that several thoughts on one budget answered, by strategy",
            ["method"],
        )
        self._near = counter(
            "near_repetitions_total",
            "Thoughts of 256 tokens or more whose sentences, numbers aside, occur 3 times each, on "
            "average",
        )
        self._shadows = counter(
            "early_exit_shadow_total",
            "Early exits that only watched their thought, and whose answer could be compared with "
            "that of the whole thought",
            ["cause", "arm"],
        )
        self._disagreements = counter(
            "early_exit_disagreement_total",
            "Early exits of ponder_early_exit_shadow_total whose answer differed from that of the "
            "whole thought",
            ["cause", "arm"],
        )
        self._empty = counter(
            "empty_answers_total",
            "Answers that stayed empty after the retry although they had room; must stay 0",
        )
        self._violations = counter(
            "budget_violations_total", "Thoughts that exceeded their budget; must stay 0"
        )
        self._thought_length = histogram("thinking_tokens", "Tokens of a thought", _TOKEN_BUCKETS)
        self._answer_length = histogram("answer_tokens", "Tokens of an answer", _TOKEN_BUCKETS)
        self._budget = histogram(
            "budget_effective_tokens",
            "Effective budget of a thought, or of a strategy's thoughts together, in tokens",
            _TOKEN_BUCKETS,
        )
        self._used = histogram(
            "budget_used_ratio",
            "Share of its effective budget that a thought used; 1 is all of it",
            _RATIO_BUCKETS,
        )
        self._first_token = histogram(
            "time_to_first_token_seconds",
            "Seconds from a request to its first sampled token",
            _SECONDS_BUCKETS,
        )
        self._first_answer = histogram(
            "time_to_first_answer_token_seconds",
            "Seconds from a request to the first text of its answer",
            _SECONDS_BUCKETS,
        )
        self._thinking_time = histogram(
            "thinking_seconds",
            "Seconds from the first sampled token to the end of the thought",
            _SECONDS_BUCKETS,
        )
        self._latency = histogram(
            "e2e_request_latency_seconds",
            "Seconds from a request to its last token, for answered requests",
            _SECONDS_BUCKETS,
        )

        def gauge(name: str, text: str, read: Callable[[], float]) -> None:
            Gauge(f"ponder_{name}", text, registry=self._distributions).set_function(read)

        gauge("choices_running", "Choices that the server generates now", running)
        gauge("requests_reading", "Requests that the server reads and plans now", reading)
        gauge(
            "engine_silence_seconds",
            "Seconds since the engine's last token while it has requests; else 0",
            silence,
        )
        self.connections = Gauge(
            "ponder_connections_open",
            "Connections that clients have open",
            registry=self._distributions,
        )
        info = Gauge(
            "ponder_build_info",
            "Always 1; its labels name Ponder's version and the served model",
            ["version", "model"],
            registry=self._distributions,
        )
        info.labels(version("ponder"), model).set(1)
        self._distributions.register(savings)
        for collector in collectors:
            self._counters.register(collector)
        for arm in arms:
            self._exist(arm)
        for code, status in CODES.items():
            self._errors.labels(code, status)
        for met in ("true", "false"):
            self._deadline.labels(met)
        for method in STRATEGIES:
            self._strategies.labels(method)

    def began(self, completion: Completion) -> Watch:
        return Watch(partial(self._ended, completion))

    def failed(self, code: str, status: int) -> None:
        """Count a request that ended in an error."""
        self._errors.labels(code, status).inc()

    def left(self) -> None:
        """Count a request whose client left it."""
        self._left.inc()

    def may_refuse(self, reasons: Iterable[str]) -> None:
        """Export zeros for the reasons for which connections may be ended."""
        for reason in reasons:
            self._refused.labels(reason)

    def refused(self, reason: str) -> None:
        """Count a connection that the server ended."""
        self._refused.labels(reason).inc()

    def render(self) -> bytes:
        registries = (self._counters, self._distributions, REGISTRY)
        return b"".join(generate_latest(registry) for registry in registries)

    def _exist(self, arm: Arm) -> None:
        """Export zeros before the first request, without which a first increase is not seen."""
        for cause, info in CAUSES.items():
            self._requests.labels(cause, arm)
            if info.ended_by == "server":
                self._truncations.labels(cause, arm)
        for cause in ("agreement", "entropy"):
            self._shadows.labels(cause, arm)
            self._disagreements.labels(cause, arm)
        tokens = [self._prompt, self._thinking, self._answer, self._forced, self._retry]
        tokens += [self._probe, self._unfinished]
        for counter in (*tokens, self._failed_probes, self._near, self._empty, self._violations):
            counter.labels(arm)
        lengths = (self._thought_length, self._answer_length, self._budget, self._used)
        times = (self._first_token, self._first_answer, self._thinking_time, self._latency)
        for histogram in (*lengths, *times):
            histogram.labels(arm)

    def _ended(self, completion: Completion, error: BaseException | None) -> None:
        """Count a request: its choices or, if it failed or its client left, what it spent."""
        arm = completion.assignment.arm
        self._prompt.labels(arm).inc(completion.prompt_tokens)
        if error is None:
            self._latency.labels(arm).observe(time.perf_counter() - completion.started_at)
            if (strategy := completion.request.ponder.strategy) is not None:
                self._strategies.labels(strategy.method).inc()
            for index, outcome in enumerate(completion.outcomes):
                self._choice(outcome, completion.prompt(index).plan, completion.started_at, arm)
                self._lengths(outcome, completion.strategy(index), arm)
                if (met := completion.in_time(outcome)) is not None:
                    self._deadline.labels(str(met).lower()).inc()
                self._shadow(completion.shadow(index), arm)
                long = len(completion.thinking_ids(index)) >= AFTER
                if long and nearly_repeats(completion.thought(index)):
                    self._near.labels(arm).inc()
            return
        self._unfinished.labels(arm).inc(completion.spent_tokens)
        self._no_answer(error, arm)
        if isinstance(error, asyncio.CancelledError):
            self.left()

    def _shadow(self, shadow: ShadowReport | None, arm: Arm) -> None:
        if shadow is not None and shadow.agrees is not None:
            self._shadows.labels(shadow.end_cause, arm).inc()
            self._disagreements.labels(shadow.end_cause, arm).inc(not shadow.agrees)

    def _no_answer(self, failure: BaseException | None, arm: Arm) -> None:
        """Count an answer that stayed empty though it had room."""
        if isinstance(failure, NoAnswerProduced) and not isinstance(failure, AnswerDidNotFit):
            self._empty.labels(arm).inc()

    def _choice(self, outcome: Outcome, plan: Plan, started_at: float, arm: Arm) -> None:
        self._requests.labels(outcome.end_cause, arm).inc()
        self._thinking.labels(arm).inc(outcome.thinking_tokens)
        self._answer.labels(arm).inc(outcome.answer_tokens)
        self._forced.labels(arm).inc(outcome.forced_tokens)
        self._retry.labels(arm).inc(outcome.retry_tokens)
        self._probe.labels(arm).inc(outcome.probe_tokens)
        self._failed_probes.labels(arm).inc(outcome.failed_probes)
        self._budget.labels(arm).observe(plan.budget)
        if plan.budget:
            self._used.labels(arm).observe(outcome.thinking_tokens / plan.budget)
        if CAUSES[outcome.end_cause].ended_by == "server":
            self._truncations.labels(outcome.end_cause, arm).inc()
        self._no_answer(outcome.failure, arm)
        if outcome.audited_tokens > plan.budget:
            self._violations.labels(arm).inc()
            logger.error(
                "a thought of %d tokens exceeded its budget of %d",
                outcome.audited_tokens,
                plan.budget,
            )
        self._times(outcome, started_at, arm)

    def _lengths(self, outcome: Outcome, strategy: StrategyReport | None, arm: Arm) -> None:
        """Observe each thought and answer: a strategy's choice has several."""
        for each in strategy.answers if strategy else (outcome,):
            self._thought_length.labels(arm).observe(each.thinking_tokens)
            self._answer_length.labels(arm).observe(each.answer_tokens)

    def _times(self, outcome: Outcome, started_at: float, arm: Arm) -> None:
        if outcome.first_token_at is not None:
            self._first_token.labels(arm).observe(outcome.first_token_at - started_at)
            if outcome.thought_ended_at is not None:
                thinking = outcome.thought_ended_at - outcome.first_token_at
                self._thinking_time.labels(arm).observe(thinking)
        if outcome.first_answer_at is not None:
            self._first_answer.labels(arm).observe(outcome.first_answer_at - started_at)
