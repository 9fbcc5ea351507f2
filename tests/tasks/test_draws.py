"""Which problem comes when."""

from __future__ import annotations

import hashlib
from random import Random

import pytest

from ponder.tasks.draws import Source
from ponder.tasks.problem_set import ProblemSet, Row
from ponder.tasks.problems import Problem, split_of
from ponder.tasks.tiny import TINY_TASKS

LISTED = ProblemSet("set", [Row(prompt=f"What is {i}?", answer=str(i)) for i in range(60)])
TRAIN = [p.id for p in LISTED.problems(0, "train")]


def always(_: Problem) -> bool:
    return True


def visited(source: Source, steps: int, attempt: int = 0) -> list[str]:
    return [source.problem(s, attempt, n, "").id for s in range(steps) for n in range(4)]


def test_every_listed_problem_comes_once_before_any_again() -> None:
    found = visited(Source([LISTED], 1, 4, 0, always), len(TRAIN))
    size = len(TRAIN)
    epochs = [found[i : i + size] for i in range(0, 4 * size, size)]
    assert all(sorted(epoch) == sorted(TRAIN) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert found != visited(Source([LISTED], 2, 4, 0, always), len(TRAIN))


def test_retries_leave_the_main_order_alone() -> None:
    source = Source([LISTED], 1, 4, 2, always)
    size = len(TRAIN)
    retries = [
        source.problem(step, attempt, n, "").id
        for step in range(size)
        for attempt in (1, 2)
        for n in range(4)
    ]
    assert sorted(retries[:size]) == sorted(TRAIN)
    assert visited(source, size) == visited(Source([LISTED], 1, 4, 0, always), size)


def test_two_sets_are_one_list() -> None:
    other = ProblemSet("other", [Row(prompt=f"And {i}?", answer=str(i)) for i in range(20)])
    both = [*TRAIN, *(p.id for p in other.problems(0, "train"))]
    found = visited(Source([LISTED, other], 1, 4, 0, always), len(both))
    assert sorted(found[: len(both)]) == sorted(both)


def test_long_problems_are_left_out() -> None:
    short = Source([LISTED], 1, 4, 0, lambda p: len(p.question) < len("What is 10?"))
    assert all(len(short.problem(s, 0, 0, "").question) == len("What is 9?") for s in range(20))
    with pytest.raises(ValueError, match=r"raise rollouts\.longest_prompt"):
        Source([LISTED], 1, 4, 0, lambda _: False)
    endless = Source(TINY_TASKS, 1, 4, 0, lambda p: len(p.question) < 150)
    assert all(len(endless.problem(0, 0, n, str(n)).question) < 150 for n in range(20))
    # One family's problems are too long: it would never be trained on.
    with pytest.raises(ValueError, match=r"word has no .* raise rollouts\.longest_prompt"):
        Source(TINY_TASKS, 1, 4, 0, lambda p: p.family != "word")


def test_listed_problems_beside_an_endless_family_are_drawn_at_random() -> None:
    """Each as often as any other of its list, however they spread over the difficulties."""
    rows = [Row(prompt=f"What is {i}?", answer=str(i), difficulty=i) for i in range(40)]
    uneven = ProblemSet("uneven", rows)
    train = [p.id for level in uneven.difficulties for p in uneven.problems(level, "train")]
    source = Source([uneven, TINY_TASKS[0]], 1, 4, 0, always)
    drawn = [source.problem(0, 0, n, f"k/{n}") for n in range(1000)]
    listed = [p.id for p in drawn if p.family == "uneven"]
    assert set(listed) == set(train)
    assert len(drawn) - len(listed) == pytest.approx(500, abs=80)
    assert all(split_of(p) == "train" for p in drawn)
    only = next(p for level in uneven.difficulties for p in uneven.problems(level, "test"))
    held = ProblemSet("held", [Row(prompt=only.question, answer="1")])
    with pytest.raises(ValueError, match="held has no training problem"):
        Source([held, TINY_TASKS[0]], 1, 4, 0, always)


def test_endless_families_are_drawn_by_key() -> None:
    """The order of the draws of a study must not change under it."""
    source = Source(TINY_TASKS, 0, 12, 9, always)
    found = [source.problem(0, 0, n, f"0/0/0/{n}").id for n in range(50)]
    expected = []
    for n in range(50):
        rng = Random(hashlib.sha256(f"0/0/0/{n}".encode()).digest())
        task = rng.choice(TINY_TASKS)
        level = rng.choice(task.difficulties)
        while split_of(problem := task.sample(rng, level)) != "train":
            pass
        expected.append(problem.id)
    assert found == expected
