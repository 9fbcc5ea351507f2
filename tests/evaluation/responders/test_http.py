import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx
import pytest

from ponder.evaluation.protocol import Ask, Reply, ResponderError, Subject, Wording
from ponder.evaluation.responders.http import HttpResponder
from ponder.tasks.calculator import CALCULATE, CalculatorTask
from ponder.tasks.problems import held_out
from ponder.tasks.verifiers import verify

PONDER = {"id": "tiny", "ponder": {"trained_budgets": [40, 80]}}
FOREIGN = {"id": "other-8b"}
ASK = Ask("What is 3 + 4?", 11)


class Server:
    """A server with `cards` whose completions are `answer`'s; keeps what it was sent."""

    def __init__(
        self, *cards: dict[str, Any], answer: Callable[[Any], httpx.Response] | None = None
    ) -> None:
        self.cards, self.answer = cards, answer
        self.requests: list[httpx.Request] = []
        self.bodies: list[Any] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json={"data": list(self.cards)})
        assert request.url.path.endswith("/chat/completions")
        self.bodies.append(json.loads(request.content))
        assert self.answer is not None
        return self.answer(self.bodies[-1])

    def meet(self, url: str = "http://server/", **options: Any) -> Subject:
        return self.ask([], url, **options)[0]

    def ask(
        self, asks: list[Ask], url: str = "http://server/", **options: Any
    ) -> tuple[Subject, list[list[Reply]]]:
        async def talk() -> tuple[Subject, list[list[Reply]]]:
            transport = httpx.MockTransport(self.handle)
            responder = HttpResponder(url, transport=transport, **options)
            try:
                subject = await responder.subject()
                return subject, await responder.answer(asks, lambda _: None)
            finally:
                await responder.close()

        return asyncio.run(talk())


def ponder_answer(body: Any) -> httpx.Response:
    budget = body["thinking_token_budget"]
    report = {"thinking_tokens": 21 if budget < 0 else budget, "end_cause": "budget"}
    choice = {"message": {"content": "It is 7."}, "ponder": report}
    return httpx.Response(200, json={"choices": [choice]})


def foreign_answer(content: str, usage: object, finish: str = "stop") -> Callable[[Any], Any]:
    choice = {"message": {"content": content}, "finish_reason": finish}
    return lambda _: httpx.Response(200, json={"choices": [choice], "usage": usage})


def test_a_ponder_server_is_asked_under_every_budget_with_one_seed() -> None:
    server = Server(PONDER, answer=ponder_answer)
    subject, (replies,) = server.ask([Ask("What is 3 + 4?", 11, (0, 32, -1))])
    assert subject.trained_budgets == (40, 80)
    assert set(subject.lacks) == {"efficient", "hinted"}
    assert [reply.thinking_tokens for reply in replies] == [0, 32, 21]
    assert [body.pop("thinking_token_budget") for body in server.bodies] == [0, 32, -1]
    assert server.bodies == 3 * [
        {
            "model": "tiny",
            "messages": [{"role": "user", "content": "What is 3 + 4?"}],
            "temperature": 1.0,
            "seed": 11,
            "ponder": {"holdout": "never"},
        }
    ]


def test_a_password_in_the_url_reaches_no_report() -> None:
    assert Server(FOREIGN).meet("http://me:secret@server").model == "other-8b at http://server/v1"


@pytest.mark.parametrize(
    ("does", "off"),
    [
        ({"budget_hint": "{budget}"}, {"hint": False}),
        ({"budget_argument": "thinking_budget"}, {"hint": False}),
        ({"loop_exit": True}, {"loop_exit": False}),
        ({"budget_hint": "{budget}", "loop_exit": True}, {"hint": False, "loop_exit": False}),
        ({"loop_exit": False}, {}),
        ({"default_deadline_ms": 500}, {"deadline_ms": 86_400_000}),
        ({"default_deadline_ms": None}, {}),
    ],
)
def test_a_server_that_hints_or_closes_by_itself_is_told_not_to(
    does: dict[str, Any], off: dict[str, object]
) -> None:
    card = {"id": "tiny", "ponder": {"trained_budgets": [40], **does}}
    server = Server(card, answer=ponder_answer)
    server.ask([Ask("What is 3 + 4?", 11, (32,))])
    server.ask([Ask("What is 3 + 4?", 11, (32,), "served")])
    cut, served = (body["ponder"] for body in server.bodies)
    assert cut == {"holdout": "never", **off}
    assert served == {"holdout": "never"}


def test_a_foreign_server_is_asked_in_the_common_tongue() -> None:
    usage = {"completion_tokens_details": {"reasoning_tokens": 17}}
    server = Server(FOREIGN, answer=foreign_answer("It is 7.", usage))
    subject, ((reply,),) = server.ask([ASK], max_tokens=500)
    assert reply == Reply("It is 7.", 17, "natural")
    assert set(subject.lacks) == {"efficient", "hinted", "truncated", "served"}
    (body,) = server.bodies
    assert set(body) == {"model", "messages", "temperature", "seed", "max_tokens"}
    assert body["max_tokens"] == 500


