"""What a request says of its early exit, made into the exit and into the interim answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ponder.engine.protocol import EngineFacts, Vocabulary
from ponder.protocol.chat import ChatRequest
from ponder.protocol.errors import invalid_request
from ponder.protocol.fields import EarlyExit, PonderOptions
from ponder.thought.exits.agreement import Agreement
from ponder.thought.exits.answers import NORMALISERS, agreeing
from ponder.thought.exits.entropy import Entropy
from ponder.thought.exits.exit import Exit, Found
from ponder.thought.outcome import InterimAnswer
from ponder.thought.thought import Event

ALTERNATIVES = 20
"""Log probabilities of which an entropy is made: as many as vLLM tells by default."""


def early_exit(early: EarlyExit, options: PonderOptions, vocabulary: Vocabulary) -> Exit:
    """The exit of one thought. It makes no probe below the least thought that was asked for."""
    prefix = None if early.prefix is None else tuple(vocabulary.encode(early.prefix))
    if early.method == "entropy":
        return Entropy(
            interval=early.interval,
            window=early.window,
            alpha=early.alpha,
            delta=early.delta,
            alternatives=ALTERNATIVES,
            prefix=prefix,
            after=options.min_thinking_tokens,
        )
    return Agreement(
        interval=early.interval,
        window=early.window,
        max_tokens=early.max_probe_tokens,
        normalise=NORMALISERS[early.answer],
        prefix=prefix,
        after=options.min_thinking_tokens,
    )


def check_early_exit(request: ChatRequest, facts: EngineFacts) -> None:
    """Raise 400 for what this engine or this reply cannot give."""
    early = request.ponder.early_exit
    if early is None:
        return
    most = facts.max_logprobs
    if early.method == "entropy" and most is not None and most < ALTERNATIVES:
        raise invalid_request(
            f"`early_exit`: entropy needs {ALTERNATIVES} log probabilities of a token, and this "
            f"server's engine tells {most}: leave it out, or use agreement",
            "early_exit",
        )
    if early.interim and not request.stream:
        raise invalid_request(
            "`early_exit` interim shows answers while a thought goes on: stream the reply, or "
            "leave it out",
            "early_exit",
        )
    if early.interim and not request.shows_interim:
        raise invalid_request(
            "`early_exit` interim: this endpoint's streams have no event for interim answers: "
            "leave it out, or ask /v1/chat/completions",
            "early_exit",
        )


def interim_answers(early: EarlyExit, emit: Callable[[Event], None]) -> Callable[[Event], None]:
    """What emits a choice's events: its interim answers, if they are asked for, with how many of
    the last ones agree.
    """
    answers: list[str] = []

    def tell(event: Event) -> None:
        if isinstance(event, InterimAnswer):
            if not early.interim:
                return
            found = Found(event.thinking_tokens, event.text, event.whole)
            answers.append(NORMALISERS[early.answer](found))
            event = replace(event, agreement=agreeing(answers))
        emit(event)

    return tell
