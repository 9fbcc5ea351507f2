"""Deadlines on the real engine, by its own pace."""

from __future__ import annotations

import time

import openai
import pytest

pytestmark = pytest.mark.engine

DEADLINE_MS = 3000
# The end marker is masked, so that the clock alone ends a thought; an answer takes some ten tokens,
# and time is kept for five times as many: the machine may be busy.
ASKED = {"deadline_ms": DEADLINE_MS, "min_answer_tokens": 50, "min_thinking_tokens": 3500}
QUESTION = [{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}]


TRIES = 20
"""A new engine compiles what reads a prompt as long as a cut thought, and others may need the
machine: not every answer is in time, but its report says so, and those of one reply are.
"""


@pytest.mark.parametrize("stream", [False, True])
def test_a_thought_is_closed_in_time_for_its_answer(client: openai.OpenAI, stream: bool) -> None:
    assert any(all(_asked(client, stream)) for _ in range(TRIES))


def _asked(client: openai.OpenAI, stream: bool) -> list[bool]:
    """Which answers of one reply were in time, by its reports; their tokens are the usage's."""
    extra = {"ponder": {**ASKED, "loop_exit": False}}
    more = {"stream_options": {"include_usage": True}} if stream else {}
    began = time.perf_counter()
    reply = client.chat.completions.create(
        model="tiny", messages=QUESTION, extra_body=extra, stream=stream, n=2, **more
    )  # type: ignore[call-overload]
    if stream:
        chunks = list(reply)
        usage, said = chunks[-1].usage, ["", ""]
        for choice in (choice for chunk in chunks for choice in chunk.choices):
            said[choice.index] += choice.delta.content or ""
        ends = [c.choices[0] for c in chunks if c.choices and c.choices[0].finish_reason]
        reports = [choice.ponder for choice in ends]
    else:
        usage, said = reply.usage, [choice.message.content for choice in reply.choices]
        reports = [choice.ponder for choice in reply.choices]
    assert len(reports) == 2
    late = time.perf_counter() - began > DEADLINE_MS / 1000
    for report in reports:
        assert report["end_cause"] == "deadline"
        assert report["deadline_met"] or late
        assert report["thinking_tokens"] > 0 and report["answer_forced"]
    assert all(said)
    parts = ("thinking", "forced", "answer", "retry", "probe")
    spent = sum(report[f"{part}_tokens"] for report in reports for part in parts)
    assert usage.completion_tokens == spent
    return [report["deadline_met"] for report in reports]


def test_what_the_engine_is_too_slow_for_is_refused(client: openai.OpenAI) -> None:
    client.chat.completions.create(model="tiny", messages=QUESTION)  # which it measures
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model="tiny", messages=QUESTION, extra_headers={"x-ponder-deadline-ms": "1"}
        )
    assert (refused.value.status_code, refused.value.code) == (408, "deadline_unreachable")
