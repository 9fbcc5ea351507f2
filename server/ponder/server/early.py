"""Makes a request's `early_exit` into an exit of its thoughts and into interim answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ponder.checkpoint.checkpoint import Checkpoint
from ponder.engine.protocol import EngineFacts, Vocabulary
from ponder.protocol.chat import ChatRequest
from ponder.protocol.errors import invalid_request
from ponder.protocol.fields import EarlyExit, PonderOptions
from ponder.protocol.response import ShadowReport
from ponder.thought.answer import AnswerDelta
from ponder.thought.exits.agreement import Agreement
from ponder.thought.exits.answers import NORMALISERS, agreeing
from ponder.thought.exits.entropy import Entropy
from ponder.thought.exits.exit import Exit, Found
from ponder.thought.exits.shadow import Shadow
from ponder.thought.outcome import InterimAnswer
from ponder.thought.thought import Event

ALTERNATIVES = 20
"""Log probabilities from which an entropy is computed: as many as vLLM gives by default."""


def early_exit(
    early: EarlyExit, options: PonderOptions, vocabulary: Vocabulary
) -> Agreement | Entropy:
    """The exit of one thought. It makes no probe before `min_thinking_tokens`."""
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


def early_exits(facts: EngineFacts) -> list[str]:
    """The methods that this engine can probe for."""
    most = facts.max_logprobs
    entropy = ["entropy"] if most is None or most >= ALTERNATIVES else []
    return ["agreement", *entropy]


def check_early_exit(request: ChatRequest, facts: EngineFacts) -> None:
    """Raise 400 for what this engine or this reply cannot give."""
    early = request.ponder.early_exit
    if early is None:
        return
    if early.method not in early_exits(facts):
        raise invalid_request(
            f"`early_exit`: entropy needs {ALTERNATIVES} log probabilities of a token, and this "
            f"server's engine tells {facts.max_logprobs}: leave it out, or use agreement",
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


class EarlyWatch:
    """The early exit of one choice, its interim answers, and the report of a `shadowed` exit."""

    def __init__(
        self, options: PonderOptions, checkpoint: Checkpoint, *, shadowed: bool = False
    ) -> None:
        assert options.early_exit is not None and checkpoint.compiled is not None
        self._early = early = options.early_exit
        self._normalise = NORMALISERS[early.answer]
        self._answers: list[str] = []
        self._said: list[str] = []
        own = checkpoint.compiled.close.prefix[1]
        self._prefix = own if early.prefix is None else early.prefix
        closing = early_exit(early, options, checkpoint.tokenizer)
        self._shadow: Shadow | None = None
        if shadowed:
            self._shadow = Shadow(closing, early.max_probe_tokens, closing.prefix)
        self.exit: Exit = self._shadow or closing

    def hearing(self, emit: Callable[[Event], None]) -> Callable[[Event], None]:
        """Wrap `emit`: drop interim answers that nobody wants, give the others their agreement."""
        interim, shadowed = self._early.interim, self._shadow is not None

        def tell(event: Event) -> None:
            if isinstance(event, InterimAnswer):
                if not interim:
                    return
                event = replace(event, agreement=self._agreement(event))
            elif shadowed and isinstance(event, AnswerDelta):
                self._said.append(event.text)
            emit(event)

        return tell

    def report(self) -> ShadowReport | None:
        """Where and why a shadowed exit would have closed the thought; None if it would not."""
        shadow = self._shadow
        if shadow is None or shadow.cause is None:
            return None
        agrees = None
        if shadow.answer is not None:
            text = f"{self._prefix}{shadow.answer.text}"
            then, now = map(
                self._normalise, (replace(shadow.answer, text=text), Found(0, "".join(self._said)))
            )
            agrees = then == now if now else None
        return ShadowReport(end_cause=shadow.cause, thinking_tokens=shadow.tokens, agrees=agrees)

    def _agreement(self, answer: InterimAnswer) -> int:
        """How many of the last interim answers are equal."""
        found = Found(answer.thinking_tokens, answer.text, answer.whole)
        self._answers.append(self._normalise(found))
        return agreeing(self._answers)
