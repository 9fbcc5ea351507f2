"""`/v1/completions`: prompts as they are, thoughts where their caller opens one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.engine.protocol import TokenLogprob
from ponder.engine.scripted import ByteVocabulary, Script
from ponder.protocol.logprobs import TextLogprobWriter, TokenTexts
from ponder.thought.answer import AnswerWriter

from .conftest import Running, Serve

OPEN = "Q: 40 + 2?\n<think>\n"
ENDLESS = "thinking and thinking. " * 400


def complete(running: Running, prompt: object = "Once", **fields: Any) -> Any:
    known = ("n", "stream", "stop", "seed", "logprobs", "max_tokens", "stream_options", "echo")
    official = {name: fields.pop(name) for name in known if name in fields}
    with running.client() as client:
        reply = client.completions.create(
            model="tiny",
            prompt=prompt,
            extra_body=fields,
            **official,
        )  # type: ignore[call-overload]
        return list(reply) if official.get("stream") else reply


def refused(running: Running, prompt: object = "Once", **fields: Any) -> dict[str, Any]:
    body = {"prompt": prompt, **fields}
    answer = httpx.post(f"{running.url}/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    error: dict[str, Any] = answer.json()["error"]
    return error


def echoing() -> Script:
    """A script that repeats its prompt, so that a choice tells which prompt it answers."""

    def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
        yield from prompt

    return script


def test_a_prompt_is_continued_verbatim(serve: Serve) -> None:
    running = serve("  upon a time")
    reply = complete(running)
    assert reply.object == "text_completion"
    assert reply.id.startswith("cmpl-")
    choice = reply.choices[0]
    assert (choice.text, choice.finish_reason, choice.index) == ("  upon a time", "stop", 0)
    assert choice.reasoning is None
    assert choice.ponder["end_cause"] == "disabled"
    prompt, sampling = running.engine.requests[0]
    assert prompt == running.service.model.tokenizer.encode("Once", special_tokens=True)
    assert sampling.max_tokens == 16
    assert reply.usage.prompt_tokens == len(prompt)
    assert reply.usage.completion_tokens == choice.ponder["answer_tokens"]


def test_nothing_to_add_is_a_completion(serve: Serve) -> None:
    running = serve("")
    choice = complete(running).choices[0]
    assert (choice.text, choice.finish_reason) == ("", "stop")
    assert len(running.engine.requests) == 1


def test_markers_within_a_prompt_or_a_text_open_nothing(serve: Serve) -> None:
    running = serve("a </think> b")
    choice = complete(running, f"{OPEN}2</think>42\nQ: 1 + 1?").choices[0]
    assert choice.text.replace("</think>", "") in ("a  b", "a b")
    assert choice.ponder["thinking_tokens"] == 0


@pytest.mark.parametrize("how", ["text", "ids", "word"])
def test_a_thought_that_its_caller_opens_has_a_budget(serve: Serve, how: str) -> None:
    running = serve(ENDLESS, "  The answer is 42.")
    encode = running.service.model.tokenizer.encode
    prompt: object = {"text": OPEN, "ids": encode(OPEN), "word": OPEN + "Well,"}[how]
    more = {"ponder": {"thinking": "open"}} if how == "word" else {}
    choice = complete(running, prompt, thinking_token_budget=32, **more).choices[0]
    report = choice.ponder
    assert (report["budget_effective"], report["end_cause"]) == (32, "budget")
    assert 0 < report["thinking_tokens"] <= 32
    assert choice.reasoning.startswith("thinking")
    assert choice.text == "The answer is 42."


def test_an_open_thought_has_the_context_and_a_plain_prompt_16_tokens(serve: Serve) -> None:
    running = serve(ENDLESS, "ok")
    choice = complete(running, OPEN).choices[0]
    assert choice.ponder["budget_source"] == "context"
    choice = complete(running, OPEN, max_tokens=40).choices[0]
    assert choice.ponder["budget_source"] == "max_completion_tokens"
    plain = complete(serve(ENDLESS)).choices[0]
    assert (plain.finish_reason, plain.ponder["answer_tokens"]) == ("length", 16)


def test_budget_zero_closes_the_thought_that_is_open(serve: Serve) -> None:
    running = serve("At once.")
    choice = complete(running, OPEN, budget=0).choices[0]
    assert (choice.text, choice.ponder["end_cause"]) == ("At once.", "disabled")
    compiled = running.service.model.checkpoint.compiled
    assert compiled is not None
    close = list(compiled.close.ids)
    assert running.engine.requests[0][0][-len(close) :] == close


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"budget": 8}, "budget"),
        ({"thinking_token_budget": -1}, "thinking_token_budget"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"thinking": {"type": "enabled"}}, "thinking.type"),
        ({"enable_thinking": True}, "enable_thinking"),
    ],
)
def test_a_budget_wants_an_open_thought(serve: Serve, fields: dict[str, Any], param: str) -> None:
    error = refused(serve(), **fields)
    assert (error["code"], error["param"]) == ("reasoning_unsupported", param)
    assert "end it with <think>, set ponder.thinking" in error["message"]
    assert f"or leave {param} out" in error["message"]
    assert complete(serve("ok"), budget=0).choices[0].text == "ok"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"echo": True, "prompt": "Hm <think>"}, "echo", "opens a thought"),
        ({"suffix": "end"}, "suffix", "does not fill in the middle; leave it out"),
        ({"prompt_embeds": ["x"]}, "prompt_embeds", "send one of them as prompt"),
        (
            {"chat_template_kwargs": {"enable_thinking": False}},
            "chat_template_kwargs",
            "send a budget as thinking_token_budget, 0 for no thought",
        ),
        (
            {"chat_template_kwargs": {"thinking_budget": 5}},
            "chat_template_kwargs",
            "send a budget as thinking_token_budget",
        ),
        ({"max_tokens": 0}, "max_tokens", "or send echo: true to score the prompt alone"),
        ({"max_tokens": -1}, "max_tokens", "must be at least 0"),
        (
            {"max_tokens": 0, "echo": True, "prompt": OPEN},
            "echo",
            "this prompt opens a thought",
        ),
        ({"best_of": 2}, None, "this server ranks no choices; leave it out"),
        ({"prompt": []}, "prompt", "none is empty"),
        ({"prompt": [[]]}, "prompt", "none is empty"),
        ({"prompt": [[1], "a"]}, "prompt", "must be a text, a list of texts"),
        ({"prompt": [True]}, "prompt", "must be a text, a list of texts"),
        ({"prompt": [-1]}, "prompt", "must be a text, a list of texts"),
        ({"prompt": ["a"] * 1025}, "prompt", "at most 1024 prompts: send fewer"),
        ({"prompt": [10**6]}, "prompt", "names token 1000000, but this model has tokens 0 to"),
        ({"prompt": [[1], [10**6]]}, "prompt", "names token 1000000"),
        ({"prompt": "word " * 9000}, "prompt", "shorten the prompt"),
        ({"logprobs": 21}, "logprobs", "at most 20"),
        ({"logprobs": True}, "logprobs", "must be a whole number"),
        ({"min_tokens": 17}, None, "min_tokens 17 is above max_tokens 16: lower it"),
        ({"messages": []}, "messages", "is not supported here"),
        ({"max_completion_tokens": 5}, "max_completion_tokens", "is not supported here"),
        ({"ponder": {"thinking": "shut"}}, "ponder.thinking", "must be 'open'"),
        ({"ponder": {"hint": True}}, "ponder.hint", "a raw prompt stays as it is"),
        ({"ponder": {"grace_tokens": 4}}, "ponder.grace_tokens", "opens no thought"),
        ({"n": 3, "prompt": ["a"] * 100}, "prompt", "100 prompts of n = 3 are 300, but"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    serve: Serve, fields: dict[str, Any], param: str | None, says: str
) -> None:
    error = refused(serve(), **fields)
    assert error["param"] == param
    assert says in error["message"]


def test_an_empty_text_is_refused_where_the_tokenizer_adds_nothing(serve: Serve) -> None:
    assert "send at least one" in refused(serve(), "")["message"]


def test_a_chat_has_no_thought_of_its_callers(serve: Serve) -> None:
    with pytest.raises(openai.BadRequestError, match=r"ponder\.thinking is not supported here"):
        serve().ask(ponder={"thinking": "open"})


def test_a_model_that_does_not_think_cannot_be_told_to(serve: Serve) -> None:
    running = serve("ok", thinks=False)
    assert complete(running, OPEN).choices[0].text == "ok"
    error = refused(running, ponder={"thinking": "open"})
    assert (error["code"], error["param"]) == ("reasoning_unsupported", "ponder.thinking")
    assert refused(running, OPEN, budget=8)["code"] == "reasoning_unsupported"


def test_prompts_times_choices(serve: Serve) -> None:
    running = serve(script=echoing())
    encode = running.service.model.tokenizer.encode
    prompts = ["alpha", "beta and gamma"]
    reply = complete(running, prompts, n=2, seed=5, max_tokens=8)
    texts = [(choice.index, choice.text) for choice in reply.choices]
    assert [index for index, _ in texts] == [0, 1, 2, 3]
    assert texts[0][1] == texts[1][1]
    assert texts[2][1] == texts[3][1]
    assert [text[:4] for _, text in texts] == ["alph", "alph", "beta", "beta"]
    ids = [encode(prompt) for prompt in prompts]
    assert reply.usage.prompt_tokens == sum(map(len, ids))
    assert reply.usage.completion_tokens == sum(c.ponder["answer_tokens"] for c in reply.choices)
    seeds = [sampling.seed for _, sampling in running.engine.requests]
    assert seeds == [5, 6, 5, 6]  # a prompt's choices are what they are without the others
    same = complete(running, ids, n=2, seed=5, max_tokens=8)
    assert [choice.text for choice in same.choices] == [text for _, text in texts]
    metrics = httpx.get(f"{running.url}/metrics").text
    spent = 2 * reply.usage.prompt_tokens
    assert f'ponder_prompt_tokens_total{{arm="policy"}} {spent}.0' in metrics
    assert 'ponder_requests_total{arm="policy",end_cause="disabled"} 8.0' in metrics


def test_open_and_plain_prompts_share_a_request(serve: Serve) -> None:
    running = serve("a thought</think>\n\nan answer")
    reply = complete(running, [OPEN, "Once"], max_tokens=60)
    opened, plain = reply.choices
    assert (opened.reasoning, opened.text) == ("a thought", "an answer")
    assert plain.reasoning is None
    assert plain.text.startswith("a thought")
    assert reply.usage.completion_tokens_details.reasoning_tokens > 0


def test_places_are_taken_for_every_choice(serve: Serve) -> None:
    running = serve(delay=0.05, max_running=4)
    body = {"prompt": ["a", "b"], "n": 2, "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/completions", json=body) as answer:
        lines = answer.iter_lines()  # kept: a collected generator closes the connection
        next(lines)
        assert running.service.running == 4


@pytest.mark.parametrize("chunk_sizes", [(1,), (3, 1, 7)])
@pytest.mark.parametrize("prompt", ["Once", OPEN, [OPEN, "Once"]])
def test_streaming_says_what_the_whole_reply_says(
    serve: Serve, prompt: object, chunk_sizes: tuple[int, ...]
) -> None:
    running = serve(" a thought</think>\n\n an ßanswer", chunk_sizes=chunk_sizes)
    whole = complete(running, prompt, max_tokens=80, logprobs=1)
    options = {"include_usage": True}
    chunks = complete(
        running, prompt, max_tokens=80, logprobs=1, stream=True, stream_options=options
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    for choice in whole.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert "".join(part.text for part in mine) == choice.text
        thought = "".join(getattr(part, "reasoning", None) or "" for part in mine)
        assert thought == (choice.reasoning or "")
        assert (mine[-1].finish_reason, mine[-1].ponder) == (choice.finish_reason, choice.ponder)
        for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset"):
            told = [e for c in mine if c.logprobs for e in getattr(c.logprobs, name)]
            assert told == getattr(choice.logprobs, name)


def test_events_are_completions_and_done_comes_last(serve: Serve) -> None:
    body = {"prompt": "Once", "stream": True}
    text = httpx.post(f"{serve('ab').url}/v1/completions", json=body).text
    events = [line.removeprefix("data: ") for line in text.splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert chunks[0]["choices"][0]["text"] == "a"
    assert chunks[0]["choices"][0]["finish_reason"] is None


def test_ignore_eos_gives_every_token_that_was_asked_for(serve: Serve) -> None:
    running = serve("short")
    reply = complete(running, max_tokens=50, ignore_eos=True)
    assert reply.usage.completion_tokens == 50
    opened = complete(running, OPEN, max_tokens=50, ignore_eos=True, thinking_token_budget=8)
    assert opened.usage.completion_tokens == 50


OF_CLIENTS: dict[str, dict[str, Any]] = {
    "lm-eval": {
        "prompt": ["Once", "Twice"], "max_tokens": 8, "temperature": 0, "seed": 1234,
        "stop": ["\n"],
    },
    "vllm bench serve": {
        "prompt": "Once", "repetition_penalty": 1.0, "max_tokens": 8, "logprobs": None,
        "stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True,
        "temperature": 0.0,
    },
    "guidellm": {
        "prompt": "Once", "max_tokens": 8, "stop": None, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    },
    "openai": {
        "prompt": "Once", "best_of": 1, "echo": False, "suffix": None, "user": "u", "n": 1,
        "presence_penalty": 0, "logit_bias": {},
    },
    "one kind of number": {
        "prompt": "Once", "logprobs": 1.0, "best_of": 1.0, "n": 1.0, "max_tokens": 4.0,
    },
    "vLLM": {
        "prompt": "Once", "suffix": "", "return_token_offsets": False, "mm_payload": "tensors",
        "routed_experts_prompt_start": 0, "truncate_prompt_tokens": -1, "prompt_embeds": [],
        "chat_template_kwargs": {},
    },
}  # fmt: skip


@pytest.mark.parametrize("client", OF_CLIENTS)
def test_what_clients_send_is_taken(serve: Serve, client: str) -> None:
    answer = httpx.post(f"{serve('ok').url}/v1/completions", json=OF_CLIENTS[client])
    assert answer.status_code == 200, answer.text


def test_log_probabilities_have_completions_shape(serve: Serve) -> None:
    running = serve(" ab")
    told = complete(running, logprobs=2).choices[0].logprobs
    assert "".join(told.tokens) == " ab"
    assert len(told.token_logprobs) == len(told.top_logprobs) == len(told.tokens)
    assert told.text_offset[0] == 0
    for token, logprob, top in zip(
        told.tokens, told.token_logprobs, told.top_logprobs, strict=True
    ):
        assert top[token] == logprob
        assert len(top) <= 3
    assert complete(running, logprobs=0).choices[0].logprobs.top_logprobs[0].keys() == {
        told.tokens[0]
    }
    assert complete(running).choices[0].logprobs is None


@given(
    text=st.text(alphabet=" \nabßc漢🙂", max_size=12),
    prefix=st.sampled_from(["", "So: "]),
    verbatim=st.booleans(),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_offsets_point_into_the_text(
    text: str, prefix: str, verbatim: bool, sizes: list[int]
) -> None:
    """One token a byte: the first byte of a character begins where the character does."""
    vocabulary = ByteVocabulary()
    writer = AnswerWriter(vocabulary, verbatim=verbatim)
    writer.feed_text("" if verbatim else prefix)
    lists = TextLogprobWriter(TokenTexts(vocabulary.token_bytes), 0)
    shown, offsets, turn = "", [], 0
    ids = list(text.encode())
    while ids:
        size = sizes[turn % len(sizes)]
        taken, ids, turn = ids[:size], ids[size:], turn + 1
        for token_id in taken:
            writer.feed(token_id, TokenLogprob(token_id, -1.0))
        delta = writer.take(last=not ids)
        if delta is not None:
            shown += delta.text
            offsets += json.loads(f"[{lists.columns(delta)[3]}]")
    assert offsets == sorted(offsets)
    hidden = len(text) + (0 if verbatim else len(prefix)) - len(shown)
    before = 0 if verbatim else len(prefix)
    if not before:
        text, hidden = text[hidden:], 0  # the blank in front is dropped with its tokens
    expected = []
    for at, character in enumerate(text):
        expected += [max(0, at + before - hidden)] * len(character.encode())
    if shown:
        assert [o for o, b in zip(offsets, text.encode(), strict=True) if b & 0xC0 != 0x80] == [
            e for e, b in zip(expected, text.encode(), strict=True) if b & 0xC0 != 0x80
        ]


def test_a_long_list_of_prompts_is_planned_beside_the_others(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve("ok")
    inline = complete(running, ["a b c"] * 3)
    monkeypatch.setattr("ponder.server.answering.LONG_BYTES", 1)
    threaded = complete(running, ["a b c"] * 3)
    assert threaded.usage == inline.usage
    assert [c.text for c in threaded.choices] == [c.text for c in inline.choices]


def test_a_failure_of_one_choice_fails_the_request(serve: Serve) -> None:
    def script(_prompt: Sequence[int], number: int) -> Iterator[int]:
        if number == 1:
            raise ZeroDivisionError
        yield from [ord("a")] * 100

    with pytest.raises(openai.InternalServerError):
        complete(serve(script=script), ["a", "b"])


# -- echo --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_precedes_what_follows(serve: Serve, stream: bool) -> None:
    running = serve(" upon")
    reply = complete(running, ["Once", "Éa b"], echo=True, stream=stream, max_tokens=9)
    chunks = reply if stream else [reply]
    texts = ["", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == ["Once upon", "Éa b upon"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_echo_scores_the_prompt(serve: Serve, stream: bool) -> None:
    running = serve(" upon a")
    tokenizer = running.service.model.tokenizer
    ids = tokenizer.encode("Once, Éa")
    reply = complete(running, [ids], echo=True, logprobs=1, max_tokens=2, stream=stream)
    told = [choice for chunk in (reply if stream else [reply]) for choice in chunk.choices]
    lists = [choice.logprobs for choice in told if choice.logprobs]
    tokens = [token for each in lists for token in each.tokens]
    scores = [score for each in lists for score in each.token_logprobs]
    tops = [top for each in lists for top in each.top_logprobs]
    offsets = [at for each in lists for at in each.text_offset]
    text = "".join(choice.text for choice in told)
    assert text.startswith("Once, Éa")
    assert len(tokens) == len(scores) == len(tops) == len(offsets) >= len(ids) + 2
    assert (scores[0], tops[0]) == (None, None)
    assert all(score == -1.0 for score in scores[1:])
    for token, start, end in zip(tokens, offsets, [*offsets[1:], len(text)], strict=True):
        assert "�" in token or text[start:end] == token
    sampling = running.engine.requests[0][1]
    assert (sampling.prompt_logprobs, sampling.logprobs) == (1, 1)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("answer", [" upon a", ""])
def test_a_prompt_is_scored_alone(serve: Serve, stream: bool, answer: str) -> None:
    """The one token that the engine samples is not shown, and not counted."""
    running = serve(answer)
    prompts = ["Once, Éa", "Twice"]
    tokenizer = running.service.model.tokenizer
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    asked: dict[str, Any] = {"echo": True, "logprobs": 1, "n": 2, "stream": stream}
    if stream:
        asked["stream_options"] = {"include_usage": True, "continuous_usage_stats": True}
    reply = complete(running, ids, max_tokens=0, **asked)
    chunks = reply if stream else [reply]
    for index in range(4):
        mine = [c for chunk in chunks for c in chunk.choices if c.index == index]
        assert "".join(choice.text for choice in mine) == prompts[index // 2]
        assert (mine[-1].finish_reason, mine[-1].ponder["answer_tokens"]) == ("length", 0)
        told = [s for c in mine if c.logprobs for s in c.logprobs.token_logprobs]
        assert told == [None] + [-1.0] * (len(ids[index // 2]) - 1)
    assert chunks[-1].usage.prompt_tokens == sum(map(len, ids))
    assert chunks[-1].usage.completion_tokens == 0
    assert {sampling.max_tokens for _, sampling in running.engine.requests} == {1}
    metrics = httpx.get(f"{running.url}/metrics").text
    assert 'ponder_answer_tokens_total{arm="policy"} 0.0' in metrics


def test_an_echo_alone_needs_no_log_probabilities(serve: Serve) -> None:
    choice = complete(serve("x"), "Once", echo=True, max_tokens=0).choices[0]
    assert (choice.text, choice.logprobs) == ("Once", None)


def test_an_engine_that_scores_no_prompts_says_so(serve: Serve) -> None:
    running = serve(" upon")
    object.__setattr__(running.engine.facts, "scores_prompts", False)
    error = refused(running, echo=True, logprobs=1)
    assert error["param"] == "echo" and "cannot score prompts" in error["message"]
    assert complete(running, echo=True, max_tokens=2).choices[0].text.startswith("Once")


def test_no_prompt_is_scored_that_is_not_echoed(serve: Serve) -> None:
    running = serve("x")
    complete(running, echo=True, max_tokens=2)
    complete(running, logprobs=1, max_tokens=2)
    assert [sampling.prompt_logprobs for _, sampling in running.engine.requests] == [None, None]
