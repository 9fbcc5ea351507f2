"""Verifiers of the user's own, `package.module:name`: found, refused, and held in their cells."""

from __future__ import annotations

from pathlib import Path

import pytest

from ponder.tasks.problem_set import read_jsonl
from ponder.tasks.problems import Problem
from ponder.tasks.verifiers import VERIFIERS, find, verify
from ponder.tasks.workers import Verdict, VerifierPool

EXAMPLES = Path(__file__).parents[2] / "examples" / "extending"
OWN = """
from pathlib import Path
NUMBER = 3
class Judge: ...
inside = lambda problem, text: True
def writes(problem, text):
    if "write" in text:
        Path({here!r}, "written").write_text(text)
    return True
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own_judges.py").write_text(OWN.format(here=str(tmp_path)))
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.syspath_prepend(tmp_path)


def pi(verifier: str) -> Problem:
    return Problem("pi:1", "pi", 0, "What is pi?", "3.1416", verifier)


def test_it_judges_as_it_says() -> None:
    texts = {"About 3.15.": True, "3.3": False, "I do not know": False}
    assert {text: verify(pi("tolerant:close"), text) for text in texts} == texts
    assert not find("tolerant:close").trusted
    assert find("number") is VERIFIERS["number"]


def test_it_is_held_as_the_others_are(tmp_path: Path) -> None:
    asked = [(pi("own_judges:writes"), text) for text in ("fine", "write this", "fine")]
    with VerifierPool(1) as pool:
        verdicts = pool.judge(asked)
    assert [verdict.correct for verdict in verdicts] == [True, False, True]
    assert verdicts[0] == verdicts[2] == Verdict(True)
    assert verdicts[1].failure is not None
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("almost", "name one of number, .* or your own as package.module:name"),
        (":judge", "no verifier ':judge': name one of number"),
        ("..own_judges:writes", "no verifier '..own_judges:writes': name one of number"),
        ("no_such_module:judge", "no_such_module.*PYTHONPATH"),
        ("own_judges:nobody", "nobody.*PYTHONPATH"),
        ("own_judges:NUMBER", "must be a function"),
        ("own_judges:Judge", "must be a function"),
        ("own_judges:inside", "must be a function"),
    ],
)
def test_what_cannot_judge_is_refused_where_problems_are_read(
    name: str, said: str, tmp_path: Path
) -> None:
    problems = tmp_path / "mine.jsonl"
    problems.write_text(f'{{"prompt": "?", "answer": "1", "verifier": "{name}"}}\n')
    with pytest.raises(ValueError, match=said):
        read_jsonl("mine", problems)
