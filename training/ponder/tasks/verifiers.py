"""The judges of answers, by name."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from . import gym, scorers
from .arithmetic import symbolic
from .calculator import same_value
from .problems import Problem
from .verify import GROUPED, final_answer, same_number, same_text

_DOLLAR = re.compile(r"(?<!\\)\$")  # of mathematics, not of a currency
_MINUS = re.compile("\u2212|(?<!\\d)\u2013(?=[\\d.\\\\])")  # typesetters'; 3–5 is a range
_TAG = re.compile("</?answer>")  # math-verify finds no number that touches one

# Forking a process that has sympy loaded costs some 10 ms, judging an answer 1 ms.
_SHARED = 32


@dataclass(frozen=True, slots=True)
class Canary:
    """A text with a known verdict; a judge that decides otherwise is broken."""

    problem: Problem
    text: str
    correct: bool


@dataclass(frozen=True, slots=True)
class Verifier:
    """Judges the text after a thought; `check` is a function at the top of a module.

    A `trusted` verifier is cheap and safe whatever a model wrote, and runs in the calling process.
    Others hang, raise or eat memory on some texts: a `VerifierPool` runs them in its workers.
    `prepare` loads all that `check` needs for a problem; a worker calls it before its clock starts.
    The `canaries` are judged after the answers, the first two also while loading, so that a `check`
    that caches results needs more than two. At most `shared` answers share a process: keep it at 1
    unless `check` never runs what it reads, so that one answer cannot affect the next.
    """

    check: Callable[[Problem, str], bool]
    trusted: bool
    prepare: Callable[[Problem], object] | None = None
    canaries: tuple[Canary, ...] = ()
    shared: int = 1


def find(name: str, table: Mapping[str, Verifier] | None = None) -> Verifier:
    """The verifier of a name in the table, or one's own as `package.module:name`.

    One's own is a function of a `Problem` and the text after the thought, at the top of its module,
    or a `Verifier`. A function judges in a worker's cell, one process per answer. Raises
    `ValueError` that lists the names in the table.
    """
    table = VERIFIERS if table is None else table
    if name in table:
        return table[name]
    return _own(name)


@cache
def _own(name: str) -> Verifier:
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise ValueError(
            f"no verifier {name!r}: name one of {', '.join(VERIFIERS)}, or your own as "
            "package.module:name"
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"the verifier {name} cannot be imported: {error}; PYTHONPATH has to name the folder "
            "that its module lies in"
        ) from error
    if isinstance(found, Verifier):
        return found
    if getattr(found, "__qualname__", None) != attribute or isinstance(found, type):
        raise ValueError(
            f"the verifier {name} must be a function at the top of its module, or a "
            "ponder.tasks.verifiers.Verifier"
        )
    return Verifier(found, trusted=False)


def verify(problem: Problem, text: str) -> bool:
    """Judge in this process, without a time limit; an answer that cannot be judged is wrong."""
    try:
        return find(problem.verifier).check(problem, text)
    except Exception:  # noqa: BLE001  a scorer may raise anything on a text that it does not expect
        return False


def _number(problem: Problem, text: str) -> bool:
    return same_number(problem.answer, text)


def _call(problem: Problem, text: str) -> bool:
    return same_value(problem.answer, text)


def _expression(problem: Problem, text: str) -> bool:
    """An expression of the numbers in question, each once, that makes the target."""
    try:
        return scorers.target(final_answer(text), problem.evidence)
    except (ValueError, ZeroDivisionError, RecursionError):
        return False  # unreadable text makes no number


def _exact(problem: Problem, text: str) -> bool:
    return same_text(problem.answer, text)


def _mathematics(problem: Problem, text: str) -> bool:
    """Equal as mathematics, in LaTeX or plain; `ValueError` for an unreadable reference answer."""
    math_verify = _load_math_verify()
    answer, text = (_MINUS.sub("-", GROUPED.sub("", said)) for said in (problem.answer, text))
    text = _TAG.sub(r" \g<0> ", text)
    marked = _DOLLAR.search(answer) or r"\boxed" in answer
    with _read_not_run():
        reference = math_verify.parse(
            answer if marked else rf"\boxed{{{answer}}}", parsing_timeout=None
        )
        if not reference:
            raise ValueError(f"the reference answer {problem.answer!r} is no mathematics")
        given = math_verify.parse(text, parsing_timeout=None)
        return bool(math_verify.verify(reference, given, timeout_seconds=None))


@contextmanager
def _read_not_run() -> Iterator[None]:
    """Replace sympy's parser, which runs every text as Python, even a number."""
    modules = [import_module(name) for name in ("sympy.parsing.sympy_parser", "math_verify.parser")]
    runs = [module.parse_expr for module in modules]
    try:
        for module in modules:
            module.parse_expr = lambda text, *_, **__: symbolic(text)  # type: ignore[attr-defined]
        yield
    finally:
        for module, run in zip(modules, runs, strict=True):
            module.parse_expr = run  # type: ignore[attr-defined]


def _load_math_verify(_: Problem | None = None) -> Any:
    import math_verify

    # Its own time limit raises in threads, so it is off; it would warn of that in every process.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return math_verify


def _known(problem: Problem, right: str, wrong: str) -> tuple[Canary, ...]:
    return Canary(problem, right, True), Canary(problem, wrong, False)


def _mathematical(answer: str) -> Problem:
    return Problem("canary:1", "canary", 0, "?", answer, "math")


VERIFIERS: Mapping[str, Verifier] = {
    "number": Verifier(_number, trusted=True),
    "exact": Verifier(_exact, trusted=True),
    "expression": Verifier(_expression, trusted=True),
    "call": Verifier(_call, trusted=True),
    "math": Verifier(
        _mathematics,
        trusted=False,
        prepare=_load_math_verify,
        canaries=(
            *_known(_mathematical("0.5"), r"It is $\frac{2}{4}$.", "The answer is 3/4."),
            *_known(_mathematical(r"\frac{7}{3}"), "14/6", r"\boxed{2.5}"),
        ),
        shared=_SHARED,
    ),
    "reasoning-gym": Verifier(
        gym.judge,
        trusted=False,
        prepare=gym.load_dataset,
        canaries=_known(
            Problem(
                *("canary:2", f"{gym.PREFIX}chain_sum", 0, "?", "12", "reasoning-gym"),
                evidence={"question": "?", "answer": "12", "metadata": {}},
            ),
            "The answer is 12.",
            "The answer is 13.",
        ),
        shared=_SHARED,
    ),
}
