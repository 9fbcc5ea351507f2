"""Why thoughts end: the table that wire, metrics, meter, page, dashboard and docs read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Cause = Literal[
    "natural",
    "budget",
    "length",
    "loop",
    "deadline",
    "finish_now",
    "agreement",
    "entropy",
    "disabled",
    "unread",
]


@dataclass(frozen=True, slots=True)
class CauseInfo:
    """What a cause means.

    `brief` and `means` continue "the thought …": `brief` fits a line, `means` explains the cause to
    a reader who does not know its name. `ended_by` is None where there was no thought.
    """

    brief: str
    means: str
    ended_by: Literal["model", "server"] | None


CAUSES: Mapping[str, CauseInfo] = {
    "natural": CauseInfo("ended by itself", "ended by itself", "model"),
    "budget": CauseInfo("closed at its budget", "was closed at its budget", "server"),
    "length": CauseInfo(
        "closed for want of room",
        "was closed because `max_completion_tokens` or the context was the tighter limit",
        "server",
    ),
    "loop": CauseInfo(
        "closed because it repeated itself", "was closed because it repeated itself", "server"
    ),
    "deadline": CauseInfo(
        "closed to answer in time", "was closed so that its answer comes in time", "server"
    ),
    "finish_now": CauseInfo(
        "closed when asked to", "was closed because somebody asked for the answer", "server"
    ),
    "agreement": CauseInfo(
        "closed when its probes agreed",
        "was closed because its probes agreed on the answer",
        "server",
    ),
    "entropy": CauseInfo(
        "closed when its answer was certain",
        "was closed because the entropy of its answer no longer moved",
        "server",
    ),
    "disabled": CauseInfo(
        "not asked for", "was not asked for, or a limit left no room for it", None
    ),
    "unread": CauseInfo(
        "not understood",
        "was not understood: Ponder does not know how this model writes one, and the answer may "
        "hold it",
        None,
    ),
}
