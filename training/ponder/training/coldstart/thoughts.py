"""Cold-start thoughts: written out from worked solutions, verbose on purpose.

A thought restates the problem, solves it and verifies it a random number of times. Its re-checks
repeat correct arithmetic, so they cost tokens and never lead astray; budget training later removes
this habit. Some thoughts are cut short and answered with the best guess so far, so that a truncated
thought still yields an answer. Half carry a budget hint (the wording of HBPO, arXiv 2507.15844):
the smallest trained budget into which the thought fits, so that a hint predicts the length that
follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from ponder.tasks.problems import Problem
from ponder.tasks.worked import Worked

HINT = "I will answer the question within {budget} tokens\n"
CLOSE_TEXT = "\n</think>\n\n"

Style = Literal["terse", "plain", "verbose"]

_RESTATE = ("We need {}.", "The question is {}.", "Let me look at {}.")
_FIRST = ("First", "Start:")
_NEXT = ("Then", "Next", "Now")
_CONCLUDE = ("So the answer is {}.", "That gives {}.", "So it is {}.")
_RECHECK = (
    "Wait, let me check that again.",
    "Let me verify once more.",
    "Hmm, I should check this.",
    "Let me be sure.",
)
_CONFIRM = ("Yes, {} again.", "That is still {}.", "Good, it is {}.")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a thought and the best answer known once it is complete (None: a mere guess).

    The model reads a piece that is not `learnt` and never imitates it.
    """

    text: str
    best: str | None
    learnt: bool = True


def answer_text(answer: str) -> str:
    """The short answer that follows a closed thought."""
    return f"The answer is {answer}."


def reply_text(problem: Problem, answer: str) -> str:
    """The reply after the thought: a text as it stands, a number in a sentence."""
    return answer if problem.verifier == "exact" else answer_text(answer)


def write_thought(worked: Worked, style: Style, checks: int, rng: Random) -> list[Piece]:
    """A thought on `worked`: the steps alone (`terse`), restated and concluded (`plain`), or that
    and then verified `checks` times (`verbose`). The pieces join to the text of the thought.
    """
    answer = worked.problem.answer
    if style == "terse":
        last = len(worked.steps) - 1
        return [
            Piece(step.text + ("." if i == last else ". "), step.best)
            for i, step in enumerate(worked.steps)
        ]
    pieces = [Piece(rng.choice(_RESTATE).format(worked.restated) + "\n", None)]
    for i, step in enumerate(worked.steps):
        lead = rng.choice(_FIRST if i == 0 else _NEXT)
        pieces.append(Piece(f"{lead} {step.text}.\n", step.best))
    pieces.append(Piece(rng.choice(_CONCLUDE).format(answer), answer))
    if style == "verbose":
        for _ in range(checks):
            text = f"\n{rng.choice(_RECHECK)}\n{', '.join(worked.checks)}.\n"
            pieces.append(Piece(text + rng.choice(_CONFIRM).format(answer), answer))
    return pieces


def smallest_budget(length: int, budgets: Sequence[int]) -> int | None:
    """The smallest budget that holds `length` tokens; None where none does."""
    return min((b for b in budgets if b >= length), default=None)


def best_guess(pieces: Sequence[Piece], cut: int, answer: str) -> str:
    """The answer to a thought that is cut after `cut` characters.

    The best answer of the last finished piece. Before any piece has an answer it is the true one,
    which the model can then only guess, so that it learns the answers' distribution.
    """
    best, end = None, 0
    for piece in pieces:
        end += len(piece.text)
        if end > cut:
            break
        best = piece.best or best
    return best or answer
