"""The judges of answers, by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from . import gym
from .base import Problem
from .verify import same_number, same_text


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges the text after a thought; `check` is a function at the top of a module.

    A `trusted` one is cheap and safe whatever a model wrote, and runs in the calling process. The
    others hang, raise or eat memory on some texts: a `VerifierPool` runs them in its workers.
    `prepare` loads what `check` needs for a problem: a worker does it before its clock starts.
    """

    check: Callable[[Problem, str], bool]
    trusted: bool
    prepare: Callable[[Problem], object] | None = None


def verify(problem: Problem, text: str) -> bool:
    """Judge in this process, without a limit of time; what cannot be judged is wrong."""
    try:
        return VERIFIERS[problem.verifier].check(problem, text)
    except Exception:  # noqa: BLE001  a scorer may raise anything on a text that it does not expect
        return False


def _number(problem: Problem, text: str) -> bool:
    return same_number(problem.answer, text)


def _exact(problem: Problem, text: str) -> bool:
    return same_text(problem.answer, text)


def _mathematics(problem: Problem, text: str) -> bool:
    """Equal as mathematics, LaTeX or plain; `ValueError` where the reference answer is neither."""
    math_verify = _load_math_verify()
    marked = "$" in problem.answer or r"\boxed" in problem.answer
    reference = math_verify.parse(
        problem.answer if marked else rf"\boxed{{{problem.answer}}}", parsing_timeout=None
    )
    if not reference:
        raise ValueError(f"the reference answer {problem.answer!r} is no mathematics")
    given = math_verify.parse(text, parsing_timeout=None)
    return bool(math_verify.verify(reference, given, timeout_seconds=None))


def _load_math_verify(_: Problem | None = None) -> Any:
    import math_verify

    # Its own time limit raises in threads, so it is off, which would be warned of in every process.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


VERIFIERS: Mapping[str, Verifier] = {
    "number": Verifier(_number, trusted=True),
    "exact": Verifier(_exact, trusted=True),
    "math": Verifier(_mathematics, trusted=False, prepare=_load_math_verify),
    "reasoning-gym": Verifier(gym.judge, trusted=False, prepare=gym.load_dataset),
}
