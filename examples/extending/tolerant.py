"""A verifier of one's own: numbers that are right to a percent. Copy this file and change it.

A line of problems names it: {"prompt": "…", "answer": "3.1416", "verifier": "tolerant:close"}
"""

from __future__ import annotations

from ponder.tasks.problems import Problem
from ponder.tasks.verify import final_number


def close(problem: Problem, text: str) -> bool:
    """The last number of the answer lies within one percent of the reference.

    `text` follows the thought and may be anything at all. A check that raises, hangs or runs out
    of memory counts as a wrong answer, and so does a check that opens a file or a socket.
    """
    said = final_number(text)
    wanted = float(problem.answer)
    return said is not None and abs(float(said) - wanted) <= abs(wanted) / 100
