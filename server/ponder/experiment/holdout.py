"""Which conversations go without the saving policy, so that savings can be measured.

A share of the conversations is drawn by a keyed hash: whoever holds the key draws the same ones,
on every replica and after every restart, and nobody without it can choose an arm by choosing a
name. The draw knows nothing of the conversation but its name, which makes the arms comparable.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal

Arm = Literal["policy", "holdout", "shed", "spared"]
ARMS: tuple[Arm, Arm] = ("policy", "holdout")
LOAD_ARMS: tuple[Arm, Arm] = ("shed", "spared")
"""Of the requests that come while budgets are shed. Drawn apart from `ARMS`: each of the two
differences is a mean over both arms of the other, and neither holds the other's effect."""

_DRAWS = 1 << 64


@dataclass(frozen=True, slots=True)
class Assignment:
    """A conversation under a pseudonym that only the key's holder can trace, and its arm.

    None is a request that names no conversation: it is one by itself.
    """

    conversation: str | None
    arm: Arm


@dataclass(frozen=True, slots=True)
class Holdout:
    """Draws a `share` (0 to 1) of all conversations, by HMAC-SHA-256 (RFC 2104) under `key`.

    A conversation that is held out at one share is held out at every larger one. `arms` are those
    of the others and of the share. Draws under other keys are independent.
    """

    share: float
    key: bytes
    arms: tuple[Arm, Arm] = ARMS

    def assign(self, conversation: str) -> Assignment:
        digest = hmac.digest(self.key, conversation.encode(), hashlib.sha256)
        drawn = int.from_bytes(digest[:8], "big") < self.share * _DRAWS
        return Assignment(digest[8:24].hex(), self.arms[drawn])
