"""Finds what each server adds around a thought, and proves that budgets fire exactly."""

from __future__ import annotations

import http.client
import json
import re
from typing import Any

from .client import Reply
from .errors import BenchError
from .scenario import ANSWER_TOKENS, Lengths, Point, Workload, questions
from .server import Server

_PROBES = 4
_TIMEOUT_SECONDS = 120.0
_USAGE = re.compile(rb'"completion_tokens": ?(\d+)')


def lengths_of(server: Server, workload: Workload, budget: int) -> Lengths:
    """Ask once with guesses, then show that the corrected request does exactly what it should.

    vLLM counts prompt tokens after the start marker toward the budget; Ponder does not, but
    appends its close text where vLLM forces the bare end marker.
    """
    point = Point(1, False, budget)
    guess = Lengths(closing=1, offset=0)
    thinking, closing = _split(server, workload, point, questions(point)[0], guess)
    lengths = Lengths(closing=closing, offset=budget - thinking)
    for question in questions(point)[:_PROBES]:
        found = _split(server, workload, point, question, lengths)
        if found != (budget, lengths.closing):
            raise BenchError(
                f"{server.name}: a budget of {budget} gave {found[0]} thinking tokens and "
                f"{found[1]} closing ones, expected {budget} and {lengths.closing}"
            )
    return lengths


def _split(
    server: Server, workload: Workload, point: Point, question: str, lengths: Lengths
) -> tuple[int, int]:
    """Tokens of the thought and of its closing, as this server shows them."""
    body = workload.body(server.name, point, question, lengths)
    if server.name != "vllm":
        body["max_tokens"] += ANSWER_TOKENS  # the reserve is not what is probed
        report = _ask(server, body)["choices"][0]["ponder"]
        if report["end_cause"] != "budget":
            raise BenchError(f"the budget did not fire: {report}")
        return report["thinking_tokens"], report["forced_tokens"]
    token_ids = _ask(server, {**body, "return_token_ids": True})["choices"][0]["token_ids"]
    if workload.end_id not in token_ids:
        raise BenchError(f"the native budget of {point.budget} did not fire")
    return token_ids.index(workload.end_id), 1


def _ask(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"}
        )
        response = connection.getresponse()
        raw = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise BenchError(f"{server.name} refused the probe: {raw.decode(errors='replace')}")
    answer: dict[str, Any] = json.loads(raw)
    return answer


class Checker:
    """Looks at every reply of a point; counts those whose thought ended by itself."""

    def __init__(self, server: str, point: Point, lengths: Lengths) -> None:
        self._expected = Workload.completion_tokens(point, lengths)
        self._needles: list[bytes] = []
        if server != "vllm" and point.budget is not None:
            self._needles = [
                b'"end_cause":"budget"',
                b'"thinking_tokens":%d,' % point.budget,
                b'"answer_tokens":%d,' % ANSWER_TOKENS,
            ]
        self.natural = 0
        self.replies = 0

    def __call__(self, reply: Reply) -> None:
        found = _USAGE.findall(reply.tail)
        if not found or int(found[-1]) != self._expected:
            self._fail(f"expected {self._expected} completion tokens, got {found[-1:]}", reply)
        for needle in self._needles:
            if needle not in reply.tail:
                self._fail(f"expected {needle.decode()}", reply)
        self.replies += 1
        self.natural += b'"end_cause":"natural"' in reply.tail

    @staticmethod
    def _fail(what: str, reply: Reply) -> None:
        raise BenchError(f"{what} in: …{reply.tail[-1500:].decode(errors='replace')}")
