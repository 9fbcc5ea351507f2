"""OpenTelemetry traces: a span per request, and in it one per choice for think, close and answer.

A request's span begins with the request, so that the engine and the reply's headers can name it.
The phases are made when the request is over, from the times in its outcomes, so that they cost
nothing while tokens come. Spans carry counts and causes, never prompts or answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ponder.errors import SetupError
from ponder.server.completion import Completion
from ponder.server.observers.protocol import Observer, Watch
from ponder.thought.outcome import Outcome

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span, Tracer


class TracesError(SetupError):
    """Traces cannot be sent; the message says why."""


class Spans(Observer):
    """Sends spans in batches, by OTLP over HTTP, to the address in the OTEL_* variables.

    Attributes follow OpenTelemetry's conventions for generative AI; ours begin with `ponder.`.
    Raises `TracesError` where the extra is not installed.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ImportError as error:
            raise TracesError(
                f"--traces needs OpenTelemetry ({error}): pip install 'ponder[otel]'"
            ) from error
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over this name.
        resource = Resource({"service.name": "ponder"}).merge(Resource.create())
        self._provider = TracerProvider(resource=resource)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("ponder.server")
        self._propagator = TraceContextTextMapPropagator()
        self._epoch = time.time_ns() - time.perf_counter_ns()

    def began(self, completion: Completion) -> Watch:
        """Begin the span of a request; the reply's headers name it to the client."""
        from opentelemetry.trace import SpanKind, set_span_in_context

        request, plan = completion.request, completion.longest_plan
        span = self._tracer.start_span(
            f"{completion.operation} {completion.model.name}",
            context=self._propagator.extract(completion.trace),
            kind=SpanKind.SERVER,
            start_time=_nanoseconds(self._epoch, completion.started_at),
            attributes={
                "gen_ai.operation.name": completion.operation,
                "gen_ai.provider.name": "ponder",
                "gen_ai.request.model": request.model or completion.model.name,
                "gen_ai.response.model": completion.model.name,
                "gen_ai.response.id": completion.id,
                "gen_ai.usage.input_tokens": completion.prompt_tokens,
                "ponder.arm": completion.assignment.arm,
                "ponder.budget_effective": plan.budget,
                "ponder.budget_source": plan.source,
            },
        )
        if request.ask.max_completion_tokens is not None:
            span.set_attribute("gen_ai.request.max_tokens", request.ask.max_completion_tokens)
        inside = set_span_in_context(span)
        self._propagator.inject(completion.headers, inside)
        return Watch(RequestSpan(self._tracer, self._epoch, completion, span, inside).end)

    def close(self) -> None:
        """Send the remaining spans."""
        self._provider.shutdown()


class RequestSpan:
    """The span of one request, and the context of its phases."""

    def __init__(
        self, tracer: Tracer, epoch: int, completion: Completion, span: Span, inside: Context
    ) -> None:
        self._tracer = tracer
        self._epoch = epoch
        self._completion = completion
        self._span = span
        self._inside = inside

    def end(self, error: BaseException | None) -> None:
        """End the span: add what the request spent, make its phases, and send them."""
        from opentelemetry.trace import StatusCode

        completion, span = self._completion, self._span
        span.set_attribute("gen_ai.usage.output_tokens", completion.spent_tokens)
        if error is not None:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(StatusCode.ERROR)
        outcomes = completion.outcomes
        if outcomes:
            span.set_attributes(
                {
                    "gen_ai.usage.reasoning.output_tokens": sum(
                        outcome.thinking_tokens for outcome in outcomes
                    ),
                    "ponder.probe_tokens": sum(outcome.probe_tokens for outcome in outcomes),
                    "gen_ai.response.finish_reasons": [o.finish_reason for o in outcomes],
                }
            )
        ended_at = time.perf_counter()
        for index, outcome in enumerate(outcomes):
            for name, start, end, tokens in _phases(outcome, completion.started_at, ended_at):
                child = self._tracer.start_span(
                    name,
                    context=self._inside,
                    start_time=_nanoseconds(self._epoch, start),
                    attributes={
                        "ponder.choice": index,
                        "ponder.tokens": tokens,
                        "ponder.end_cause": outcome.end_cause,
                    },
                )
                child.end(_nanoseconds(self._epoch, end))
        span.end(_nanoseconds(self._epoch, ended_at))


def _nanoseconds(epoch: int, at: float) -> int:
    """Nanoseconds since 1970 of a `time.perf_counter`, which was 0 at `epoch`."""
    return epoch + int(at * 1e9)


def _phases(
    outcome: Outcome, started_at: float, ended_at: float
) -> list[tuple[str, float, float, int]]:
    """(name, start, end, tokens) of each phase; the close lasts until the answer's first text."""
    ended_at = outcome.ended_at or ended_at
    thought = outcome.thought_ended_at
    if thought is None:
        return [("answer", started_at, ended_at, outcome.answer_tokens)]
    phases = [("think", started_at, thought, outcome.thinking_tokens)]
    if outcome.answer_forced:
        answering = outcome.first_answer_at or ended_at
        phases.append(("close", thought, answering, outcome.forced_tokens))
        thought = answering
    return [*phases, ("answer", thought, ended_at, outcome.answer_tokens)]
