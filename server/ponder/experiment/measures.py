"""What is measured of every conversation, in both arms."""

from __future__ import annotations

COSTS = ("tokens", "seconds")
SIGNALS = ("feedback", "verifier", "forced", "empty")
"""Of the quality of answers: of the first two more is better, of the others less."""
