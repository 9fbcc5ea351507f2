"""Problems from JSONL files and data sets."""

import json
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ponder.tasks.problem_set import ProblemSet, Row
from ponder.tasks.problems import Split, draw, held_out, split_of
from ponder.tasks.sources import find_tasks
from ponder.tasks.verify import final_number

SPLITS: tuple[Split, ...] = ("train", "validation", "test")


def rows(n: int, levels: int = 2) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {i}?", "answer": i, "difficulty": i % levels} for i in range(n)]


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n", encoding="utf-8")
    return f"jsonl:{path}"


def finite(rows: list[dict[str, Any]]) -> ProblemSet:
    return ProblemSet("set", map(Row.model_validate, rows))


def test_a_file_is_a_task(tmp_path: Path) -> None:
    name = write(
        tmp_path / "some.jsonl",
        [
            {"prompt": "2 + 2?", "answer": 4},
            {"prompt": "Half?", "answer": r"\frac12", "verifier": "math", "difficulty": 3},
            {"prompt": "Sky?", "answer": "blue", "verifier": "exact", "id": "sky"},
        ],
    )
    (task,) = find_tasks([name])
    assert task.name == name
    assert task.difficulties == (0, 3)
    (half,) = {task.sample(Random(seed), 3) for seed in range(5)}
    assert (half.question, half.answer, half.verifier) == ("Half?", r"\frac12", "math")
    assert task.verify(half, "$0.5$")
    others = {task.sample(Random(seed), 0) for seed in range(50)}
    assert {p.answer for p in others} == {"4", "blue"}
    assert f"{name}:sky" in {p.id for p in others}


def test_a_problem_stays_in_its_split_wherever_its_file_lies(tmp_path: Path) -> None:
    (here,) = find_tasks([write(tmp_path / "here.jsonl", rows(1))])
    (there,) = find_tasks([write(tmp_path / "there.jsonl", rows(1))])
    problems = [task.sample(Random(0), 0) for task in (here, there)]
    assert problems[0].id != problems[1].id
    assert split_of(problems[0]) == split_of(problems[1])


def test_every_problem_of_a_split_can_be_held_out_and_no_more() -> None:
    task = finite(rows(2000))
    sizes = [sum(len(task.problems(level, split)) for level in (0, 1)) for split in SPLITS]
    assert sum(sizes) == 2000
    assert min(sizes) > 150
    whole = held_out((task,), sizes[2], "test", seed=0)
    assert len({p.id for p in whole}) == sizes[2]
    assert whole != held_out((task,), sizes[2], "test", seed=1)
    with pytest.raises(ValueError, match=f"only {sizes[2]} different test problems"):
        held_out((task,), sizes[2] + 1, "test", seed=0)


def test_drawing_stays_in_the_split_and_is_reproducible() -> None:
    task = finite(rows(100))
    for split in SPLITS:
        drawn = [draw(task, Random(seed), 1, split) for seed in range(20)]
        assert {split_of(p) for p in drawn} == {split}
        assert drawn == [draw(task, Random(seed), 1, split) for seed in range(20)]


def test_an_empty_split_is_an_error() -> None:
    task = finite(rows(1, levels=1))
    (split,) = (s for s in SPLITS if task.problems(0, s))
    for other in set(SPLITS) - {split}:
        with pytest.raises(ValueError, match="leave it out"):
            draw(task, Random(0), 0, other)
    with pytest.raises(ValueError, match="difficulties"):
        task.sample(Random(0), 1)


def test_a_repeated_prompt_is_one_problem_and_a_repeated_id_an_error() -> None:
    assert len(finite(rows(1) * 3).problems(0, split_of(finite(rows(1)).sample(Random(0), 0)))) == 1
    with pytest.raises(ValueError, match="own id"):
        finite([{"prompt": p, "answer": 1, "id": "one"} for p in ("a?", "b?")])
    again = finite([{"prompt": "a?", "answer": 1, "id": str(number)} for number in range(50)])
    assert [len(again.problems(0, split)) for split in SPLITS].count(0) == 2
    assert sum(len(again.problems(0, split)) for split in SPLITS) == 1


def test_a_repeated_prompt_with_another_answer_is_told(caplog: pytest.LogCaptureFixture) -> None:
    task = finite([{"prompt": "a?", "answer": answer} for answer in (1, 1, 2, 3)])
    assert task.sample(Random(0), 0).answer == "1"
    assert "2 rows repeat an earlier prompt with another answer" in caplog.text


