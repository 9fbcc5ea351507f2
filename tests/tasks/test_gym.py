"""reasoning-gym's data sets as tasks."""

import ast
import copy
import inspect
import os
import subprocess
import sys
import textwrap
from random import Random

import pytest
from reasoning_gym.factory import DATASETS

from ponder.tasks import gym, scorers
from ponder.tasks.gym import LEFT_OUT, GymTask, datasets
from ponder.tasks.problems import draw, held_out, split_of
from ponder.tasks.workers import VerifierPool

SEVERAL = ("chain_sum", "gcd", "leg_counting", "number_sorting", "simple_equations", "countdown")


@pytest.mark.parametrize("name", SEVERAL)
def test_a_problem_is_a_function_of_the_seed(name: str) -> None:
    task = GymTask.find(name)
    level = task.difficulties[-1]
    problem = task.sample(Random(7), level)
    assert problem == task.sample(Random(7), level)
    assert problem != task.sample(Random(8), level)
    assert problem.family == task.name == f"reasoning-gym:{name}"
    assert problem.difficulty == level


def test_problems_are_the_same_in_every_process() -> None:
    code = (
        "import sys; from random import Random; from ponder.tasks.gym import GymTask\n"
        "for name in sys.argv[1:]: print(GymTask.find(name).sample(Random(7), 0).id)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "12345"}
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-P", "-c", code, *SEVERAL],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert told == [GymTask.find(name).sample(Random(7), 0).id for name in SEVERAL]


def test_the_right_answer_is_right_and_another_is_wrong() -> None:
    rng = Random(0)
    drawn = [GymTask.find(name).sample(rng, 0) for name in SEVERAL for _ in range(3)]
    with VerifierPool(1, time_limit_s=30) as pool:
        bare = pool.judge((p, p.answer) for p in drawn)
        said = pool.judge((p, f"So the answer is {p.answer}.") for p in drawn)
        tagged = pool.judge((p, f"First 3.\n<answer>{p.answer}</answer>") for p in drawn)
        wrong = pool.judge((p, "The answer is -987654.") for p in drawn)
        silent = pool.judge((p, "") for p in drawn)
    assert all(v.correct for v in (*bare, *said, *tagged))
    assert not any(v.correct for v in (*wrong, *silent))
    assert set(pool.failures) <= {"error"}


def test_a_partial_score_is_wrong() -> None:
    task = GymTask.find("gcd")
    problem = task.sample(Random(0), 0)
    assert task.verify(problem, problem.answer)
    assert not task.verify(problem, f"It is {problem.answer}, I think.")


def test_a_scorer_that_raises_is_a_wrong_answer() -> None:
    task = GymTask.find("prime_factorization")
    problem = task.sample(Random(0), 0)
    assert task.verify(problem, problem.answer)
    assert not task.verify(problem, "I do not know.")
    with VerifierPool(1, time_limit_s=30) as pool:
        (verdict,) = pool.judge([(problem, "I do not know.")])
    assert verdict.failure == "error"


def test_difficulties_are_the_levels_of_the_curriculum() -> None:
    task = GymTask.find("chain_sum")
    assert len(task.difficulties) > 5
    first, last = (task.sample(Random(0), task.difficulties[i]) for i in (0, -1))
    assert len(last.question) > len(first.question)
    with pytest.raises(ValueError, match="difficulties"):
        task.sample(Random(0), len(task.difficulties))


@pytest.mark.parametrize(
    ("name", "difficulties"), [("caesar_cipher", (0, 1)), ("knight_swap", (0,)), ("acre", (0,))]
)
def test_levels_that_do_not_hold_are_left_out(name: str, difficulties: tuple[int, ...]) -> None:
    assert GymTask.find(name).difficulties == difficulties


def test_a_data_set_without_a_level_has_its_defaults() -> None:
    task = GymTask.find("knight_swap")
    problem = task.sample(Random(0), 0)
    assert task.verify(problem, problem.answer)


@pytest.mark.parametrize("name", sorted(LEFT_OUT))
def test_unusable_data_sets_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is left out: ") as error:
        GymTask.find(name)
    assert LEFT_OUT[name] in str(error.value)
    assert name not in datasets()


def test_levels_can_be_chosen() -> None:
    assert GymTask.find("chain_sum", range(2, 4)).difficulties == (2, 3)
    with pytest.raises(ValueError, match=r"has the levels 0, 1$"):
        GymTask.find("caesar_cipher", range(2, 4))


def test_an_index_without_a_problem_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rare:
        """A problem at every fifth index."""

        def __getitem__(self, index: int) -> dict[str, str]:
            if index % 5:
                raise IndexError("none here")
            return {"question": f"{index}?", "answer": "1"}

    task = GymTask.find("gcd")
    monkeypatch.setattr(gym, "_load", lambda *_: Rare())
    assert int(task.sample(Random(0), 0).question.removesuffix("?")) % 5 == 0
    monkeypatch.setattr(gym, "_load", lambda *_: {})
    with pytest.raises(ValueError, match="levels="):
        task.sample(Random(0), 0)


def test_an_unknown_data_set_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="chain_sum"):
        GymTask.find("chain_sums")


