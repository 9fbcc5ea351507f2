"""Prometheus metrics about thoughts. vLLM's own count requests to the engine instead."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from ponder.server.completion import Completion
from ponder.thought.budget import Plan
from ponder.thought.controller import Outcome

logger = logging.getLogger(__name__)

_TOKEN_BUCKETS = [m * 10**e for e in range(5) for m in (1, 2, 5)]
_SECONDS_BUCKETS = [m * 10.0**e for e in range(-3, 3) for m in (1, 2, 5)]
_RATIO_BUCKETS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]


class Metrics:
    """Every completed choice is counted once.

    Counters and distributions have a registry each: `ponder_thinking_tokens_total` and the
    histogram `ponder_thinking_tokens` are two names in Prometheus' text format, but the client
    library strips `_total` and would see one.
    """

    def __init__(self, model: str, running: Callable[[], int]) -> None:
        self._counters = CollectorRegistry()
        self._distributions = CollectorRegistry()
        self._model = model

        def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"ponder_{name}", text, labels, registry=self._counters)

        def histogram(name: str, text: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"ponder_{name}", text, buckets=buckets, registry=self._distributions)

        self._requests = counter(
            "requests_total",
            "Choices completed, by how their thought ended",
            ["model", "end_cause", "arm"],
        )
        self._errors = counter("errors_total", "Requests that ended in an error", ["code"])
        self._prompt = counter("prompt_tokens_total", "Prompt tokens, once per request")
        self._thinking = counter("thinking_tokens_total", "Tokens of thoughts")
        self._answer = counter("answer_tokens_total", "Tokens of answers")
        self._forced = counter("forced_tokens_total", "Tokens appended to close thoughts")
        self._retry = counter("retry_tokens_total", "Sampled tokens that a retry discarded")
        self._probe = counter("probe_tokens_total", "Tokens sampled to probe a thought")
        self._truncations = counter(
            "truncations_total", "Thoughts that were closed for the model", ["cause"]
        )
        self._empty = counter("empty_answers_total", "Answers empty after the retry: must stay 0")
        self._violations = counter(
            "budget_violations_total", "Thoughts longer than their budget: must stay 0"
        )
        self._thought_length = histogram("thinking_tokens", "Tokens per thought", _TOKEN_BUCKETS)
        self._answer_length = histogram("answer_tokens", "Tokens per answer", _TOKEN_BUCKETS)
        self._budget = histogram(
            "budget_effective_tokens", "Effective budget per thought", _TOKEN_BUCKETS
        )
        self._used = histogram(
            "budget_used_ratio", "Thinking tokens over effective budget", _RATIO_BUCKETS
        )
        self._first_token = histogram(
            "time_to_first_token_seconds", "Request to first sampled token", _SECONDS_BUCKETS
        )
        self._first_answer = histogram(
            "time_to_first_answer_token_seconds", "Request to first answer text", _SECONDS_BUCKETS
        )
        self._thinking_time = histogram(
            "thinking_seconds", "First sampled token to the end of the thought", _SECONDS_BUCKETS
        )
        gauge = Gauge(
            "ponder_choices_running", "Choices being generated", registry=self._distributions
        )
        gauge.set_function(running)
        info = Gauge("ponder_build_info", "Always 1", ["version"], registry=self._distributions)
        info.labels(version("ponder")).set(1)
        for cause in ("natural", "budget", "length", "disabled"):
            self._requests.labels(model, cause, "policy")
        for cause in ("budget", "length"):
            self._truncations.labels(cause)

    def completed(self, completion: Completion) -> None:
        """Count a finished request."""
        self._prompt.inc(len(completion.prompt.token_ids))
        for outcome in completion.outcomes:
            self._choice(outcome, completion.prompt.plan, completion.started_at)

    def failed(self, code: str) -> None:
        """Count a request that was answered with an error."""
        self._errors.labels(code).inc()
        if code == "no_answer_produced":
            self._empty.inc()

    def render(self) -> bytes:
        return generate_latest(self._counters) + generate_latest(self._distributions)

    def _choice(self, outcome: Outcome, plan: Plan, started_at: float) -> None:
        self._requests.labels(self._model, outcome.end_cause, "policy").inc()
        self._thinking.inc(outcome.thinking_tokens)
        self._answer.inc(outcome.answer_tokens)
        self._forced.inc(outcome.forced_tokens)
        self._retry.inc(outcome.retry_tokens)
        self._thought_length.observe(outcome.thinking_tokens)
        self._answer_length.observe(outcome.answer_tokens)
        self._budget.observe(plan.budget)
        if plan.budget:
            self._used.observe(outcome.thinking_tokens / plan.budget)
        if outcome.end_cause in ("budget", "length"):
            self._truncations.labels(outcome.end_cause).inc()
        if outcome.thinking_tokens > plan.budget:
            self._violations.inc()
            logger.error(
                "a thought of %d tokens exceeded its budget of %d",
                outcome.thinking_tokens,
                plan.budget,
            )
        self._times(outcome, started_at)

    def _times(self, outcome: Outcome, started_at: float) -> None:
        if outcome.first_token_at is not None:
            self._first_token.observe(outcome.first_token_at - started_at)
            if outcome.thought_ended_at is not None:
                self._thinking_time.observe(outcome.thought_ended_at - outcome.first_token_at)
        if outcome.first_answer_at is not None:
            self._first_answer.observe(outcome.first_answer_at - started_at)
