"""Checks what a request asks of log probabilities."""

from __future__ import annotations

from collections.abc import Sequence

from ponder.checkpoint.chat import Prompt
from ponder.engine.protocol import EngineFacts
from ponder.protocol.chat import ChatRequest
from ponder.protocol.errors import invalid_request

MOST_LOGPROBS = 4_000_000
"""Log probabilities that one reply may hold: some 70 bytes of text each."""


def check_logprobs(request: ChatRequest, prompts: Sequence[Prompt], facts: EngineFacts) -> None:
    """Raise 400 for more than the engine tells, or than there is memory for."""
    if request.logprobs is None:
        return
    most = facts.max_logprobs
    if most is not None and request.logprobs > most:
        raise invalid_request(
            f"`alternatives` is {request.logprobs}, and this server's engine tells at most {most} "
            f"beside a token: lower it",
            "alternatives",
        )
    if request.echo and not facts.scores_prompts:
        raise invalid_request(
            "this server's engine cannot score prompts: leave echo or `alternatives` out", "echo"
        )
    each = request.choices * (1 + request.logprobs)
    plans = [prompt.plan for prompt in prompts]
    tokens = max(min(plan.allowance, plan.max_answer or plan.allowance) for plan in plans)
    if request.echo:
        tokens += max(len(prompt.token_ids) for prompt in prompts)
    if each * tokens > MOST_LOGPROBS:
        raise invalid_request(
            f"{request.choices} choices of up to {tokens} tokens with {request.logprobs} "
            f"alternatives each may have {each * tokens} log probabilities, and a reply holds "
            f"at most {MOST_LOGPROBS}: set `max_completion_tokens` to {MOST_LOGPROBS // each} "
            f"or less, or lower n or `alternatives`",
            "logprobs",
        )
