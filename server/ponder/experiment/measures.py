"""The measures of every conversation, in both arms."""

from __future__ import annotations

COSTS = ("tokens", "seconds")
SIGNALS = ("feedback", "verifier", "forced", "empty")
"""Measures of the quality of answers: more is better of the first two, less of the others."""
