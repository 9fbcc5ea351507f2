import json
import re
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO

from rich.console import Console

from ponder.evaluation.aggregate import anytime
from ponder.evaluation.command import Options
from ponder.evaluation.evaluate import Sample
from ponder.evaluation.protocol import Subject
from ponder.evaluation.tables import as_json, print_report
from ponder.tasks.tiny import TINY_TASKS

from .measured import PROBLEMS, Oracle, measure


def printed(samples: Sequence[Sample]) -> str:
    console = Console(file=StringIO(), width=80)
    print_report(samples, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_report_shows_conditions_difficulties_and_families() -> None:
    text = printed(measure(Oracle(), budgets=Options(target="m").budgets))
    for word in ("natural", "efficient", "hint 80", "free", "100.0%", "anytime accuracy", "1.09"):
        assert word in text
    assert text.count("pass@2 / all-2-pass") == 1
    rows = text.partition("any/all is")[2].splitlines()
    labels = [row.split()[0] for row in rows if row.startswith("   ") and row.strip()]
    assert labels == ["95", "tokens", "any/all"] * (len(labels) // 3) and len(labels) > 9
    assert all(task.name in text for task in TINY_TASKS)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text, "a cell was cropped"


def test_tokens_that_nobody_reports_are_not_made_up() -> None:
    text = printed(measure(Oracle(reports_tokens=False), ["natural"]))
    assert "not reported" in text
    assert "anytime" not in text


def failing(samples: Sequence[Sample], *ids: str) -> list[Sample]:
    """The samples, where every request of the named problems failed."""
    lost = {"correct": False, "thinking_tokens": None, "end_cause": "error"}
    return [replace(s, **lost) if s.problem.id in ids else s for s in samples]


def test_problems_whose_requests_all_failed_are_counted() -> None:
    samples = measure(Oracle(), ["natural"])
    assert "failed" not in printed(samples)
    text = printed(failing(samples, PROBLEMS[0].id))
    assert "condition natural: every request of 1 of 35 problems failed" in text
    assert "not reported" not in text and re.search(r"natural .* \d+\.\d ± ", text)
    text = printed(failing(samples, *(problem.id for problem in PROBLEMS)))
    assert "every request of 35 of 35 problems failed" in text and "not reported" not in text
    written = as_json(failing(samples, PROBLEMS[0].id), {}, Subject("oracle"), {})
    assert [(cell["measured"], cell["problems"]) for cell in written["conditions"]] == [(34, 35)]


def test_the_json_says_what_where_and_from_what() -> None:
    samples = measure(Oracle())
    subject = Subject("oracle", (40, 80), "c0de")
    written = json.loads(json.dumps(as_json(samples, {"seed": 4}, subject, {"time": 2})))
    assert written["settings"] == {"seed": 4}
    assert written["subject"]["contract_sha256"] == "c0de"
    assert written["unjudged_answers"] == {"time": 2}
    assert written["machine"]["versions"]["torch"]
    natural, *_, free, _, _, _, served = written["conditions"]
    assert (natural["mode"], natural["budget"], natural["accuracy"]["mean"]) == ("natural", None, 1)
    assert natural["any_pass"]["2"]["mean"] == natural["all_pass"]["2"]["mean"] == 1.0
    assert (free["mode"], free["budget"], free["tokens"]["mean"]) == ("truncated", -1, 40.0)
    assert (served["mode"], served["budget"]) == ("served", -1)
    found = anytime(samples)
    assert found is not None and written["anytime"]["mean"] == found.mean
    assert written["hint_ratio"]["mean"] > 1
    assert len(written["difficulties"]) == 12 * 7
    assert {cell["task"] for cell in written["tasks"]} == {task.name for task in TINY_TASKS}
    assert [problem["id"] for problem in written["problems"]] == [p.id for p in PROBLEMS]
    tally = written["tallies"][0]
    assert (tally["mode"], len(tally["correct"])) == ("natural", 35)
    assert sum(tally["correct"]) / sum(tally["samples"]) == natural["accuracy"]["mean"]
    assert tally["tokens"] == [10.0 * p.difficulty for p in PROBLEMS]
