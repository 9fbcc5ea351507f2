import pytest

from ponder.training.tasks.sources import find_tasks
from ponder.training.tasks.tiny import TINY_TASKS


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


@pytest.mark.parametrize("query", ["levels=easy", "levels=3-1", "level=1", "levels"])
def test_levels_that_say_nothing_are_refused(query: str) -> None:
    with pytest.raises(ValueError, match="levels"):
        find_tasks([f"reasoning-gym:chain_sum?{query}"])


@pytest.mark.parametrize("name", ["sums", "", "reasoning-gym", "jsonl:", "hf:", "file:x"])
def test_an_unknown_name_lists_what_exists(name: str) -> None:
    with pytest.raises(ValueError, match="equation") as error:
        find_tasks([name])
    for source in ("tiny", "reasoning-gym:NAME", "jsonl:PATH", "hf:NAME"):
        assert source in str(error.value)
