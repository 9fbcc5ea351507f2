"""The procedural data sets of reasoning-gym, each as a family of problems."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any, Self

from . import scorers
from .problems import Problem, content_digest
from .verify import final_answer

PREFIX = "reasoning-gym:"

# Some data sets make or choose all their problems at once, so each needs a finite size.
_SIZE = 10_000
_TRIES = 20

# A full score may be a float just below 1.0; an almost right answer scores less than this.
_FULL_SCORE = 0.999

_NO_ANSWER = "it has no reference answer that its scorer takes for right"
_HASHED = "its problems depend on Python's hash seed, so that no run could be repeated"
LEFT_OUT = {
    "boxnet": _NO_ANSWER,
    "codeio": "it runs snippets of code to make a problem, another one for the same seed",
    "composite": "it mixes other data sets: name those",
    "game_of_life_halting": "its scorer takes any text for right",
    "graph_color": _NO_ANSWER,
    "intermediate_integration": "some of its reference answers are integrals that it left unsolved",
    "isomorphic_strings": _HASHED,
    "polynomial_multiplication": _HASHED,
    "propositional_logic": _NO_ANSWER,
    "ransom_note": _HASHED,
    "rubiks_cube": _NO_ANSWER,
    "rush_hour": _NO_ANSWER,
    "word_ladder": _HASHED,
}


@dataclass(frozen=True, slots=True)
class GymTask:
    """A data set as a `Task`; its difficulties are the levels of its curriculum, from 0.

    Levels whose settings the data set itself refuses are left out. Without a curriculum, or
    without a valid level, the only difficulty is 0: the data set's defaults.
    """

    name: str
    difficulties: tuple[int, ...]

    @classmethod
    def find(cls, dataset: str, levels: Container[int] = range(1000)) -> Self:
        """The task of a data set's name, limited to its difficulties in `levels`.

        `ValueError` lists the data sets or difficulties that exist, or says why a set is left out.
        """
        if dataset in LEFT_OUT:
            raise ValueError(f"reasoning-gym's {dataset} is left out: {LEFT_OUT[dataset]}")
        if dataset not in datasets():
            raise ValueError(
                f"reasoning-gym has no data set {dataset!r}: name one of {', '.join(datasets())}"
            )
        known = [n for n in range(_levels(dataset)) if _settings(dataset, n) is not None] or [0]
        chosen = tuple(level for level in known if level in levels)
        if not chosen:
            raise ValueError(
                f"reasoning-gym's {dataset} has the levels {', '.join(map(str, known))}"
            )
        return cls(PREFIX + dataset, chosen)

    def sample(self, rng: Random, difficulty: int) -> Problem:
        if difficulty not in self.difficulties:
            raise ValueError(f"{self.name} has difficulties {self.difficulties}, not {difficulty}")
        entry = self._entry(rng, difficulty)
        return Problem(
            id=f"{self.name}:{content_digest(entry['question'])}",
            family=self.name,
            difficulty=difficulty,
            question=entry["question"],
            answer=entry["answer"],
            verifier="reasoning-gym",
            evidence=entry,
        )

    def verify(self, problem: Problem, text: str) -> bool:
        try:
            return judge(problem, text)
        except Exception:  # noqa: BLE001  a scorer may raise anything on a text it does not expect
            return False

    def _entry(self, rng: Random, difficulty: int) -> Any:
        """A problem as reasoning-gym's entry, at a random index where the data set has one."""
        dataset = _load(self.name, difficulty)
        for _ in range(_TRIES):
            try:
                return dataset[rng.randrange(_SIZE)]
            except Exception as error:  # noqa: BLE001  each data set has its own way to give up
                reason = error
        raise ValueError(
            f"{self.name} makes no problem at difficulty {difficulty} ({reason!r}): choose others "
            "with ?levels="
        ) from reason


def datasets() -> list[str]:
    """The names that `GymTask.find` takes, sorted."""
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - set(LEFT_OUT))


def judge(problem: Problem, text: str) -> bool:
    """Whether the answer in `text` is right: by the data set's own scorer, where that is safe.

    It may raise, hang or eat memory on a text that it does not expect.
    """
    answer = final_answer(text)
    if scorer := scorers.OWN.get(problem.family.removeprefix(PREFIX)):
        return scorer(answer, problem.evidence)
    score = _load(problem.family, problem.difficulty).score_answer(answer, problem.evidence)
    return bool(score >= _FULL_SCORE)


def load_dataset(problem: Problem) -> None:
    """Load all that `judge` needs for a problem, including modules loaded at first use."""
    if problem.family.removeprefix(PREFIX) in scorers.OWN:
        scorers.load(problem.family.removeprefix(PREFIX))
    else:
        _load(problem.family, problem.difficulty)


@lru_cache(maxsize=64)
def _load(name: str, difficulty: int) -> Any:
    """The data set behind a task's name: `[index]` makes a problem, `score_answer` judges one."""
    from reasoning_gym.factory import DATASETS

    dataset = name.removeprefix(PREFIX)
    kind, defaults = DATASETS[dataset]
    return kind(_settings(dataset, difficulty) or defaults(seed=0, size=_SIZE))


def _levels(dataset: str) -> int:
    from reasoning_gym.factory import create_curriculum, has_curriculum

    if not has_curriculum(dataset):
        return 0
    return max(len(knob.levels) for knob in create_curriculum(dataset).attributes.values())


def _settings(dataset: str, level: int) -> Any | None:
    """A level of the curriculum as settings; None where there is none or they are invalid."""
    from reasoning_gym.factory import create_curriculum

    if level >= _levels(dataset):
        return None
    curriculum = create_curriculum(dataset)
    curriculum.set_global_level(level)
    settings = curriculum.generate_configuration({"seed": 0, "size": _SIZE})
    try:
        settings.validate()
    except (AssertionError, ValueError):
        return None
    return settings