def test_held_out_problems_lie_in_their_split() -> None:
    task = GymTask.find("leg_counting")
    problems = held_out((task,), 80, "test", seed=1)
    assert {split_of(p) for p in problems} == {"test"}
    assert {p.difficulty for p in problems} == set(task.difficulties)
    assert split_of(draw(task, Random(0), 3, "train")) == "train"


# What may run, load or follow a text; `literal_eval` reads it.
RUNS = {
    "eval", "exec", "compile", "parse_expr", "sympify", "lambdify", "__import__", "open",
    "import_module", "system", "Popen", "yaml", "pickle", "marshal", "getattr", "globals",
}  # fmt: skip


def names_reached(dataset: str) -> set[str]:
    """Names in a scorer and in what it calls of its own module and class, and so on."""
    kind, _ = DATASETS[dataset]
    module = sys.modules[kind.__module__]
    seen: set[str] = set()
    found: set[str] = set()
    waiting: list[object] = [kind.score_answer]
    while waiting:
        function = waiting.pop()
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        found |= names
        home = inspect.getmodule(function) or module
        for name in names - seen:
            called = getattr(kind, name, None) or getattr(home, name, None)
            if inspect.isroutine(called) or inspect.isclass(called):
                where = getattr(called, "__module__", None) or ""
                if where.startswith("reasoning_gym") and called is not kind:
                    waiting.append(called)
        seen |= names
    return found


@pytest.mark.parametrize("name", datasets())
def test_no_scorer_runs_an_answer(name: str) -> None:
    """A new version of reasoning-gym is read anew: what reaches eval and its like needs our own."""
    assert name in scorers.OWN or not names_reached(name) & RUNS


@pytest.mark.parametrize("name", sorted(scorers.OWN))
def test_our_own_scorers_are_needed_and_agree(name: str) -> None:
    """They are there for a reason, and take the same answers for right."""
    assert names_reached(name) & RUNS
    task = GymTask.find(name)
    problem = task.sample(Random(3), task.difficulties[-1])
    theirs = gym._load(problem.family, problem.difficulty)
    for answer in (problem.answer, "-987654", problem.answer + "0", "", "[1]"):
        expected = theirs.score_answer(answer, copy.deepcopy(problem.evidence)) >= 0.999
        assert task.verify(problem, f"<answer>{answer}</answer>") == expected


@pytest.mark.parametrize(
    ("name", "metadata", "answer", "right"),
    [
        ("countdown", {"numbers": [3, 4, 5], "target": 23}, "3 + 4*5", True),
        ("countdown", {"numbers": [3, 4, 5], "target": 23}, "4*5 + 4 - 1", False),
        ("countdown", {"numbers": [3, 4, 5], "target": 23}, "5*4 + 3 + 0", False),
        ("countdown", {"numbers": [1, 3, 300000], "target": 100000}, "300000/3 + 1", False),
        ("puzzle24", {"numbers": [1, 2, 3, 4]}, "1*2*3*4", True),
        ("puzzle24", {"numbers": [1, 2, 3, 4]}, "6*4*1*1", False),
        ("puzzle24", {"numbers": [1, 2, 3, 7]}, "(7*3*2 + 7)/2*1", False),
        ("puzzle24", {"numbers": [1, 2, 3, 4]}, "24", False),
    ],
)
def test_numbers_games_are_exact(
    name: str, metadata: dict[str, object], answer: str, right: bool
) -> None:
    assert scorers.OWN[name](answer, {"metadata": metadata}) is right
