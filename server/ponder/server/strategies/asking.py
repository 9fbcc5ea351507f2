"""Checks what a request asks of a strategy."""

from __future__ import annotations

from collections.abc import Iterator

from ponder.engine.protocol import Sampling
from ponder.protocol.chat import ChatRequest
from ponder.protocol.errors import invalid_request
from ponder.protocol.fields import StrategyAsk
from ponder.server.strategies.table import strategies


def check_strategy(request: ChatRequest, sampling: Sampling, *, verifier: bool) -> None:
    """Raise 400 for fields that a strategy excludes, and for one that needs a `verifier`."""
    asked = request.ponder.strategy
    if asked is None:
        return
    if asked.method not in strategies(verifier=verifier):
        raise invalid_request(
            f"`strategy` {asked.method} needs a verifier, and this server has none: ask for "
            "self_consistency, or have its operator name one (--verifier)",
            "strategy",
        )
    for field, problem in _beside(request, asked, sampling):
        raise invalid_request(f"`strategy`: {problem}", field)


def _beside(
    request: ChatRequest, asked: StrategyAsk, sampling: Sampling
) -> Iterator[tuple[str, str]]:
    """(field, remedy) for each field that makes no sense beside the strategy."""
    if request.n > 1:
        yield "n", "its thoughts give one answer: leave n out"
    if len(request.prompts) > 1:
        yield "prompt", "it answers one `prompt`: send each in a request of its own"
    if request.tools is not None and request.tools.choice != "none":
        yield "tools", "calls have no votes: leave `tools` out, or set `tool_choice` to none"
    if request.grammar is not None and asked.method == "particles":
        yield "format", "probes follow no format: leave `format` out, or ask for another method"
    if request.logprobs is not None:
        yield "logprobs", "it gives no log probabilities: leave them out"
    if request.ponder.early_exit is not None:
        yield "early_exit", "leave `early_exit` out; method particles probes by itself"
    if request.ponder.grace_tokens:
        yield "grace_tokens", "a share of a budget has no grace: leave `grace_tokens` out"
    if sampling.temperature == 0 or sampling.top_k == 1:
        yield (
            "temperature",
            f"all {asked.n} thoughts are the same where the likeliest token is taken: raise "
            "temperature and top_k, or leave it out",
        )
