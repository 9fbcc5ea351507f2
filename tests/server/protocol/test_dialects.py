"""Dialects: every one names what is neutral in its own words, and writes what it wrote before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from ponder.engine.protocol import TokenLogprob
from ponder.engine.scripted import ByteVocabulary
from ponder.protocol.chat import NAMES, ChatRequest, Turns
from ponder.protocol.dialect import Dialect, Spent
from ponder.protocol.dialects import DIALECTS, dialect_at
from ponder.protocol.dialects.chat import ChatCompletions
from ponder.protocol.errors import ApiError, to_api_error
from ponder.protocol.logprobs import TokenTexts
from ponder.protocol.response import PonderReport
from ponder.thought.answer import AnswerDelta
from ponder.thought.budget import Ask, Limits, resolve
from ponder.thought.errors import BudgetLeavesNoAnswer
from ponder.thought.outcome import Outcome, ThoughtDelta

REPORT = PonderReport(
    budget_requested=8, budget_effective=8, budget_source="request", thinking_tokens=2,
    forced_tokens=0, answer_tokens=3, retry_tokens=0, end_cause="natural", answer_forced=False,
)  # fmt: skip


@dataclass
class Told:
    """A reply as writers see it."""

    request: ChatRequest
    created: int = 1
    model_name: str = "tiny"
    outcomes: Sequence[Outcome] = ()
    prompt_tokens: int = 7
    spent_tokens: int = 5
    token_texts: TokenTexts = field(
        default_factory=lambda: TokenTexts(ByteVocabulary().token_bytes)
    )

    def spent(self) -> Spent:
        return Spent(prompt=7, completion=5, thinking=2, cached=0)

    def report(self, index: int) -> PonderReport:
        return REPORT


def told(**fields: object) -> Told:
    return Told(ChatRequest(id="r", prompts=[Turns([])], **fields))  # type: ignore[arg-type]


THOUGHT, ANSWER = ThoughtDelta('a "\n'), AnswerDelta("ß", (TokenLogprob(97, -0.5, ((98, -1.0),)),))


@pytest.mark.parametrize("path", DIALECTS)
def test_a_dialect_has_a_name_for_every_field_that_errors_speak_of(path: str) -> None:
    assert DIALECTS[path].fields.keys() >= NAMES.keys()


def test_elsewhere_errors_are_openais() -> None:
    assert dialect_at("/v1/models") is DIALECTS["/v1/chat/completions"]


def test_an_error_is_spelled_as_the_dialect_does() -> None:
    ask = Ask(budget=60, min_answer_tokens=40, max_completion_tokens=100)
    with pytest.raises(BudgetLeavesNoAnswer) as caught:
        resolve(ask, Limits(max_model_len=999), prompt_tokens=1, close_tokens=10, thinks=True)
    error = to_api_error(caught.value)
    assert error is not None
    said = error.spelled({**ChatCompletions.fields, "budget": "thinking_token_budget"})
    assert (said.status, said.code, said.param) == (
        400,
        "budget_leaves_no_answer",
        "max_completion_tokens",
    )
    assert str(said) == (
        "thinking_token_budget 60 + 10 closing tokens + min_answer_tokens 40 need 110 tokens, but "
        "max_completion_tokens is 100: raise it to 110 or lower the budget"
    )
    other = error.spelled({"budget": "thinking.budget_tokens", "max_completion_tokens": "max"})
    assert other.param == "max"
    assert str(other).startswith("thinking.budget_tokens 60 +")


def test_what_is_below_a_field_is_named_with_it() -> None:
    error = ApiError(400, "invalid_request", "`template_arguments`.a", field="template_arguments.a")
    said = error.spelled(ChatCompletions.fields)
    assert (said.param, str(said)) == ("chat_template_kwargs.a", "chat_template_kwargs.a")


def test_what_the_client_named_is_not_spelled_again() -> None:
    error = ApiError(400, "invalid_budget", "budget must be a number", param="budget")
    assert error.spelled(ChatCompletions.fields).param == "budget"


def said(dialect: Dialect, reply: Told) -> str:
    writer = dialect.stream(reply)
    events = [writer.event(0, THOUGHT), writer.event(0, ANSWER)]
    reply.outcomes = [Outcome()]
    return b"".join([*events, writer.closing()]).decode()


HEAD = '"object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": '


def test_a_chat_stream_is_these_bytes() -> None:
    head, end = f'data: {{"id": "r", {HEAD}[{{"index": 0, "delta": ', ', "finish_reason": null}]}'
    null = f'"logprobs": null{end}'
    assert said(ChatCompletions(), told()).split("\n\n") == [
        f'{head}{{"role": "assistant", "content": ""}}, {null}',
        f'{head}{{"reasoning": "a \\"\\n", "reasoning_content": "a \\"\\n"}}, {null}',
        f'{head}{{"content": "\\u00df"}}, {null}',
        f'{head}{{"provider_specific_fields": {{"ponder": {REPORT.model_dump_json()}}}}}, '
        f'"logprobs": null, "finish_reason": "stop", "ponder": {REPORT.model_dump_json()}}}]}}',
        "data: [DONE]",
        "",
    ]


def test_a_chat_is_these_bytes() -> None:
    reply = told(logprobs=1)
    writer = ChatCompletions().whole(reply)
    writer.event(0, THOUGHT)
    writer.event(0, ANSWER)
    reply.outcomes = [Outcome()]
    entry = '{"token":"a","logprob":-0.5,"bytes":[97],"top_logprobs":[{"token":"b","logprob":-1.0'
    assert b"".join(writer.parts()).decode() == (
        '{"id":"r","object":"chat.completion","created":1,"model":"tiny","choices":[{"index":0,'
        '"message":{"role":"assistant","content":"\\u00df","reasoning":"a \\"\\n",'
        '"reasoning_content":"a \\"\\n"},"logprobs":{"content":['
        f'{entry},"bytes":[98]}}]}}]}},"finish_reason":"stop","ponder":{REPORT.model_dump_json()}}}],'
        '"usage":{"prompt_tokens":7,"completion_tokens":5,"total_tokens":12,'
        '"completion_tokens_details":{"reasoning_tokens":2},'
        '"prompt_tokens_details":{"cached_tokens":0}}}'
    )


def test_a_stream_that_breaks_ends_with_its_error() -> None:
    writer = ChatCompletions().stream(told())
    assert writer.broken(ApiError(502, "engine_error", "it failed")).decode() == (
        'data: {"error": {"message": "it failed", "type": "server_error", "param": null, '
        '"code": "engine_error"}}\n\n'
    )
