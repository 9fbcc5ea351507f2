"""The place of one of a strategy's thoughts: runs the thought and counts its tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ponder.engine.protocol import Engine, Origin
from ponder.thought.answer import AnswerDelta
from ponder.thought.drive import Driver
from ponder.thought.outcome import InterimAnswer, Outcome
from ponder.thought.pace import Pace
from ponder.thought.thought import Event, Thought

COUNTED = (
    *("thinking_tokens", "audited_tokens", "forced_tokens", "answer_tokens", "retry_tokens"),
    *("probe_tokens", "probes", "failed_probes"),
)
"""The counts of an outcome."""
PARTS = ("thinking_tokens", "forced_tokens", "answer_tokens", "retry_tokens", "probe_tokens")
"""Those of them that add up to the completion tokens."""


@dataclass(frozen=True, slots=True)
class Home:
    """The engine of a strategy's thoughts, its `pace`, and the `name` that begins their requests.

    `name` is their affinity too: the thoughts share a prompt, and copies share a thought.
    """

    engine: Engine
    name: str
    pace: Pace
    origin: Origin = field(default_factory=Origin)


class Place:
    """Place `number` of n, where a thought lives until a copy of another replaces it.

    `events` are the events of the thought's whole life, `probed` is its last probe's answer. A copy
    has the events of its original. A token counts in the place where it was sampled, so that all
    places together count every token once.
    """

    def __init__(
        self, number: int, thought: Thought, home: Home, moved: Callable[[Place], None]
    ) -> None:
        self.number = number
        self.thought = thought
        self.events: list[Event] = []
        self.probed: InterimAnswer | None = None
        self.copied = 0
        self._home = home
        self._moved = moved
        self._past: Counter[str] = Counter()  # of thoughts that are gone
        self._before: Counter[str] = Counter()  # of a copy, until it was made
        self.driver = self._driver(draw=0)

    @property
    def outcome(self) -> Outcome:
        return self.thought.outcome

    @property
    def thinks(self) -> bool:
        return self.thought.thinking and self.thought.segment is not None

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(event.text for event in self.events if isinstance(event, AnswerDelta))

    def spent(self) -> Counter[str]:
        """The tokens spent in this place; tokens of undecided meaning count as discarded."""
        return _sum(self._past, self._own())

    async def become(self, other: Place) -> None:
        """Replace the thought by a copy of another place's, whose tokens must all be settled."""
        given_up, self._past = self.driver, self.spent()
        self.thought = other.thought.fork()
        self.events = [*other.events]
        self._before = _counted(self.thought)
        self.copied += 1
        self.driver = self._driver(draw=self.number + 1)
        await given_up.close()

    def _driver(self, draw: int) -> Driver:
        """The driver of the thought; it calls `moved` if the thought is closed while it waits."""
        home, name = self._home, f"{self._home.name}-{self.number}"
        return Driver(
            *(self.thought, home.engine, name, self._hear, home.pace),
            draw=draw,
            moved=lambda: self._moved(self),
            affinity=home.name,
            origin=home.origin,
        )

    def _own(self) -> Counter[str]:
        counts, before = _counted(self.thought), self._before.copy()
        if not self.thought.thinking:  # what came before the thought is the answer's now
            before["answer_tokens"] += before.pop("unsettled", 0)
        counts.subtract(before)
        counts["retry_tokens"] += counts.pop("unsettled")
        return counts

    def _hear(self, event: Event) -> None:
        if isinstance(event, InterimAnswer):
            self.probed = event
        else:
            self.events.append(event)


def _counted(thought: Thought) -> Counter[str]:
    """A thought's counts, and as `unsettled` the sampled tokens that they do not hold yet.

    While it thinks, the whole thought will be counted again from its ids.
    """
    outcome, over = thought.outcome, thought.segment is None
    counts = Counter({name: getattr(outcome, name) for name in COUNTED})
    counts["unsettled"] = 0 if over else thought.spent_tokens - outcome.completion_tokens
    if not over and thought.thinking:
        counts["audited_tokens"] = counts["thinking_tokens"]
    return counts


def _sum(*parts: Counter[str]) -> Counter[str]:
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return total


def total(places: Sequence[Place]) -> Counter[str]:
    """The tokens spent in all places."""
    return _sum(*(place.spent() for place in places))
