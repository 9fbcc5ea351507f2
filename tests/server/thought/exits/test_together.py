"""Several exits watch one thought: it is cut where the first of them alone would cut it.

The clock of these lives counts tokens, a button is pressed and probes answer after so many of them,
so that each exit's own cut is known: it is that of a life which has this exit alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hypothesis import event, given, settings
from hypothesis import strategies as st

from ponder.engine.protocol import Chunk, Sampling, TokenLogprob
from ponder.thought.exits.agreement import Agreement
from ponder.thought.exits.deadline import Deadline
from ponder.thought.exits.entropy import Entropy
from ponder.thought.exits.exit import Exit
from ponder.thought.exits.finish_now import FinishNow
from ponder.thought.exits.loop import Loop
from ponder.thought.outcome import Outcome
from ponder.thought.pace import Pace
from ponder.thought.probes import ProbeRequest
from ponder.thought.segment import AnswerRules
from ponder.thought.thought import Thought
from server.thought.helpers import EOS, PROMPT, SINGLE, compiled, plan

GAP = 0.25  # seconds from one token to the next
UNBOUNDED = 10**6  # tokens
ANSWER = [*b"42", EOS]


@dataclass(frozen=True)
class Setting:
    """A model that thinks `natural` tokens, the last of them over and over, and who watches it."""

    natural: int
    varied: int
    budget: int
    due: float
    pressed: int
    interval: int
    latency: int
    answers: tuple[int, ...]
    probing: str

    def thinks(self, place: int) -> int:
        """The token at a place of the thought."""
        if place < self.varied:
            return 0x61 + (place * place + place // 7) % 23
        return b"so it is "[(place - self.varied) % 9]

    def exits(self) -> Mapping[str, Callable[[], Exit]]:
        """What closes the thought, by its cause, besides its budget."""
        probing: Callable[[], Exit] = (
            (lambda: Agreement(interval=self.interval, window=2, max_tokens=4))
            if self.probing == "agreement"
            else (
                lambda: Entropy(
                    interval=self.interval, window=2, alpha=0.2, delta=0.05, alternatives=2
                )
            )
        )
        return {
            "finish_now": FinishNow,
            "loop": Loop,
            "deadline": lambda: Deadline(self.due, 3, Pace()),
            self.probing: probing,
        }


rarely = st.one_of(st.just(UNBOUNDED), st.just(UNBOUNDED), st.integers(1, 700))
"""When something happens, in tokens, that does not most of the time."""

settings_of = st.builds(
    Setting,
    natural=st.integers(1, 700).map(lambda n: 701 - n),
    varied=st.integers(0, 400),
    budget=rarely,
    due=rarely.map(lambda n: n * GAP),
    pressed=rarely,
    interval=st.integers(32, 200),
    latency=st.integers(0, 60),
    answers=st.lists(st.integers(0, 2), min_size=1, max_size=8).map(tuple),
    probing=st.sampled_from(["agreement", "entropy"]),
)


def live(setting: Setting, exits: Sequence[Exit], budget: int) -> Outcome:
    """A life in which every token takes `GAP`, and a probe so many tokens as its latency says."""
    thought = Thought(
        SINGLE,
        compiled(),
        prompt=PROMPT,
        plan=plan(budget, allowance=2 * UNBOUNDED),
        sampling=Sampling(max_tokens=1),
        rules=AnswerRules(),
        exits=exits,
    )
    buttons = [exit for exit in exits if isinstance(exit, FinishNow)]
    asked: dict[ProbeRequest, int] = {}
    answers = iter(itertools.chain(setting.answers, itertools.repeat(setting.answers[-1])))
    thought.start(0.0)
    for place in itertools.count():
        now = place * GAP
        while thought.wake_at <= now:
            thought.tick(thought.wake_at)
        if place == setting.pressed:
            for button in buttons:
                button.asked = True
            thought.tick(now)
        for probe in thought.probes:
            asked.setdefault(probe, place)
        for probe in [one for one in thought.probes if asked[one] + setting.latency <= place]:
            thought.feed_probe(probe, answer(probe, next(answers)), now)
        segment = thought.segment
        assert segment is not None
        if segment.number:
            break
        ended = place == setting.natural
        thought.feed(Chunk([SINGLE.END_THINK if ended else setting.thinks(place)]), now)
        if ended:
            break
    while (segment := thought.segment) is not None:
        thought.feed(Chunk(ANSWER, "stop"), now)
    return thought.outcome


def answer(probe: ProbeRequest, number: int) -> Chunk:
    """A probe's answer by its number, and how likely its first token was."""
    ids = [ord("0") + number, EOS]
    if not probe.sampling.logprobs:
        return Chunk(ids, "stop")
    told = TokenLogprob(ids[0], -0.1 - number, ((ids[0], -0.1 - number), (ids[1], -3.0)))
    return Chunk(ids[:1], "length", [told])


@settings(max_examples=150, deadline=None)
@given(settings_of, st.permutations(range(4)))
def test_the_earliest_cause_wins_and_is_named(setting: Setting, order: list[int]) -> None:
    kinds = list(setting.exits().items())
    alone = {cause: live(setting, [make()], UNBOUNDED) for cause, make in kinds}
    alone["budget"] = live(setting, [], setting.budget)
    together = live(setting, [kinds[at][1]() for at in order], setting.budget)
    first = min(outcome.thinking_tokens for outcome in alone.values())
    assert together.thinking_tokens == first
    causes = {outcome.end_cause for outcome in alone.values() if outcome.thinking_tokens == first}
    assert together.end_cause in causes
    assert (together.end_cause == "natural") == (causes == {"natural"})
    event(together.end_cause)
    assert together.completion_tokens == (
        together.thinking_tokens
        + together.forced_tokens
        + together.answer_tokens
        + together.retry_tokens
        + together.probe_tokens
    )