def test_what_every_request_says_is_sent_and_what_it_cost_is_read() -> None:
    early = {"early_exit": {"method": "agreement"}}
    report = {"thinking_tokens": 21, "end_cause": "agreement", "answer_tokens": 9,
              "probe_tokens": 12}  # fmt: skip
    said = {
        "choices": [{"message": {"content": "It is 7."}, "ponder": report}],
        "usage": {"completion_tokens": 45},
    }
    server = Server(PONDER, answer=lambda _: httpx.Response(200, json=said))
    ((reply,),) = server.ask([Ask("What is 3 + 4?", 11, hint="served")], ponder=early)[1]
    assert server.bodies[0]["ponder"] == {"holdout": "never", **early}
    assert (reply.completion_tokens, reply.answer_tokens, reply.probe_tokens) == (45, 9, 12)


def test_a_question_is_asked_in_the_wording_that_was_trained() -> None:
    server = Server(PONDER, answer=ponder_answer)
    server.ask([replace(ASK, wording=Wording("Be brief.", " Box the answer."))])
    assert server.bodies[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 3 + 4? Box the answer."},
    ]


def test_calls_are_part_of_an_answer() -> None:
    """A problem's tools are sent, and its judge reads the call that comes back."""
    (problem,) = held_out([CalculatorTask()], 1, "test", seed=0)
    arguments = json.dumps({"expression": problem.evidence})
    called = {"type": "function", "function": {"name": "calculate", "arguments": arguments}}
    choice = {
        "message": {"content": None, "reasoning": "A call.", "tool_calls": [called]},
        "finish_reason": "tool_calls",
    }
    server = Server(FOREIGN, answer=lambda _: httpx.Response(200, json={"choices": [choice]}))
    _, ((reply,),) = server.ask([Ask(problem.question, 11, tools=problem.tools)])
    assert server.bodies[0]["tools"] == [CALCULATE]
    assert verify(problem, reply.text)
    assert reply.end_cause == "natural"


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens_details": None}])
def test_unreported_tokens_are_unknown_and_not_zero(usage: object) -> None:
    server = Server(FOREIGN, answer=foreign_answer("It is 7.", usage))
    ((reply,),) = server.ask([ASK])[1]
    assert reply.thinking_tokens is None


def test_a_thought_left_in_the_answer_is_no_answer() -> None:
    answer = foreign_answer("3 + 4 = 7</think>I give up.", {}, finish="length")
    ((reply,),) = Server(FOREIGN, answer=answer).ask([ASK])[1]
    assert reply == Reply("I give up.", None, "length")


@pytest.mark.parametrize("ask", [Ask("?", 1, (8,)), Ask("?", 1, hint="minimal")])
def test_a_foreign_server_is_not_asked_what_it_would_ignore(ask: Ask) -> None:
    with pytest.raises(ResponderError, match="hint or a budget"):
        Server(FOREIGN, answer=foreign_answer("7", {})).ask([ask])


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://server", "http://server/v1/models"),
        ("http://server/v1/", "http://server/v1/models"),
        ("https://host/api/v1", "https://host/api/v1/models"),
    ],
)
def test_urls_as_the_official_client_takes_them(url: str, asked: str) -> None:
    server = Server(FOREIGN)
    server.meet(url)
    assert str(server.requests[0].url) == asked


def test_the_key_is_sent() -> None:
    server = Server(FOREIGN)
    server.meet(api_key="secret")
    assert server.requests[0].headers["authorization"] == "Bearer secret"


def test_one_of_several_models_is_chosen_by_name() -> None:
    server = Server(FOREIGN, PONDER)
    assert "tiny" in server.meet(model="tiny").model
    with pytest.raises(ResponderError, match=r"several models.*other-8b, tiny"):
        server.meet()
    with pytest.raises(ResponderError, match="no model 'huge'"):
        server.meet(model="huge")


@pytest.mark.parametrize(
    ("message", "finish", "answer"),
    [
        ({"content": "<think>\n5 + 7 = 12.</think> It is 12."}, "stop", " It is 12."),
        ({"content": "5 + 7 = 12.</think> It is"}, "length", " It is"),
        ({"content": "<think>\n5 + 7 = 12. Wait"}, "length", ""),
        ({"content": "5 + 7 = 12. Wait"}, "length", ""),
        ({"content": "It is 12", "reasoning": "5 + 7 = 12."}, "length", "It is 12"),
        ({"content": "It is 12.", "reasoning_content": "5 + 7 = 12."}, "stop", "It is 12."),
    ],
)
def test_a_thought_is_no_answer(message: dict[str, str], finish: str, answer: str) -> None:
    said = {"choices": [{"message": message, "finish_reason": finish}]}
    server = Server(FOREIGN, answer=lambda _: httpx.Response(200, json=said))
    ((reply,),) = server.ask([ASK])[1]
    assert reply.text == answer


