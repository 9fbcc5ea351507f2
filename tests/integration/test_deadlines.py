"""Deadlines on the real engine, by its own pace."""

from __future__ import annotations

import openai
import pytest

pytestmark = pytest.mark.engine

DEADLINE_MS = 3000
# The end marker is masked, so that the clock alone ends a thought; an answer takes some ten tokens,
# and time is kept for five times as many: the machine may be busy.
ASKED = {"deadline_ms": DEADLINE_MS, "min_answer_tokens": 50, "min_thinking_tokens": 3500}
QUESTION = [{"role": "user", "content": "What is 38 + 45 - 17 + 26?"}]


@pytest.mark.parametrize("stream", [False, True])
def test_a_thought_is_closed_in_time_for_its_answer(client: openai.OpenAI, stream: bool) -> None:
    extra = {"ponder": {**ASKED, "loop_exit": False}}
    more = {"stream_options": {"include_usage": True}} if stream else {}
    # A new engine compiles what reads a prompt as long as a cut thought: the first is none to time.
    client.chat.completions.create(model="tiny", messages=QUESTION, extra_body=extra, n=2)
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
    for report in reports:
        assert (report["end_cause"], report["deadline_met"]) == ("deadline", True)
        assert report["thinking_tokens"] > 0 and report["answer_forced"]
    assert all(said)
    parts = ("thinking", "forced", "answer", "retry", "probe")
    spent = sum(report[f"{part}_tokens"] for report in reports for part in parts)
    assert usage.completion_tokens == spent


def test_what_the_engine_is_too_slow_for_is_refused(client: openai.OpenAI) -> None:
    client.chat.completions.create(model="tiny", messages=QUESTION)  # which it measures
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model="tiny", messages=QUESTION, extra_headers={"x-ponder-deadline-ms": "1"}
        )
    assert (refused.value.status_code, refused.value.code) == (408, "deadline_unreachable")
