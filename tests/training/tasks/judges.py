"""Verifiers that misbehave on command; the workers of a pool import them by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from ponder.training.tasks.base import Problem
from ponder.training.tasks.verifiers import Verifier

PROBLEM = Problem("test:1", "test", 1, "?", "right", "obeys")


def told(text: str) -> tuple[Problem, str]:
    return PROBLEM, text


def noted(directory: Path, text: str) -> tuple[Problem, str]:
    """An item whose judge first writes its process id into `directory`."""
    return replace(PROBLEM, evidence=str(directory)), text


def obey(problem: Problem, text: str) -> bool:
    """Do what the text says, and judge it right when it says the answer."""
    if problem.evidence is not None:
        Path(problem.evidence, str(os.getpid())).touch()
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
        "die": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "nap": lambda: time.sleep(0.3),
        "print": lambda: print("noise " * 10_000),
    }
    if deed := deeds.get(text):
        deed()
    return text == problem.answer


def stall(problem: Problem) -> None:
    """Loading that takes longer than any answer may."""
    time.sleep(2.5)


def lack(problem: Problem) -> None:
    import_module("no_such_library")


def fill(problem: Problem) -> None:
    """A process has room for one problem."""
    if Path(problem.evidence, str(os.getpid())).exists():
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
    "loads": Verifier(obey, trusted=False, prepare=stall),
    "lacks": Verifier(obey, trusted=False, prepare=lack),
    "fills": Verifier(obey, trusted=False, prepare=fill),
    "here": Verifier(trusted, trusted=True),
}
