"""Draws the conversations that go without the saving policy, so that savings can be measured.

A keyed hash draws a share of the conversations: servers with the same key draw the same ones, on
every replica and after every restart, and a client without the key cannot choose its arm by its
name. The draw depends only on the conversation's name, which makes the arms comparable.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Literal

Arm = Literal["policy", "holdout", "shed", "spared"]
ARMS: tuple[Arm, Arm] = ("policy", "holdout")
LOAD_ARMS: tuple[Arm, Arm] = ("shed", "spared")
"""Arms of the requests that come while budgets are shed. Drawn independently of `ARMS`: each of the
two differences is a mean over both arms of the other, and neither contains the other's effect."""

_DRAWS = 1 << 64


@dataclass(frozen=True, slots=True)
class Assignment:
    """A conversation's pseudonym, which only the key's holder can trace, and its arm.

    `conversation` is None for a request that names none: it counts as one by itself.
    """

    conversation: str | None
    arm: Arm


@dataclass(frozen=True, slots=True)
class Holdout:
    """Draws a `share` (0 to 1) of all conversations, by HMAC-SHA-256 (RFC 2104) under `key`.

    A conversation that is held out at one share is held out at every larger one. `arms` are the arm
    of all others and the arm of the share. Draws under different keys are independent.
    """

    share: float
    key: bytes
    arms: tuple[Arm, Arm] = ARMS

    def assign(self, conversation: str) -> Assignment:
        digest = hmac.digest(self.key, conversation.encode(), hashlib.sha256)
        drawn = int.from_bytes(digest[:8], "big") < self.share * _DRAWS
        return Assignment(digest[8:24].hex(), self.arms[drawn])
