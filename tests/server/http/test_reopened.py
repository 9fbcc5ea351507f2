"""Models that think again at any place, between calls too: the same whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.http.conftest import Running, Serve
from server.http.test_tools import ARGUMENTS, TEMPLATE, TOOLS, called

LAST = "42"
WORDS = ("I add. ", "Sum: 13\n", "\n", " ", "é 漢", "< b", "So")
START, END, CALL = "start", "end", "call"
TEMPLATES = {"Qwen3": TEMPLATE, "MiniMax-M3": TEMPLATE.replace("think>", "mm:think>")}
"""One whose markers are single tokens and whose calls end a thought, and one of neither."""

pieces = st.lists(st.sampled_from([*WORDS, START, END, START, END, CALL]), max_size=9)


@dataclass
class Model:
    """Says `says`, and in every later request `LAST`."""

    says: Sequence[str] = ()
    asked: int = 0
    running: Running = field(init=False)

    def __call__(self, _prompt: Sequence[int], _number: int) -> Iterator[int]:
        vocabulary = self.running.service.model.tokenizer
        self.asked += 1
        for text in self.says if self.asked == 1 else (LAST,):
            yield from vocabulary.encode(text)
        yield min(vocabulary.eos_token_ids)


@dataclass
class Said:
    """One choice, whole or put together from its parts."""

    reasoning: str
    content: str
    calls: list[tuple[str, str]]
    finish: str
    report: dict[str, Any]
    completion: int


def whole(running: Running, **fields: object) -> Said:
    reply = running.ask(tools=TOOLS, **fields)
    (choice,) = reply.choices
    message = choice.message
    calls = [(call.function.name, call.function.arguments) for call in message.tool_calls or ()]
    return Said(
        message.reasoning or "",
        message.content or "",
        calls,
        choice.finish_reason,
        choice.ponder,
        reply.usage.completion_tokens,
    )


def streamed(running: Running, **fields: object) -> Said:
    said = Said("", "", [], "", {}, 0)
    usage = {"include_usage": True}
    for chunk in running.ask(tools=TOOLS, stream=True, stream_options=usage, **fields):
        said.completion = chunk.usage.completion_tokens if chunk.usage else said.completion
        for choice in chunk.choices:
            said.reasoning += getattr(choice.delta, "reasoning", None) or ""
            said.content += choice.delta.content or ""
            for part in choice.delta.tool_calls or ():
                if part.function.name is not None:
                    said.calls.append((part.function.name, ""))
                name, arguments = said.calls[part.index]
                said.calls[part.index] = (name, arguments + (part.function.arguments or ""))
            if choice.finish_reason is not None:
                said.finish, said.report = choice.finish_reason, choice.ponder
    return said


def expected(parts: Sequence[str], *, calls_end: bool) -> tuple[str, str, int]:
    """Thought and answer without their blank, and the number of calls."""
    thinking, thought, answer, calls = True, "", "", 0
    for part in parts:
        if part == CALL and thinking and not calls_end:
            thought += called()
        elif part == CALL:
            thinking, calls = False, calls + 1
        elif part in (START, END):
            if part == START and thinking:
                thought += START
            thinking = part == START
        elif thinking:
            thought += part
        else:
            answer += part
    if thinking or not (answer.strip() or calls):
        answer += LAST
    return "".join(thought.split()), "".join(answer.split()), calls


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_thought_that_is_opened_again_is_told_from_calls_and_answers(
    serve: Serve, family: str
) -> None:
    model = Model()
    model.running = running = serve(script=model, template=TEMPLATES[family], bare=True)
    form = running.service.model.checkpoint.form
    assert form is not None and form.name == family
    texts = {START: form.start, END: form.end, CALL: called()}

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(
        parts=pieces,
        budget=st.sampled_from([-1, -1, 0, 1, 3, 8, 20]),
        chunk=st.sampled_from([1, 2, 5, 200]),
    )
    def check(parts: list[str], budget: int, chunk: int) -> None:
        running.engine._chunk_sizes = (chunk,)
        model.says = [texts.get(part, part) for part in parts]
        both = []
        for ask in (whole, streamed):
            model.asked = 0
            both.append(ask(running, thinking_token_budget=budget, seed=1))
        one, other = both
        assert one == other
        report = one.report
        assert budget < 0 or report["thinking_tokens"] <= budget
        counted = ("thinking", "forced", "answer", "retry", "probe")
        assert sum(report[f"{name}_tokens"] for name in counted) == one.completion
        assert form.start not in one.content and form.end not in one.content
        assert form.end not in one.reasoning
        assert all(
            (name, json.loads(arguments)) == ("weather", ARGUMENTS) for name, arguments in one.calls
        )
        assert one.finish == ("tool_calls" if one.calls else "stop")
        assert one.calls or one.content.strip()
        if budget < 0:
            reasoning = one.reasoning.replace(form.start, START)
            found = ("".join(reasoning.split()), "".join(one.content.split()), len(one.calls))
            assert found == expected(parts, calls_end=form.tool_call is not None)

    check()
