"""Slow thoughts: a first guess that may be wrong, passes with slips, and doubts that repair them.

A thought restates its problem and guesses the answer (its first sight). It then works the answer
out, quickly and then step by step, until two passes agree, and often keeps checking long after.
Where passes differ, one of them is wrong, and the thought makes another. So a thought that is cut
early is worth less, by an amount that depends on the problem.

The model never imitates a slip: the loss leaves its wrong number out. So the model errs only where
it cannot know better, and learns from written slips to notice and repair its own. First sights are
learnt from true answers, because guesses of large results come out wrong by themselves. A search
goes astray by its nature, and the model learns its dead ends.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from random import Random

from ponder.tasks.worked import Worked

from .slips import Line, mistaken, slipped
from .thoughts import Piece

_RESTATE = ("We need {}.\n", "The question is {}.\n", "Let me look at {}.\n")
_SIGHT = ("At first sight {}.\n", "It looks like {}.\n", "My guess is {}.\n")
_BEGIN = ("Let me work it out.\n", "Step by step.\n", "Let me see.\n")
_AGAIN = (
    "Wait, let me check that again.\n",
    "Let me verify once more.\n",
    "Hmm, I should check this.\n",
    "Let me be sure.\n",
    "Once more, slowly.\n",
)
_CONCLUDE = ("So the answer is {}.", "That gives {}.", "So it is {}.")
_SUM = re.compile(r"(-?\d+)( [-+] \d+) = (-?\d+)")  # of two terms

_MISJUDGED = 0.4
_BRISK = 0.4
_SLIP = 0.3
_CONTENT = 0.15
"""Share of the thoughts whose first pass confirms the first sight that end there."""

# Numbers of further passes after the answer is settled: a habit, with a long tail.
_EXTRAS = (0, 1, 2, 3, 4, 6, 8, 12)
_SHARES = (0.12, 0.16, 0.18, 0.16, 0.14, 0.12, 0.08, 0.04)


def reason(worked: Worked, rng: Random) -> list[Piece]:
    """A thought that ends in the right answer; the pieces join to its text."""
    extras = rng.choices(_EXTRAS, _SHARES)[0]
    pieces = [Piece(rng.choice(_RESTATE).format(worked.restated), None)]
    pieces += _searched(worked, extras, rng) if worked.search else _argued(worked, extras, rng)
    answer = worked.problem.answer
    return [*pieces, Piece(rng.choice(_CONCLUDE).format(answer), answer)]


def _searched(worked: Worked, extras: int, rng: Random) -> list[Piece]:
    answer = worked.problem.answer
    pieces = [Piece(f"{step.text}.\n", step.best) for step in worked.steps]
    for _ in range(extras):
        pieces.append(Piece(f"{rng.choice(_AGAIN)}{'. '.join(worked.checks)}.\n", answer))
    return pieces


def _argued(worked: Worked, extras: int, rng: Random) -> list[Piece]:
    answer = worked.problem.answer
    lines = [step.text for step in worked.steps]
    found: Counter[str] = Counter()
    sight, pieces = _first_sight(answer, rng)
    while True:
        brisk = merged(lines) if not found and rng.random() < _BRISK else lines
        wrong = slipped(brisk, answer, rng) if rng.random() < _SLIP else None
        value = wrong.answer if wrong else answer
        # A slip that agrees with another, or with a wrong first sight, would settle the answer.
        if wrong and (value in found or value == sight):
            continue
        pieces.append(Piece(rng.choice(_AGAIN if found else _BEGIN), None))
        pieces += _written(wrong.lines if wrong else [*map(Line, brisk)])
        pieces.append(Piece(_verdict(value, sight, found), value))
        found[value] += 1
        if len(found) == 1 and found[value] == 1 and value == sight and rng.random() < _CONTENT:
            return pieces
        if found[answer] >= 2:
            if extras == 0:
                return pieces
            extras -= 1


def _first_sight(answer: str, rng: Random) -> tuple[str, list[Piece]]:
    before, after = rng.choice(_SIGHT).split(" {}")
    if rng.random() < _MISJUDGED and re.fullmatch(r"-?\d+", answer):
        wrong = str(mistaken(rng, int(answer)))
        return wrong, [Piece(before, None), Piece(f" {wrong}", wrong, False), Piece(after, wrong)]
    return answer, [Piece(f"{before} {answer}{after}", answer)]


def _written(lines: Sequence[Line]) -> list[Piece]:
    pieces = []
    for i, line in enumerate(lines):
        end = ".\n" if i == len(lines) - 1 else ". "
        if line.wrong:
            pieces += [Piece(line.text, None), Piece(line.wrong, None, False)]
            pieces.append(Piece(line.rest + end, None))
        else:
            pieces.append(Piece(line.text + end, None))
    return pieces


def _verdict(value: str, sight: str, found: Counter[str]) -> str:
    """The pass's value, then its comparison: the model can compare only a value already written."""
    if value in found:
        return f"So {value} again.\n"
    if not found:
        return f"So {value}, as it seemed.\n" if value == sight else f"So {value}.\n"
    return f"So {value}, not {found.most_common(1)[0][0]}. One of them is wrong.\n"


def merged(lines: Sequence[str]) -> list[str]:
    """Merge two steps where the second continues the first's result: `37 + 48 - 15 = 70`."""
    made: list[str] = []
    for line in lines:
        together = _joined(made[-1], line) if made else None
        if together is None:
            made.append(line)
        else:
            made[-1] = together
    return made


def _joined(line: str, after: str) -> str | None:
    one, two = _SUM.fullmatch(line), _SUM.fullmatch(after)
    if one is None or two is None or one[3] != two[1]:
        return None
    return f"{one[1]}{one[2]}{two[2]} = {two[3]}"
