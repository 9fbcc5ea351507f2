"""Greetings, and questions that a reasoner for small numbers cannot answer, with their replies.

Questions outside its knowledge are drawn with great variety, invented words included: the model
must learn to recognise that a question has no problem of small numbers, not a list of such
questions. The words are in `smalltalk.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import yaml

from ponder.tasks.problems import Problem, content_digest
from ponder.tasks.worked import Step, Worked

FAMILY = "talk"
_TALK_SHARE = 0.35
# Weights of the kinds of small talk, in the file's order; questions about the model come first.
_TALK_WEIGHTS = (0.35, 0.35, 0.1, 0.12, 0.08)


@cache
def words() -> Any:
    """`talk` by kind and `outside`: replies, thoughts, and the parts of questions."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def talk(rng: Random) -> Worked:
    """Small talk a third of the time, else a question outside the model's knowledge."""
    if rng.random() < _TALK_SHARE:
        kind = rng.choices(tuple(words()["talk"].values()), _TALK_WEIGHTS)[0]
        question = _typed(rng, rng.choice(kind["asked"]), rng.choice(("", "", "?", "!", ".")))
    else:
        kind = words()["outside"]
        makers: tuple[Callable[[Random], str], ...] = (_about, _plain, _numeric, _long)
        question = rng.choices(makers, (0.5, 0.2, 0.22, 0.08))[0](rng)
    reply = kind["reply"]
    problem = Problem(f"{FAMILY}:{content_digest(question)}", FAMILY, 0, question, reply, "exact")
    return Worked(problem, "", (Step(kind["thought"], reply),), ())


def _typed(rng: Random, text: str, end: str) -> str:
    draw = rng.random()
    if draw < 0.4:
        text = text[:1].upper() + text[1:]
    elif draw < 0.45:
        text = text.upper()
    elif draw < 0.7:
        text = text.lower()
    return text + end


def _about(rng: Random) -> str:
    outside = words()["outside"]
    ways, subjects = rng.choices(
        (("where", "places"), ("who", "people"), ("about", "topics")), (0.2, 0.15, 0.65)
    )[0]
    subject = invented(rng) if rng.random() < 0.3 else rng.choice(outside[subjects])
    text = rng.choice(outside[ways]).format(subject)
    draw = rng.random()
    if draw < 0.1:
        text = rng.choice(outside["before"]) + text[0].lower() + text[1:]
    elif draw < 0.2:
        text += rng.choice(outside["after"])
    return _typed(rng, text, rng.choice(("", "?", "?", ".")))


def invented(rng: Random) -> str:
    """One to three invented words of meaningless syllables."""
    syllables = words()["outside"]["syllables"]
    made = ["".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(rng.randint(1, 3))]
    return " ".join(word.capitalize() if rng.random() < 0.3 else word for word in made)


def _plain(rng: Random) -> str:
    if rng.random() < 0.2:
        return _typed(rng, " ".join(invented(rng) for _ in range(rng.randint(1, 4))), "?")
    asked = rng.choice(words()["outside"]["plain"])
    return _typed(rng, asked, rng.choice(("", "", "?", "!", ".")))


def _numeric(rng: Random) -> str:
    """A question with numbers beyond the model's: percentages, powers, dates, large numbers."""
    a, b, c = rng.randint(10, 99), rng.randint(10, 99), rng.randint(1, 9)
    text = rng.choice(words()["outside"]["numeric"]).format(a=a, b=b, c=c)
    return _typed(rng, text, rng.choice(("", "?")))


def _long(rng: Random) -> str:
    outside = words()["outside"]
    told = [
        rng.choice(outside["told"]).format(
            *(rng.choice((*outside["topics"], invented(rng))) for _ in range(2))
        )
        for _ in range(rng.randint(1, 6))
    ]
    asked = _about(rng)
    return " ".join([asked, *told] if rng.random() < 0.3 else [*told, asked])