@pytest.mark.parametrize(
    ("status", "code"),
    [(500, "no_answer_produced"), (408, "deadline_unreachable"), (504, "deadline_exceeded")],
)
def test_an_empty_answer_is_wrong_and_not_the_end(status: int, code: str) -> None:
    error = {"error": {"code": code, "message": "nothing"}}
    server = Server(PONDER, answer=lambda _: httpx.Response(status, json=error))
    assert server.ask([ASK])[1] == [[Reply("", None, "error")]]


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("ponder.evaluation.responders.http.asyncio.sleep", wait)
    busy = [httpx.Response(503, json={}), httpx.Response(429, json={})]
    server = Server(PONDER, answer=lambda body: busy.pop() if busy else ponder_answer(body))
    assert server.ask([ASK])[1][0][0].text == "It is 7."
    assert waits == [1, 2]
    server.answer = lambda _: httpx.Response(429, json={"error": {"message": "slower"}})
    with pytest.raises(ResponderError, match=r"429.*slower"):
        server.ask([ASK])


def test_a_proxy_that_refuses_with_a_page_of_its_own_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("ponder.evaluation.responders.http.asyncio.sleep", wait)
    page = "<html>503 Service Temporarily Unavailable</html>"
    busy = [
        httpx.Response(503, html=page, headers={"retry-after": retry})
        for retry in ("900", "7", "Wed, 21 Oct 2026 07:28:00 GMT")
    ]
    server = Server(PONDER, answer=lambda body: busy.pop() if busy else ponder_answer(body))
    assert server.ask([ASK])[1][0][0].text == "It is 7."
    assert waits == [1, 7, 60]
    server.answer = lambda _: httpx.Response(502, html=page)
    with pytest.raises(ResponderError, match="502 <html>"):
        server.ask([ASK])
    server.answer = lambda _: httpx.Response(200, html=page)
    with pytest.raises(ResponderError, match="is it an OpenAI-compatible server"):
        server.ask([ASK])


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(401, json={"error": {"message": "who?"}}), "--api-key"),
        (httpx.Response(400, json={"error": "bad"}), "400"),
        (httpx.Response(200, text="<html>"), "OpenAI-compatible"),
    ],
)
def test_a_server_that_fails_says_so(response: httpx.Response, said: str) -> None:
    with pytest.raises(ResponderError, match=f"http://server/v1/chat.*{said}"):
        Server(PONDER, answer=lambda _: response).ask([ASK])


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"code": 502, "message": "the provider is down"}},
        {"choices": []},
        {"choices": None},
        {"choices": [{"finish_reason": "stop"}]},
        {"choices": [{"message": {"content": [{"type": "text", "text": "7"}]}}]},
        ["7"],
    ],
)
def test_what_is_no_completion_is_not_a_wrong_answer(said: object) -> None:
    """Some gateways report an error with status 200."""
    with pytest.raises(ResponderError, match="gave no completion, but"):
        Server(FOREIGN, answer=lambda _: httpx.Response(200, json=said)).ask([ASK])


@pytest.mark.parametrize(
    ("url", "key", "said"),
    [
        ("http://[server", None, "malformed.*HOST:PORT"),
        ("http://server:port", None, "malformed.*HOST:PORT"),
        ("http://server:99999", None, "malformed.*HOST:PORT"),
        ("http://a..b", None, "malformed.*HOST:PORT"),
        ("http://", None, "names no server"),
        ("http://server:0", None, "names no server"),
        ("http://server", "schl\u00fcssel", "printable ASCII"),
        ("http://server", "a\nb", "printable ASCII"),
    ],
)
def test_what_no_request_can_use_is_refused(url: str, key: str | None, said: str) -> None:
    with pytest.raises(ResponderError, match=said):
        HttpResponder(url, api_key=key)


@pytest.mark.parametrize("proxy", ["nonsense://proxy", "socks5://proxy:1"])
def test_a_proxy_that_cannot_be_used_is_said(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(ResponderError, match="NO_PROXY"):
        HttpResponder("http://server")


def test_a_server_without_models_is_said() -> None:
    with pytest.raises(ResponderError, match="serves no model"):
        Server().meet()


def test_a_server_without_a_list_of_models_is_said() -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=["tiny"])

    responder = HttpResponder("http://server", transport=httpx.MockTransport(handle))
    with pytest.raises(ResponderError, match="no list of models"):
        asyncio.run(responder.subject())
