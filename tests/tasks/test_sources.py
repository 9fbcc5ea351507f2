import warnings
from pathlib import Path

import pytest

from ponder.tasks.gym import GymTask
from ponder.tasks.problems import Task
from ponder.tasks.sources import find_tasks
from ponder.tasks.tiny import TINY_TASKS


def test_tiny_is_all_of_its_families() -> None:
    assert find_tasks(["tiny"]) == TINY_TASKS


def test_tasks_come_in_the_order_of_their_names_each_once() -> None:
    names = [task.name for task in find_tasks(["root", "tiny", "reasoning-gym:gcd", "root"])]
    assert names == ["root", "sum", "word", "equation", "largest", "reasoning-gym:gcd"]


@pytest.mark.parametrize(
    ("levels", "difficulties"), [("2", (2,)), ("1-3", (1, 2, 3)), ("9-99", (9, 10))]
)
def test_levels_of_a_curriculum_can_be_chosen(levels: str, difficulties: tuple[int, ...]) -> None:
    (task,) = find_tasks([f"reasoning-gym:chain_sum?levels={levels}"])
    assert task.difficulties == difficulties


def test_a_task_named_twice_with_other_levels_is_refused() -> None:
    names = [f"reasoning-gym:gcd?levels={level}" for level in (0, 1)]
    assert len(find_tasks([names[0]] * 2)) == 1
    with pytest.raises(ValueError, match="reasoning-gym:gcd is named twice"):
        find_tasks(names)


@pytest.mark.parametrize(
    "query", ["levels=easy", "levels=3-1", "level=1", "levels", "levels=0&levels=1"]
)
def test_levels_that_say_nothing_are_refused(query: str) -> None:
    with pytest.raises(ValueError, match="levels"):
        find_tasks([f"reasoning-gym:chain_sum?{query}"])


@pytest.mark.parametrize("name", ["sums", "", "reasoning-gym", "jsonl:", "hf:", "file:x"])
def test_an_unknown_name_lists_what_exists(name: str) -> None:
    with pytest.raises(ValueError, match="equation") as error:
        find_tasks([name])
    for source in ("tiny", "reasoning-gym:NAME", "jsonl:PATH", "hf:NAME"):
        assert source in str(error.value)


def test_what_a_library_says_of_its_own_code_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(*_: object) -> Task:
        warnings.warn('"is" with a literal. Did you mean "=="?', SyntaxWarning, stacklevel=1)
        return TINY_TASKS[0]

    monkeypatch.setattr(GymTask, "find", find)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert find_tasks(["reasoning-gym:anything"]) == (TINY_TASKS[0],)
    assert not said


def test_a_file_takes_no_options(tmp_path: Path) -> None:
    (file := tmp_path / "a?b.jsonl").write_text('{"prompt": "1?", "answer": "1"}\n')
    assert find_tasks([f"jsonl:{file}"])
    with pytest.raises(ValueError, match=r"takes no \?split=test: `ponder eval --split test`"):
        find_tasks([f"jsonl:{tmp_path / 'mine.jsonl'}?split=test"])
