"""A worker's side of judging: it loads what verifiers need and has answers judged in cells.

It never reads an answer itself. Those of one job share a cell as long as each gets its verdict and
the canaries, judged after them, get theirs.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from ponder.cage import cell
from ponder.cage.child import limit_memory

from .problems import Problem
from .verifiers import Verifier

# What a verifier needs is loaded outside the time limit of an answer, but not for ever.
LOADING_LIMIT_S = 120.0

Item = tuple[Problem, str]
Ruling = tuple[bool, str | None, str]
"""(right, why it could not be judged, details)"""

_RIGHT, _WRONG, _MEMORY, _RAISED = b"right", b"wrong", b"memory", b"raised "
_DETAIL = 500  # characters


class MistakenJudge(Exception):
    """A verifier is wrong about its canaries, with no answer before them."""


def serve(connection: Connection, time_limit_s: float, memory_limit_mb: int) -> None:
    """A worker's life: judge the jobs (a verifier and its items) that arrive, until the end.

    It says first which layers of the cage hold here, then per job `{"rulings": […]}` in its order,
    or what went wrong with the judge: `{"loading": …}` or `{"mistaken": …}`.
    """
    limit_memory(memory_limit_mb)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    cell.leave_network()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process
    _say(connection, {"filtered": cell.filtered()})
    nowhere = os.open(os.devnull, os.O_WRONLY)  # what verifiers print is nobody's business
    for output in (1, 2):
        os.dup2(nowhere, output)
    os.close(nowhere)
    warm: set[Callable[[Problem, str], bool]] = set()
    while True:
        try:
            # The trainer's word, and never a cell's.
            verifier, items = pickle.loads(connection.recv_bytes())
            _load(verifier, items, warm)
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001  it is told where it can be mended
            _say(connection, {"loading": repr(error)[:_DETAIL]})
            continue
        try:
            _say(connection, {"rulings": _judge(verifier, items, time_limit_s, connection)})
        except MistakenJudge as error:
            _say(connection, {"mistaken": str(error)})


def _say(connection: Connection, what: dict[str, Any]) -> None:
    connection.send_bytes(json.dumps(what).encode())


def _load(
    verifier: Verifier, items: Sequence[Item], warm: set[Callable[[Problem, str], bool]]
) -> None:
    """What judging needs, down to what is loaded at first use: cells load no code well."""
    signal.setitimer(signal.ITIMER_REAL, LOADING_LIMIT_S)
    try:
        if verifier.prepare is not None:
            for problem, _ in items:
                verifier.prepare(problem)
        if verifier.check not in warm:
            for canary in verifier.canaries[:2]:
                if verifier.prepare is not None:
                    verifier.prepare(canary.problem)
                verifier.check(canary.problem, canary.text)
            warm.add(verifier.check)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _judge(
    verifier: Verifier, items: Sequence[Item], time_limit_s: float, connection: Connection
) -> list[Ruling]:
    """A ruling per item. An answer that breaks its cell is alone in the wrong.

    Those that shared a cell that broke, or whose canaries died, are judged anew: all but the one
    that broke it, or each by itself.
    """
    canaries = [(canary.problem, canary.text) for canary in verifier.canaries]
    known = [_RIGHT if canary.correct else _WRONG for canary in verifier.canaries]

    def judged(part: list[int]) -> cell.Ended:
        batch = [*(items[index] for index in part), *canaries]
        return cell.run(lambda: _results(verifier, batch), len(batch), time_limit_s, connection)

    rulings: dict[int, Ruling] = {}
    parts = deque([list(range(len(items)))])
    while parts:
        part = parts.popleft()
        ended = judged(part)
        if breach := _breach(ended, len(part)):
            place, ruling = breach
            rulings[part.pop(place)] = ruling
            if part:
                parts.appendleft(part)
        elif ended.results[len(part) :] == known:
            rulings |= {index: _ruling(r) for index, r in zip(part, ended.results, strict=False)}
        elif len(part) > 1:
            parts.extend([index] for index in part)
        elif (alone := judged([])).results == known:
            rulings[part[0]] = False, "canary", "its judge was wrong about known answers afterwards"
        else:
            raise MistakenJudge(f"{alone.results} of {known}, ended with {alone.status}")
    return [rulings[index] for index in range(len(items))]


def _breach(ended: cell.Ended, wanted: int) -> tuple[int, Ruling] | None:
    """The place of the answer that ended the cell, if one did, and the ruling on it."""
    results = ended.results[:wanted]
    if _MEMORY in results:
        return results.index(_MEMORY), (False, "memory", "")
    if len(results) == wanted:
        return None
    if ended.overdue:
        return len(results), (False, "time", "")
    return len(results), (False, "death", f"its process ended with {ended.status}")


def _ruling(result: bytes) -> Ruling:
    if result in (_RIGHT, _WRONG):
        return result == _RIGHT, None, ""
    return False, "error", result.removeprefix(_RAISED).decode(errors="replace")


def _results(verifier: Verifier, batch: Sequence[Item]) -> Iterator[bytes]:
    """In the cell: a result per item, up to one for which the memory is too small."""
    for problem, text in batch:
        try:
            result = _RIGHT if verifier.check(problem, text) else _WRONG
        except MemoryError:
            yield _MEMORY
            return
        except Exception as error:  # noqa: BLE001  whatever a verifier raises, the run goes on
            result = _RAISED + repr(error)[:_DETAIL].encode(errors="replace")
        yield result
