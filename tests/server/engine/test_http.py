"""Inference servers over HTTP: faults, what is resumed, headers, and what the probe finds out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from ponder.engine import http
from ponder.engine.http import HttpEngine, load
from ponder.engine.protocol import (
    Chunk,
    EngineError,
    EngineOverloadedError,
    EngineRequest,
    EngineSetupError,
    Grammar,
    Load,
    Origin,
    RequestRefusedError,
    Sampling,
)
from ponder.engine.scripted import ByteVocabulary, ScriptedEngine, say
from ponder.protocol.grammars import json_schema
from waiting import wait_until

from .inference_server import Fault, InferenceServer, asking, found, started

VOCABULARY = ByteVocabulary()
EOS = VOCABULARY.EOS
PROMPT = [1, 2]
SAID = [*b"abcdefgh", EOS]
DIALECTS = ["generate", "completions", "sglang"]
TRIES = 5  # of a request that no server ends


def going_on(chunk_sizes: Sequence[int] = (1,)) -> ScriptedEngine:
    """An engine that goes on with SAID from wherever a prompt has brought it."""

    def script(prompt: Sequence[int], _: int) -> Iterator[int]:
        yield from SAID[len(prompt) - len(PROMPT) :]

    return ScriptedEngine(script, VOCABULARY, chunk_sizes=chunk_sizes)


def server_of(dialect: str = "generate", *faults: Fault, **options: Any) -> InferenceServer:
    engine = options.pop("engine", None) or going_on()
    return InferenceServer(engine, dialect, VOCABULARY.encode, faults=list(faults), **options)


def asked(
    server: InferenceServer, request: EngineRequest, stall_timeout: float | None = None
) -> list[Chunk]:
    async def run() -> list[Chunk]:
        async with asking(server, VOCABULARY.eos_token_ids, stall_timeout) as engine:
            chunks = [chunk async for chunk in engine.generate(request)]
            assert engine.unfinished() == 0
            return chunks

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_PAUSE_SECONDS", 0.0)


def request_of(*, name: str = "r", affinity: str = "t", **rules: Any) -> EngineRequest:
    return EngineRequest(PROMPT, Sampling(**{"max_tokens": 99, **rules}), name, affinity)


def sampled(chunks: Sequence[Chunk]) -> list[int]:
    return [token_id for chunk in chunks for token_id in chunk.token_ids]


def resumes() -> dict[str, float]:
    causes = ("lost", "failed", "overloaded")
    name = "ponder_engine_resumes_total"
    return {cause: REGISTRY.get_sample_value(name, {"cause": cause}) or 0.0 for cause in causes}


def resumed(before: Mapping[str, float]) -> dict[str, float]:
    now = resumes()
    return {cause: now[cause] - count for cause, count in before.items() if now[cause] != count}


@given(
    dialect=st.sampled_from(DIALECTS),
    kind=st.sampled_from(["drop", "done", "abort", "error", "late", "status"]),
    after=st.integers(0, len(SAID) - 1),
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
)
def test_no_token_is_lost_or_doubled_where_a_server_is_lost(
    dialect: str, kind: str, after: int, sizes: list[int]
) -> None:
    server = server_of(dialect, Fault(kind, after), engine=going_on(sizes))
    chunks = asked(server, request_of(min_tokens=2))
    assert sampled(chunks) == SAID
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["stop"]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault("drop", 3), "lost"),
        (Fault("done", 3), "lost"),
        (Fault("abort", 3), "failed"),
        (Fault("error", 3, 500), "failed"),
        (Fault("error", 0, 503), "overloaded"),
        (Fault("status", 0, 429), "overloaded"),
        (Fault("status", 0, 502), "failed"),
        (Fault("page", 0, 502), "failed"),
    ],
)
def test_what_is_resumed_goes_elsewhere_and_is_counted(fault: Fault, cause: str) -> None:
    before, server = resumes(), server_of("generate", fault)
    assert sampled(asked(server, request_of(min_tokens=6, name="t-0"))) == SAID
    assert resumed(before) == {cause: 1}
    (first, _), (second, body) = server.asked
    assert (first["X-Session-ID"], second["X-Session-ID"]) == ("t", "t~1")
    assert (first["X-Request-Id"], second["X-Request-Id"]) == ("t-0", "t-0~")
    assert body["token_ids"] == [*PROMPT, *SAID[: fault.after]]
    rules = body["sampling_params"]
    assert (rules["max_tokens"], rules["min_tokens"]) == (99 - fault.after, 6 - fault.after)


def test_servers_that_give_nothing_are_asked_again() -> None:
    before, server = resumes(), server_of("generate", Fault("drop", 3), *[Fault("error")] * 3)
    assert sampled(asked(server, request_of(name="t-0"))) == SAID
    assert resumed(before) == {"lost": 1, "overloaded": 3}
    assert [body["token_ids"] for _, body in server.asked[1:]] == [[*PROMPT, *SAID[:3]]] * 4
    assert len({head["X-Request-Id"] for head, _ in server.asked}) == TRIES
    assert [head["X-Session-ID"] for head, _ in server.asked][-1] == "t~4"


def test_a_stream_that_stalls_is_lost() -> None:
    before, server = resumes(), server_of("generate", Fault("hang", 3))
    assert sampled(asked(server, request_of(), stall_timeout=0.2)) == SAID
    assert resumed(before) == {"lost": 1}


def test_a_balancer_s_cookie_leads_no_thought_to_another_s_server() -> None:
    server = server_of()

    async def run() -> None:
        async with started(server):
            named = server.url.replace("127.0.0.1", "localhost")  # of addresses none are kept
            engine = HttpEngine(named, found("generate"), VOCABULARY.eos_token_ids)
            for name in ("a", "b"):
                async for _ in engine.generate(request_of(name=name)):
                    pass
            engine.shutdown()
            await asyncio.sleep(0)

    asyncio.run(run())
    assert [head.get("Cookie") for head, _ in server.asked] == [None, None]


def test_a_thought_stays_where_it_went() -> None:
    server = server_of("generate", Fault("drop", 3))

    async def run() -> None:
        async with asking(server, VOCABULARY.eos_token_ids) as engine:
            for name, affinity in (("t-0", "t"), ("t-1", "t"), ("u-0", "u")):
                async for _ in engine.generate(request_of(name=name, affinity=affinity)):
                    pass

    asyncio.run(run())
    assert [head["X-Session-ID"] for head, _ in server.asked] == ["t", "t~1", "t~1", "u"]


@pytest.mark.parametrize(
    ("rules", "fault"),
    [
        ({"seed": 3, "temperature": 0.0}, Fault("drop", 3)),  # greedy: a seed decides nothing
        ({"seed": 3}, Fault("drop", 0)),  # nothing is sampled yet
        ({"grammar": Grammar("regex", "a*")}, Fault("error", 0)),
    ],
)
def test_what_comes_out_the_same_is_resumed(rules: dict[str, Any], fault: Fault) -> None:
    assert sampled(asked(server_of("generate", fault), request_of(**rules))) == SAID


@pytest.mark.parametrize(
    ("rules", "said"),
    [({"seed": 3}, "its seed"), ({"grammar": Grammar("regex", "a*")}, "inside the grammar")],
)
def test_what_nobody_can_go_on_with_fails(rules: dict[str, Any], said: str) -> None:
    before, server = resumes(), server_of("generate", Fault("drop", 3))
    with pytest.raises(EngineError, match=f"after 3 tokens .*{said}: send the request again"):
        asked(server, request_of(**rules))
    assert resumed(before) == {}
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("faults", "kind", "said"),
    [
        ([Fault("drop", 1)] * TRIES, EngineError, "none of 5 servers finished this request"),
        ([Fault("status", 0, 500)] * TRIES, EngineError, "none of 5 servers finished .*: .*500"),
        ([Fault("status", 0, 404)] * TRIES, EngineError, "none of 5 servers finished .*: .*404"),
        ([Fault("error")] * TRIES, EngineOverloadedError, "503: full"),
        ([Fault("status", 0, 503)] * TRIES, EngineOverloadedError, "no server takes this"),
        ([Fault("drop")] * TRIES, EngineOverloadedError, "no server takes this"),
        ([Fault("status", 0, 400)], RequestRefusedError, "refused the request: no"),
        ([Fault("error", 0, 400)], RequestRefusedError, "refused the request: full"),
        ([Fault("status", 0, 401)], EngineError, "another key than VLLM_API_KEY"),
        ([Fault("babble", 2)], EngineError, "cannot be read"),
    ],
)
def test_errors_are_those_of_the_protocol(
    faults: list[Fault], kind: type[EngineError], said: str
) -> None:
    server = server_of("generate", *faults)
    with pytest.raises(EngineError, match=said) as raised:
        asked(server, request_of())
    assert type(raised.value) is kind
    assert len(server.asked) == len(faults)


def test_a_refusal_names_its_field() -> None:
    with pytest.raises(RequestRefusedError) as raised:
        asked(server_of("generate", Fault("status", 0, 400)), request_of())
    assert raised.value.param == "temperature"


def test_a_server_that_is_gone_is_away_and_not_dead() -> None:
    async def run() -> None:
        server = server_of()
        async with asking(server, VOCABULARY.eos_token_ids) as engine:
            await engine.check_health()
            server.healthy = False
            with pytest.raises(EngineOverloadedError, match="/health says 503"):
                await engine.check_health()
        with pytest.raises(EngineOverloadedError, match="no server answers"):
            await engine.check_health()
        with pytest.raises(EngineOverloadedError, match="no server takes this request"):
            async for _ in engine.generate(request_of()):
                pass
        engine.shutdown()
        await asyncio.sleep(0)

    asyncio.run(run())


def test_headers_say_whose_request_it_is() -> None:
    origin = Origin(tenant="k", trace={"traceparent": "00-1-2-01"}, due_at=time.perf_counter() + 5)
    server = server_of()
    asked(server, EngineRequest(PROMPT, Sampling(max_tokens=9), "r", "t", origin))
    asked(server, EngineRequest(PROMPT, Sampling(max_tokens=9), "r"))
    (told, _), (bare, _) = server.asked
    assert told["traceparent"] == "00-1-2-01"
    assert told["x-llm-d-inference-fairness-id"] == "k"
    assert 0 < int(told["x-llm-d-slo-ttft-ms"]) <= 5000
    assert bare["X-Session-ID"] == "r"
    assert not {"traceparent", "x-llm-d-inference-fairness-id", "x-llm-d-slo-ttft-ms"} & set(bare)


@pytest.mark.parametrize(("dialect", "cached"), [("generate", 1), ("sglang", 3)])
def test_cached_tokens_come_with_the_last_chunk_at_the_latest(dialect: str, cached: int) -> None:
    chunks = asked(server_of(dialect), request_of())
    assert chunks[-1].cached_tokens == cached
    again = asked(server_of(dialect, Fault("drop", 3)), request_of())
    assert again[-1].cached_tokens is None  # it is of more than the prompt


def test_sglang_is_told_of_an_abort_by_a_name_that_begins_no_other() -> None:
    behind = going_on()
    behind.delay = 0.01
    server = server_of("sglang", engine=behind)

    async def run() -> None:
        async with asking(server, VOCABULARY.eos_token_ids) as engine:
            ten = engine.generate(request_of(name="t10"))
            async with aclosing(ten), aclosing(engine.generate(request_of(name="t1"))) as one:
                await anext(ten)
                await anext(one)
                await one.aclose()
                await asyncio.to_thread(wait_until, lambda: bool(server.aborted))
                rest = [chunk async for chunk in ten]
        assert sampled(rest)[-1] == EOS

    asyncio.run(run())
    assert server.aborted == ["t1/"]


def test_every_rule_of_sampling_arrives() -> None:
    """As the server reads them, whose fields are vLLM's and SGLang's own."""
    rules: dict[str, Any] = {
        "max_tokens": 9,
        "temperature": 0.5,
        "seed": 7,
        "min_tokens": 1,
        "stop_token_ids": (5,),
        "ignore_eos": True,
        "logit_bias": {3: -1.5},
        "chunk_tokens": 4,
        "cache_salt": "salt",
    }
    for dialect in DIALECTS:
        server = server_of(dialect)
        asked(server, request_of(**rules))
        ((_, sampling),) = server.engine.requests
        assert sampling == Sampling(**rules)


# ---- start-up


def load_of(*options: str, name: str = "tiny") -> Load:
    return Load(
        name=name,
        directory=Path("tiny"),
        served_as="tiny",
        vocabulary=VOCABULARY,
        end_of_thought="</think>",
        options=options,
    )


@asynccontextmanager
async def loaded(
    server: InferenceServer, *options: str, name: str = "tiny"
) -> AsyncIterator[HttpEngine]:
    async with started(server):
        yield await asyncio.to_thread(load, load_of(server.url, *options, name=name))


def probed(server: InferenceServer, *options: str, name: str = "tiny") -> HttpEngine:
    async def run() -> HttpEngine:
        async with loaded(server, *options, name=name) as engine:
            return engine

    return asyncio.run(run())


def speaking(dialect: str, **options: Any) -> InferenceServer:
    behind = ScriptedEngine(say("xyz", vocabulary=VOCABULARY), VOCABULARY, chunk_sizes=(1, 3))
    return server_of(dialect, engine=behind, **{"routes": [dialect], **options})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_probe_finds_the_dialect(dialect: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ponder"):
        engine = probed(speaking(dialect))
    assert (engine.facts.max_model_len, engine.facts.max_logprobs) == (4096, 20)
    assert "serves tiny" in caplog.text and "4096 tokens" in caplog.text
    assert ("the cheapest way" in caplog.text) == (dialect != "generate")


def test_a_dialect_can_be_named(caplog: pytest.LogCaptureFixture) -> None:
    server = speaking("completions", routes=DIALECTS)
    server.dialect = "completions"
    with caplog.at_level(logging.INFO, "ponder"):
        probed(server, "--dialect", "completions")
    assert "/v1/completions" in caplog.text


def test_what_a_server_lacks_is_said(caplog: pytest.LogCaptureFixture) -> None:
    behind = ScriptedEngine(say("xyz", vocabulary=VOCABULARY), VOCABULARY)
    with caplog.at_level(logging.INFO, "ponder"):
        probed(server_of("generate", engine=behind, routes=["generate"], tokenizes=False))
    assert "each token by itself" in caplog.text
    assert "the names agree" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"routes": []}, "takes token ids in no way .*404.*--enable-scale-out"),
        ({"routes": ["completions"], "deaf": ["return_token_ids"]}, "returns no token ids"),
        ({"card": {"id": "tiny"}}, "does not report its context length"),
        ({"key": "secret"}, "set VLLM_API_KEY"),
        ({"encode": lambda _: [1]}, "whose tokens are not those of"),
        (
            {"tokenizes": False, "card": {"id": "other", "max_model_len": 9}},
            "serves other and not tiny",
        ),
    ],
)
def test_a_server_that_does_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    encode = options.pop("encode", VOCABULARY.encode)
    server = speaking("completions", **options)
    server.encode = encode
    with pytest.raises(EngineSetupError, match=said):
        probed(server)


def test_a_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    probed(speaking("generate", key="secret"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "give the address of an inference server"),
        (("http://127.0.0.1:9", "--dialct", "sglang"), "--dialct"),
        (("http://127.0.0.1:9", "--dialect", "latin"), "latin"),
        (("ftp://127.0.0.1:9",), "no address of a web server"),
        (
            ("127.0.0.1:9/v1/",),
            "no inference server answers at http://127.0.0.1:9 .*start it first",
        ),
        (("http://me:secret@127.0.0.1:9",), r"^[^@]* answers at http://127\.0\.0\.1:9 [^@]*$"),
    ],
)
def test_options_are_checked(options: tuple[str, ...], said: str) -> None:
    with pytest.raises(EngineSetupError, match=said):
        load(load_of(*options))


def test_formats_are_checked_before_the_thought() -> None:
    engine = HttpEngine("http://127.0.0.1:9", found("generate"), VOCABULARY.eos_token_ids)
    check = engine.facts.check
    assert check is not None
    check(json_schema({"type": "integer", "minimum": 3}))
    for rule in ({"multipleOf": 2}, {"not": {"const": 5}}):
        with pytest.raises(RequestRefusedError, match=f"`{next(iter(rule))}` at # cannot be"):
            check(json_schema({"type": "integer", **rule}))
    with pytest.raises(RequestRefusedError, match="cannot be enforced because of"):
        check(Grammar("regex", "a^b"))
