from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponder.tasks.problems import Problem, Split, draw, held_out, split_of
from ponder.tasks.tiny import TINY_TASKS


def problem(identity: str, question: str = "?") -> Problem:
    return Problem(identity, identity.split(":", maxsplit=1)[0], 1, question, "0")


@pytest.mark.parametrize(
    ("identity", "split"),
    [("sum:3+4", "train"), ("sum:6+4", "test"), ("sum:13+4", "validation")],
)
def test_the_split_never_moves(identity: str, split: Split) -> None:
    assert split_of(problem(identity)) == split


@given(st.text(), st.text(), st.text())
def test_phrasing_and_family_do_not_move_a_problem(content: str, one: str, other: str) -> None:
    plain = problem(f"sum:{content}", one)
    dressed = problem(f"word:{content}", other)
    assert split_of(plain) == split_of(dressed)


def test_the_splits_have_their_shares() -> None:
    splits = [split_of(problem(f"root:{n}")) for n in range(10_000)]
    assert 0.09 < splits.count("test") / 10_000 < 0.11
    assert 0.09 < splits.count("validation") / 10_000 < 0.11


def test_paraphrases_share_an_identity() -> None:
    rng = Random(0)
    questions: dict[str, set[str]] = {}
    for _ in range(4000):
        drawn = TINY_TASKS[-1].sample(rng, 1)
        questions.setdefault(drawn.id, set()).add(drawn.question)
    assert max(len(asked) for asked in questions.values()) > 1


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_draw_stays_in_the_split(split: Split) -> None:
    rng = Random(1)
    drawn = [draw(task, rng, 2, split) for task in TINY_TASKS for _ in range(20)]
    assert {split_of(p) for p in drawn} == {split}


def test_held_out_problems_are_different_spread_and_reproducible() -> None:
    problems = held_out(TINY_TASKS, 350, "test", seed=3)
    assert problems == held_out(TINY_TASKS, 350, "test", seed=3)
    assert problems != held_out(TINY_TASKS, 350, "test", seed=4)
    assert len({p.id for p in problems}) == 350
    counts = [sum(p.family == task.name for p in problems) for task in TINY_TASKS]
    assert min(counts) >= 60
    assert {p.difficulty for p in problems} == {1, 2, 3, 4, 5, 6, 7}


def test_a_family_that_runs_dry_is_an_error() -> None:
    roots = (TINY_TASKS[-1],)
    with pytest.raises(ValueError, match="ask for fewer"):
        held_out(roots, 5000, "test", seed=0)


def test_a_split_that_a_family_never_reaches_is_an_error() -> None:
    class Same:
        """One problem, for ever; it lies in `train`."""

        name = "sum"
        difficulties = (1,)

        def sample(self, rng: Random, difficulty: int) -> Problem:
            return problem("sum:3+4")

        def verify(self, problem: Problem, text: str) -> bool:
            return False

    assert draw(Same(), Random(0), 1, "train").id == "sum:3+4"
    with pytest.raises(ValueError, match="no test problem of difficulty 1"):
        draw(Same(), Random(0), 1, "test")
