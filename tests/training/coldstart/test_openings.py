import re
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from bench.openings import OPENINGS, UNSEEN
from ponder.tasks.problems import Problem, split_of
from ponder.tasks.tiny import DIFFICULTIES, TINY_TASKS
from ponder.tasks.verify import final_number, same_number
from ponder.training.coldstart.openings import opening
from ponder.training.coldstart.smalltalk import talk, words

seeds = st.integers(0, 2**32)


@given(seeds)
def test_every_step_is_true_and_the_last_one_holds_the_answer(seed: int) -> None:
    worked = opening(Random(seed))
    for text in (*(step.text for step in worked.steps), *worked.checks):
        left, equals, right = text.partition(" = ")
        assert not equals or eval(left) == int(right)
    assert worked.steps[-1].best == worked.problem.answer
    assert final_number(worked.problem.answer) is not None
    if "remainder" not in worked.problem.answer:
        assert same_number(worked.problem.answer, worked.steps[-1].text)


@given(seeds)
def test_an_opening_repeats_from_a_seed(seed: int) -> None:
    assert opening(Random(seed)) == opening(Random(seed))
    assert talk(Random(seed)) == talk(Random(seed))


def test_no_opening_is_a_held_out_sum() -> None:
    rng = Random(1)
    openings = {opening(rng).problem.id.removeprefix("opening:") for _ in range(5000)}
    drawable = {
        worked.problem.id.partition(":")[2]
        for task in TINY_TASKS[:2]
        for level in DIFFICULTIES[:2]
        for worked in (task.work(rng, level) for _ in range(20_000))
    }
    both = openings & drawable
    assert len(both) > 50
    assert {split_of(Problem(f"sum:{content}", "sum", 1, "", "")) for content in both} == {"train"}


@given(seeds)
def test_talk_is_answered_with_what_is_said_of_its_kind(seed: int) -> None:
    worked = talk(Random(seed))
    said = {kind["reply"] for kind in (*words()["talk"].values(), words()["outside"])}
    assert worked.problem.answer in said
    assert worked.problem.question.strip()
    assert not re.search(r"[{}]", worked.problem.question)


def test_what_measures_the_unseen_is_never_drawn() -> None:
    rng = Random(2)
    drawn = {talk(rng).problem.question.lower().rstrip("?!. ") for _ in range(20_000)}
    assert not drawn & {asked.question.lower().rstrip("?!. ") for asked in UNSEEN}


def test_the_measured_openings_name_answers_that_exist() -> None:
    for asked in OPENINGS:
        known = asked.answer in ("outside", *words()["talk"])
        assert known or final_number(asked.answer) == asked.answer
        assert not asked.right("The answer is 1000.")
