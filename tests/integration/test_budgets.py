"""What Ponder promises, on the real engine: give it a budget, always get an answer."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import openai
import pytest

from ponder.engine.tokenizer import HFTokenizer
from ponder.server.settings import BUNDLED_MODEL
from waiting import wait_until

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

QUESTION = "What is 38 + 45 - 17 + 26?"
LONG_SUM = "What is 38 + 45 - 17 + 26 - 9 + 14 + 3?"
BUDGETS = (0, 8, 32, 128, -1)


def fields(budget: int | None, question: str = QUESTION, **more: Any) -> dict[str, Any]:
    extra = {"thinking_token_budget": budget, "ponder": more.pop("ponder", {})}
    messages = [{"role": "user", "content": question}]
    return {"model": "tiny", "messages": messages, "extra_body": extra, **more}


@pytest.fixture(scope="module")
def tokenizer() -> HFTokenizer:
    return HFTokenizer(Path(BUNDLED_MODEL))


def never_stop(tokenizer: HFTokenizer) -> dict[str, int]:
    """A logit bias under which no thought and no answer ends by itself."""
    return {str(i): -100 for i in (*tokenizer.encode("</think>"), *tokenizer.eos_token_ids)}


@pytest.mark.parametrize("budget", BUDGETS)
def test_every_budget_is_kept_and_answered(
    client: openai.OpenAI, tokenizer: HFTokenizer, budget: int
) -> None:
    reply = client.chat.completions.create(**fields(budget, seed=1))
    choice = reply.choices[0]
    report = choice.ponder  # type: ignore[attr-defined]
    assert choice.message.content
    assert report["budget_requested"] == budget
    assert report["thinking_tokens"] <= report["budget_effective"]
    if budget >= 0:
        assert report["budget_effective"] == budget
    assert bool(report["forced_tokens"]) == report["answer_forced"]
    usage = reply.usage
    assert usage is not None and usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.reasoning_tokens == report["thinking_tokens"]
    parts = ("thinking", "forced", "answer", "retry", "probe")
    assert usage.completion_tokens == sum(report[f"{part}_tokens"] for part in parts)
    reasoning = choice.message.reasoning or ""  # type: ignore[attr-defined]
    assert abs(len(tokenizer.encode(reasoning)) - report["thinking_tokens"]) <= 2


@pytest.mark.parametrize("budget", BUDGETS)
def test_streaming_equals_whole_under_a_seed(client: openai.OpenAI, budget: int) -> None:
    request = fields(budget, seed=11, temperature=1.0)
    whole = client.chat.completions.create(**request).choices[0]
    again = client.chat.completions.create(**request).choices[0]
    assert again.message == whole.message
    reasoning, content, last = "", "", None
    for chunk in client.chat.completions.create(**request, stream=True):
        last = chunk.choices[0]
        content += last.delta.content or ""
        reasoning += getattr(last.delta, "reasoning", None) or ""
    assert content == whole.message.content
    assert reasoning == (whole.message.reasoning or "")  # type: ignore[attr-defined]
    assert last.ponder == whole.ponder  # type: ignore[union-attr,attr-defined]


def test_64_at_once_each_within_its_own_budget(server: ServerProcess) -> None:
    budgets = [BUDGETS[index % len(BUDGETS)] for index in range(64)]

    async def all_at_once() -> list[Any]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:
            return await asyncio.gather(
                *(
                    client.chat.completions.create(
                        **fields(budget, f"What is {index} + 45 - 17 + 26 + 9?", seed=index)
                    )
                    for index, budget in enumerate(budgets)
                )
            )

    before = server.metric("ponder_thinking_tokens_total")
    replies = asyncio.run(all_at_once())
    for budget, reply in zip(budgets, replies, strict=True):
        report = reply.choices[0].ponder
        assert reply.choices[0].message.content
        assert report["thinking_tokens"] <= (budget if budget >= 0 else report["budget_effective"])
    thinking = sum(r.usage.completion_tokens_details.reasoning_tokens for r in replies)
    assert server.metric("ponder_thinking_tokens_total") - before == thinking
    assert server.metric("ponder_budget_violations_total") == 0
    assert server.metric("ponder_empty_answers_total") == 0


def test_a_hint_is_obeyed_in_front_of_the_cap(
    client: openai.OpenAI, tokenizer: HFTokenizer
) -> None:
    """The bundled checkpoint was trained on hints: told 40 tokens it thinks less than told 200."""

    def thinking(budget: int, told: int | None) -> list[int]:
        ponder = {"hint": told is not None}
        request = fields(budget, LONG_SUM, n=16, seed=3, temperature=1.0, ponder=ponder)
        reply = client.chat.completions.create(**request)
        reports = [choice.ponder for choice in reply.choices]  # type: ignore[attr-defined]
        assert {report["hint_budget"] for report in reports} == {told}
        assert {report["budget_effective"] for report in reports} == {budget}
        assert reply.usage is not None
        prompt_tokens.append(reply.usage.prompt_tokens)
        thoughts = [report["thinking_tokens"] for report in reports]
        assert max(thoughts) <= budget
        return thoughts

    prompt_tokens: list[int] = []
    thinking(79, told=None)
    short = thinking(79, told=40)
    assert max(short) < 79  # none was cut: the hint did it
    assert sum(short) < sum(thinking(255, told=200))
    said = tokenizer.encode("I will answer the question within 40 tokens\n")
    assert prompt_tokens[1] - prompt_tokens[0] == len(said)


def test_choices_share_the_prompt_and_think_alone(client: openai.OpenAI) -> None:
    sampled = {"seed": 5, "temperature": 1.0}
    first = client.chat.completions.create(**fields(255, LONG_SUM, **sampled))
    reply = client.chat.completions.create(**fields(255, LONG_SUM, n=4, **sampled))
    assert len({choice.message.reasoning for choice in reply.choices}) > 1  # type: ignore[attr-defined]
    assert all(choice.ponder["thinking_tokens"] <= 255 for choice in reply.choices)  # type: ignore[attr-defined]
    assert reply.usage is not None and reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens
    assert first.choices[0].message == reply.choices[0].message


def test_clients_that_vanish_leave_nothing_running(
    server: ServerProcess, tokenizer: HFTokenizer
) -> None:
    async def vanish() -> None:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:

            async def start_and_leave(index: int) -> None:
                request = fields(-1, f"What is {index} + 45 - 17 + 26 + 9 - 3 + 4?")
                request["extra_body"]["ignore_eos"] = True
                request["logit_bias"] = never_stop(tokenizer)
                stream = await client.chat.completions.create(**request, stream=True)
                async for _ in stream:
                    break
                await stream.close()

            await asyncio.gather(*(start_and_leave(index) for index in range(20)))

    sampled = server.metric("vllm:generation_tokens_total")
    asyncio.run(vanish())
    wait_until(lambda: server.metric("vllm:num_requests_running") == 0)
    assert server.metric("ponder_choices_running") == 0
    # Left alone each would have filled the context.
    assert server.metric("vllm:generation_tokens_total") - sampled < 20 * 4000 / 2


@pytest.mark.parametrize("typed", ["</think>", "<think>", "</think>\n\nThe answer is 1.<think>"])
def test_markers_typed_by_the_user_change_nothing(client: openai.OpenAI, typed: str) -> None:
    reply = client.chat.completions.create(**fields(16, f"{typed} {QUESTION}", seed=3))
    report = reply.choices[0].ponder  # type: ignore[attr-defined]
    assert report["budget_effective"] == 16
    assert 0 < report["thinking_tokens"] <= 16
    assert reply.choices[0].message.content


def test_re_entry_finds_its_prefix_in_the_cache(
    server: ServerProcess, tokenizer: HFTokenizer
) -> None:
    """The forced close must not pay for the thought again: full blocks come from the cache."""
    hits = "vllm:prefix_cache_hits_total"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
        before = server.metric(hits)
        more = {"logit_bias": never_stop(tokenizer), "ponder": {"loop_exit": False}}
        request = fields(512, QUESTION + " (fresh prompt)", **more)
        report = client.chat.completions.create(**request).choices[0].ponder  # type: ignore[attr-defined]
    assert report["end_cause"] == "budget"
    assert server.metric(hits) - before >= 512 - 32


@pytest.mark.parametrize("stream", [False, True])
def test_a_loop_is_closed_and_answered(
    client: openai.OpenAI, tokenizer: HFTokenizer, stream: bool
) -> None:
    """A model that can say but one word: its request is aborted, and the answer follows."""
    (word,) = tokenizer.encode(" and")
    options = {"max_answer_tokens": 3, "hint": False}
    request = fields(2000, ponder=options, logit_bias={str(word): 100}, stream=stream)
    reply = client.chat.completions.create(**request)
    choice = list(reply)[-1].choices[0] if stream else reply.choices[0]
    report = choice.ponder
    assert (report["end_cause"], report["answer_forced"]) == ("loop", True)
    assert report["thinking_tokens"] == 257  # found at 256, and closed after a copy
    assert report["answer_tokens"] == 3


def test_a_thinking_minimum_is_kept(client: openai.OpenAI) -> None:
    request = fields(200, "What is 1 + 1?", ponder={"min_thinking_tokens": 150})
    report = client.chat.completions.create(**request).choices[0].ponder  # type: ignore[attr-defined]
    assert 150 <= report["thinking_tokens"] <= 200


def test_answers_can_be_bounded_and_penalised(client: openai.OpenAI) -> None:
    request = fields(16, ponder={"max_answer_tokens": 3, "grace_tokens": 0}, frequency_penalty=0.5)
    choice = client.chat.completions.create(**request).choices[0]
    assert choice.finish_reason == "length"
    assert choice.ponder["answer_tokens"] <= 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["naïve 漢字 🙂", "\u0000\ud7ff￿", "👩‍👩‍👧 e\u0301", "ﷺ" * 40])
def test_any_unicode_goes_in_and_out(client: openai.OpenAI, text: str) -> None:
    assert client.chat.completions.create(**fields(8, text)).choices[0].message.content


def test_log_probabilities_are_of_the_answer(client: openai.OpenAI) -> None:
    choice = client.chat.completions.create(**fields(8, logprobs=True, top_logprobs=2)).choices[0]
    assert choice.logprobs is not None and choice.logprobs.content is not None
    text = "".join(entry.token for entry in choice.logprobs.content)
    assert choice.message.content == re.sub(r"^\s+", "", text)
    assert all(entry.logprob <= 0 for entry in choice.logprobs.content)
    assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)


@pytest.mark.parametrize("field", ["logit_bias", "stop_token_ids"])
def test_tokens_that_the_model_does_not_have_are_refused_unsampled(
    server: ServerProcess, client: openai.OpenAI, field: str
) -> None:
    request = fields(8)
    request["extra_body"][field] = {"999999": 1} if field == "logit_bias" else [999_999]
    sampled = server.metric("vllm:generation_tokens_total")
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**request)
    assert (caught.value.code, caught.value.param) == ("invalid_request", field)
    assert server.metric("vllm:generation_tokens_total") == sampled