def test_a_line_ends_at_a_line_break_alone(tmp_path: Path) -> None:
    """JSON may hold U+2028 and U+0085 as they are, where a text may be split into lines."""
    path = tmp_path / "mine.jsonl"
    path.write_text('{"prompt": "a\u2028b\x85?", "answer": 1}\r\n', encoding="utf-8")
    (task,) = find_tasks([f"jsonl:{path}"])
    assert task.sample(Random(0), 0).question == "a\u2028b\x85?"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"prompt": "a?"', "JSON"),
        ('["a?", "1"]', "object"),
        ('{"prompt": "a?"}', "answer: Field required"),
        ('{"prompt": "", "answer": "1"}', "prompt"),
        ('{"prompt": " ", "answer": "1"}', "prompt: String should match pattern"),
        ('{"prompt": "a?", "answer": true, "verifier": "exact"}', "answer: Input should be"),
        ('{"prompt": "a?", "answer": NaN, "verifier": "exact"}', "answer: Input should be"),
        ('{"prompt": "a?", "answer": ""}', "answer: String should have at least 1 character"),
        ('{"prompt": "a?", "answer": "1", "verifer": "math"}', "verifer"),
        ('{"prompt": "a?", "answer": "1", "verifier": "maths"}', "number, exact, math"),
        ('{"prompt": "a?", "answer": "1", "verifier": "call"}', "number, exact, math"),
        ('{"prompt": "a?", "answer": "1", "verifier": "expression"}', "number, exact, math"),
        ('{"prompt": "a?", "answer": "blue"}', "exact or math"),
        ('{"prompt": "a?", "answer": "1/2"}', "exact or math"),
        (r'{"prompt": "a?", "answer": "\\frac{3}{4}"}', "exact or math"),
        ('{"prompt": "a?", "answer": "2^{10}"}', "exact or math"),
        ('{"prompt": "a?", "answer": "3 or 5"}', "exact or math"),
        ('{"prompt": "a?", "answer": "2 pi"}', "exact or math"),
        ('{"prompt": "a?", "answer": "1.5 Million"}', "exact or math"),
        ('{"prompt": "a?", "answer": "\uff13"}', "as -5 or 1,250 m: write it so"),
        ('{"prompt": "a?", "answer": " "}', "answer: String should match pattern"),
        ('{"prompt": "a?", "answer": "1", "difficulty": "hard"}', "difficulty"),
    ],
)
def test_a_line_that_does_not_hold_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(f'{{"prompt": "ok?", "answer": 1}}\n\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=r"bad\.jsonl:3: ") as error:
        find_tasks([f"jsonl:{path}"])
    assert said in str(error.value)
    assert '{"prompt": …, "answer": …}' in str(error.value)


@pytest.mark.parametrize("answer", ["−7", "+5", ".5", "-$5", "$1,250.50", "x = -7", "12 apples."])
def test_a_reference_that_is_one_number_is_taken(tmp_path: Path, answer: str) -> None:
    path = tmp_path / "mine.jsonl"
    line = json.dumps({"prompt": "a?", "answer": answer, "id": 7})
    path.write_text(line, encoding="utf-8-sig")  # as some editors save it
    (task,) = find_tasks([f"jsonl:{path}"])
    problem = task.sample(Random(0), 0)
    assert problem.id.endswith(":7")
    assert task.verify(problem, f"It is {answer}")
    assert not task.verify(problem, "It is 8")


@given(
    st.sampled_from(["", "x=", "x = "]),
    st.lists(st.sampled_from(["-", "\u2212", "+", "$", "€", " "]), max_size=5).map("".join),
    st.sampled_from(["7", ".5", "1,250", "0.50"]),
    st.sampled_from(["", "%", " m", " apples."]),
)
def test_no_reference_is_read_as_another_number(name: str, sign: str, size: str, unit: str) -> None:
    reference = f"{name}{sign}{size}{unit}"
    try:
        row = Row(prompt="a?", answer=reference)
    except ValidationError:
        return
    value = Fraction(size.replace(",", ""))
    minuses = sign.count("-") + sign.count("\u2212")
    assert minuses <= 1
    assert Fraction(final_number(row.answer) or "") == (-value if minuses else value)


def test_a_file_that_is_missing_or_empty_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        find_tasks([f"jsonl:{tmp_path / 'none.jsonl'}"])
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="is empty"):
        find_tasks([f"jsonl:{tmp_path / 'empty.jsonl'}"])


@pytest.fixture
def data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two splits in parquet, as the hub's data sets have them."""
    import datasets
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    directory = tmp_path / "data"
    directory.mkdir()
    for split, n in (("train", 40), ("test", 6)):
        table = pa.table(
            {
                "question": [f"{split}: half of {i}?" for i in range(n)],
                "solution": [rf"\frac{{{i}}}{{2}}" for i in range(n)],
                "level": [i % 3 for i in range(n)],
            }
        )
        parquet.write_table(table, directory / f"{split}-00000-of-00001.parquet")
    return directory


def test_a_data_set_is_a_task(data_set: Path) -> None:
    query = "split=test&prompt=question&answer=solution&difficulty=level&verifier=math"
    (task,) = find_tasks([f"hf:{data_set}?{query}"])
    assert task.difficulties == (0, 1, 2)
    problems = {task.sample(Random(seed), 1) for seed in range(40)}
    assert {p.question for p in problems} == {"test: half of 1?", "test: half of 4?"}
    assert all(task.verify(p, p.answer) for p in problems)
    (four,) = (p for p in problems if "4" in p.question)
    assert task.verify(four, "$2$")


def test_the_first_split_is_train(data_set: Path) -> None:
    (task,) = find_tasks([f"hf:{data_set}?prompt=question&answer=solution&verifier=math"])
    assert task.sample(Random(0), 0).question.startswith("train: ")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("", "no column 'prompt': add ?prompt= and one of question, solution, level"),
        (
            "?colour=red",
            "colour: Extra inputs are not permitted; its options are ?split=…&config=…",
        ),
        ("?prompt", "'prompt'; its options are ?split"),
        ("?split=dev", "dev"),
        ("?prompt=question&answer=solution&verifier=maths", "row 0: Value error, no verifier"),
    ],
)
def test_what_a_data_set_lacks_is_named(data_set: Path, query: str, said: str) -> None:
    with pytest.raises(ValueError, match="hf:") as error:
        find_tasks([f"hf:{data_set}{query}"])
    assert said in str(error.value)


def test_a_data_set_with_a_file_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"prompt": "a?", "answer": "1"}\n{"prompt": "b')
    with pytest.raises(ValueError, match="cannot be loaded"):
        find_tasks([f"hf:{tmp_path}"])


def test_a_data_set_that_does_not_exist_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="cannot be loaded"):
        find_tasks([f"hf:{tmp_path / 'nowhere'}"])
