"""Verifiers that misbehave on command; the workers of a pool import them by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

from ponder.tasks.problems import Problem
from ponder.tasks.verifiers import Canary, Verifier

PROBLEM = Problem("test:1", "test", 1, "?", "right", "obeys")
KNOWN = (Canary(PROBLEM, "right", True), Canary(PROBLEM, "wrong", False))


def told(text: str, verifier: str = "obeys") -> tuple[Problem, str]:
    return replace(PROBLEM, verifier=verifier), text


def obey(problem: Problem, text: str) -> bool:
    """Do what the text says, and judge it right when it says the answer."""
    deeds: dict[str, Callable[[], object]] = {
        "hang": _loop,
        "hang without an alarm": lambda: (signal.signal(signal.SIGALRM, signal.SIG_IGN), _loop()),
        "hang in C": lambda: 7 ** (10**9),
        "raise": lambda: {}["no such key"],
        "recurse": _recurse,
        "eat": lambda: bytearray(2**40),
        "graze": _graze,
        "exit": lambda: os._exit(3),
        "leave": lambda: (_ for _ in ()).throw(SystemExit(0)).__next__(),
        "nap": lambda: time.sleep(0.3),
        "print": lambda: print("noise " * 10_000),
        "remember": lambda: _REMEMBERED.append(text),
        "hack": lambda: _REMEMBERED.append("hack"),
    }
    if deed := deeds.get(text):
        deed()
    return text == problem.answer or "hack" in _REMEMBERED


_REMEMBERED: list[str] = []


def forget(problem: Problem, text: str) -> bool:
    """Right is what nothing was remembered before."""
    before = list(_REMEMBERED)
    obey(problem, text)
    return before == []


def same(problem: Problem, text: str) -> bool:
    return text == problem.answer


def lie(problem: Problem, text: str) -> bool:
    return True


def run(problem: Problem, text: str) -> bool:
    """What a judge must not do: the answer is run, and not as text that the hook would know."""
    scope: dict[str, object] = {}
    exec(compile(text, __file__, "exec"), scope)
    return scope.get("answer") == problem.answer


def stall(problem: Problem) -> None:
    """Loading that takes longer than any answer may."""
    time.sleep(2.5)


def lack(problem: Problem) -> None:
    import_module("no_such_library")


def fill(problem: Problem) -> None:
    """A process has room for one problem."""
    _REMEMBERED.append(problem.id)
    if len(set(_REMEMBERED)) > 1:
        raise MemoryError


def _loop() -> None:
    while True:
        pass


def _recurse() -> None:
    _recurse()


def _graze() -> None:
    eaten: list[bytearray] = []
    while True:
        eaten.append(bytearray(2**24))


def trusted(problem: Problem, text: str) -> bool:
    return text == str(os.getpid())


VERIFIERS = {
    "obeys": Verifier(obey, trusted=False),
    "shares": Verifier(obey, trusted=False, canaries=KNOWN, shared=8),
    "forgets": Verifier(forget, trusted=False),
    "lies": Verifier(lie, trusted=False, canaries=KNOWN, shared=8),
    "runs": Verifier(run, trusted=False),
    "loads": Verifier(obey, trusted=False, prepare=stall),
    "lacks": Verifier(obey, trusted=False, prepare=lack),
    "fills": Verifier(same, trusted=False, prepare=fill),
    "here": Verifier(trusted, trusted=True),
}
