"""A worker's side of judging: it loads the verifiers' modules and has answers judged in cells.

The worker itself never reads an answer. The answers of one job share a cell as long as the cell
gives every answer a verdict, and the right verdicts on the canaries, which it judges after them.
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

from ponder.cage import cell, landlock
from ponder.cage.child import limit_memory

from .problems import Problem
from .verifiers import Verifier

# Loading a verifier does not count in an answer's time limit; it has a limit of its own.
LOADING_LIMIT_S = 120.0

Item = tuple[Problem, str]
Ruling = tuple[bool, str | None, str]
"""(right, why it could not be judged, details)"""

_RIGHT, _WRONG, _MEMORY, _RAISED = b"right", b"wrong", b"memory", b"raised "
_DETAIL = 500  # characters


class MistakenJudge(Exception):
    """A verifier is wrong about its canaries, with no answer before them."""


def serve(connection: Connection, time_limit_s: float, memory_limit_mb: int) -> None:
    """Judge the jobs (a verifier and its items) that arrive, until the connection ends.

    Sends first which layers of the cage hold here, then per job `{"rulings": […]}` in the job's
    order, or what went wrong with the judge: `{"loading": …}` or `{"mistaken": …}`.
    """
    limit_memory(memory_limit_mb)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    cell.leave_network()
    landlock.leave_others(landlock.version())
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # which ends the process
    _say(connection, {"filtered": cell.filtered()})
    nowhere = os.open(os.devnull, os.O_WRONLY)  # discard what verifiers print
    for output in (1, 2):
        os.dup2(nowhere, output)
    os.close(nowhere)
    warm: set[Callable[[Problem, str], bool]] = set()
    while True:
        try:
            # These bytes come from the trainer, never from a cell.
            verifier, items = pickle.loads(connection.recv_bytes())
            _load(verifier, items, warm)
        except EOFError:
            return
        except Exception as error:  # noqa: BLE001  reported to the trainer
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
    """Load all that judging needs, including modules loaded at first use, because cells load no
    code well.
    """
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
    """A ruling per item. Only the answer that broke its cell is ruled wrong for it.

    The other answers of a broken cell are judged anew. Where a cell misjudged its canaries, every
    answer is judged anew in a cell of its own.
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
    """The index of the answer that ended the cell, if one did, and its ruling."""
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
    """Runs in the cell: yields a result per item, and stops at an item that exceeds the memory."""
    for problem, text in batch:
        try:
            result = _RIGHT if verifier.check(problem, text) else _WRONG
        except MemoryError:
            yield _MEMORY
            return
        except Exception as error:  # noqa: BLE001  whatever a verifier raises, the run goes on
            result = _RAISED + repr(error)[:_DETAIL].encode(errors="replace")
        yield result
