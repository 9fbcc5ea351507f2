"""Traces of requests: complete, in the client's trace, without a word of text."""

from __future__ import annotations

import sys

import httpx
import openai
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from ponder.server.observers.spans import Spans, TracesError

from .conftest import Running, Serve

ENDLESS = "thinking and thinking. " * 400
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def spans(running: Running, exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    running.observer(Spans)._provider.force_flush()
    return list(exporter.get_finished_spans())


def by_name(found: list[ReadableSpan]) -> dict[str, ReadableSpan]:
    return {span.name: span for span in found}


def test_a_request_is_a_span_with_its_phases(serve: Serve, exporter: InMemorySpanExporter) -> None:
    running = serve(ENDLESS, "a private answer", exporter=exporter, delay=0.001)
    body = {"messages": [{"role": "user", "content": "a private question"}], "budget": 7}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers)
    reply = answer.json()
    found = by_name(spans(running, exporter))
    assert set(found) == {"chat tiny", "think", "close", "answer"}
    root = found["chat tiny"]
    assert root.context is not None and root.parent is not None
    assert f"{root.context.trace_id:032x}" == TRACE
    assert f"{root.parent.span_id:016x}" == PARENT
    assert answer.headers["traceparent"] == f"00-{TRACE}-{root.context.span_id:016x}-01"

    usage, said = reply["usage"], dict(root.attributes or {})
    assert said["gen_ai.response.id"] == reply["id"]
    assert said["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    thinking = usage["completion_tokens_details"]["reasoning_tokens"]
    assert said["gen_ai.usage.reasoning.output_tokens"] == thinking == 7
    assert said["gen_ai.response.finish_reasons"] == ("stop",)

    report = reply["choices"][0]["ponder"]
    for name, part in (("think", "thinking"), ("close", "forced"), ("answer", "answer")):
        child = found[name]
        assert child.parent == root.context
        assert (child.attributes or {})["ponder.tokens"] == report[f"{part}_tokens"]
    times = [found[name] for name in ("think", "close", "answer")]
    assert times[0].start_time == root.start_time
    assert [s.end_time for s in times[:-1]] == [s.start_time for s in times[1:]]
    assert all((s.start_time or 0) < (s.end_time or 0) for s in times)
    assert (times[-1].end_time or 0) <= (root.end_time or 0)
    assert "private" not in "".join(span.to_json() for span in found.values())


def test_each_choice_has_its_phases_and_a_stream_is_traced(
    serve: Serve, exporter: InMemorySpanExporter
) -> None:
    running = serve("a</think>b", exporter=exporter)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "n": 2}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    answer = httpx.post(f"{running.url}/v1/chat/completions", json=body, headers=headers)
    found = spans(running, exporter)
    names = [span.name for span in found]
    assert sorted(names) == ["answer", "answer", "chat tiny", "think", "think"]
    root = by_name(found)["chat tiny"]
    assert root.context is not None
    assert answer.headers["traceparent"] == f"00-{TRACE}-{root.context.span_id:016x}-01"
    assert answer.headers["x-request-id"] == (root.attributes or {})["gen_ai.response.id"]


def test_a_failure_is_on_its_span(serve: Serve, exporter: InMemorySpanExporter) -> None:
    running = serve("thought</think>" + "\n" * 100, exporter=exporter)
    with pytest.raises(openai.InternalServerError):
        running.ask(ponder={"max_answer_tokens": 20})
    (root,) = spans(running, exporter)
    assert (root.attributes or {})["error.type"] == "NoAnswerProduced"
    assert not root.status.is_ok


def test_without_traces_no_header_comes_back(serve: Serve) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    url = f"{serve('a</think>b').url}/v1/chat/completions"
    for stream in (False, True):
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": stream}
        assert "traceparent" not in httpx.post(url, json=body, headers=headers).headers


def test_the_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(TracesError, match=r"ponder\[otel\]"):
        Spans()
