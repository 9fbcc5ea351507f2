"""The savings over HTTP: report, feedback and sums say what the responses of a run said."""

from __future__ import annotations

import math
import re
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from ponder.engine.tokenizer import ModelFiles
from ponder.experiment import moments as estimator
from ponder.experiment.store import StateError
from ponder.server import service
from ponder.server.model import ServedModel
from ponder.server.savings import open_ledger
from ponder.server.settings import Settings
from waiting import wait_until

from .conftest import Running, Serve

ENDLESS = "thinking and thinking " * 400  # no end of a sentence, where a cut could be early
HOLDOUT: dict[str, Any] = {
    "holdout": 0.5,
    "holdout_key": "a key of sixteen",
    "default_budget": 9,
    "budget_ceiling": 40,
}


def savings(running: Running) -> dict[str, Any]:
    answer = httpx.get(f"{running.url}/v1/ponder/savings")
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def rate(running: Running, response: str, body: object) -> httpx.Response:
    return httpx.post(f"{running.url}/v1/ponder/{response}/feedback", json=body)


def series(running: Running, name: str) -> dict[str, float]:
    """Value by the labels other than the experiment."""
    text = httpx.get(f"{running.url}/metrics").text
    found = re.findall(rf"^{name}(?:{{(\S*)}})? (\S+)$", text, re.MULTILINE)
    return {re.sub(r'experiment="\w+",?', "", labels).rstrip(","): float(v) for labels, v in found}


def errors(running: Running) -> dict[str, float]:
    """The errors that were counted: every code begins at 0."""
    counted = series(running, "ponder_errors_total")
    return {labels: value for labels, value in counted.items() if value}


def test_the_sums_are_those_of_the_responses(serve: Serve) -> None:
    running = serve(ENDLESS, "ok", **HOLDOUT)
    costs: dict[str, dict[str, list[int]]] = {"policy": {}, "holdout": {}}
    for index in range(24):
        user = f"user {index % 8}"
        reply = running.ask(user=user, n=1 + index % 2)
        arm = reply.choices[0].ponder["arm"]
        costs[arm].setdefault(user, []).append(reply.usage.completion_tokens)
    found = savings(running)
    for arm, conversations in costs.items():
        sums = [sum(spent) for spent in conversations.values()]
        counts = [len(spent) for spent in conversations.values()]
        report = found["tokens"][arm]
        assert report["count"] == sum(counts) == found["seconds"][arm]["count"]
        assert report["conversations"] == len(sums)
        assert report["mean"]["value"] == pytest.approx(sum(sums) / sum(counts))
        label = f'arm="{arm}"'
        pairs = list(zip(sums, counts, strict=True))
        expected = {
            "sum": sum(sums),
            "count": sum(counts),
            "squares": sum(s * s for s in sums),
            "products": sum(s * c for s, c in pairs),
            "count_squares": sum(c * c for c in counts),
            "conversations": len(sums),
        }
        for key, value in expected.items():
            assert series(running, f"ponder_holdout_tokens_{key}")[label] == value
        empty = series(running, "ponder_holdout_quality_sum")
        assert empty[f'arm="{arm}",signal="empty"'] == 0
        forced = series(running, "ponder_holdout_quality_count")[f'arm="{arm}",signal="forced"']
        assert forced == sum(
            series(running, "ponder_requests_total").get(key, 0)
            for key in (f'arm="{arm}",end_cause="{cause}"' for cause in ("budget", "natural"))
        )
    assert (found["status"], found["tokens"]["difference"]) == ("insufficient data", None)
    assert found["more_requests_needed"] == math.ceil(
        max((200 - len(conversations)) / 0.5 for conversations in costs.values()) * 24 / 8
    )


def test_a_report_measures_once_there_is_enough(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimator, "MIN_CONVERSATIONS", 5)
    running = serve(ENDLESS, "ok", **HOLDOUT)
    for index in range(30):
        running.ask(user=f"user {index}")
    found = savings(running)["tokens"]
    assert (found["status"], found["more_needed"]) == ("measured", 0)
    # Every thought ends at its budget: the difference is that of the budgets, without spread.
    assert found["difference"]["value"] == pytest.approx(9 - 40)
    policy, holdout = (found[arm]["mean"]["value"] for arm in ("policy", "holdout"))
    assert found["ratio"]["value"] == pytest.approx(policy / holdout)
    assert found["ratio"]["low"] == pytest.approx(found["ratio"]["high"])


def test_feedback_is_counted_once_and_its_last_score_holds(serve: Serve) -> None:
    running = serve("a</think>b")
    reply = running.ask()
    for score in (0, 1, 0.25):
        answer = rate(running, reply.id, {"score": score})
        assert answer.json() == {"object": "ponder.feedback", "id": reply.id, "score": score}
    chunks = running.ask(stream=True)
    assert rate(running, chunks[0].id, {"score": 1}).status_code == 200
    label = 'arm="policy",signal="feedback"'
    assert series(running, "ponder_holdout_quality_sum")[label] == 1.25
    assert series(running, "ponder_holdout_quality_count")[label] == 2
    assert series(running, "ponder_holdout_quality_squares")[label] == 0.25**2 + 1
    assert savings(running)["quality"]["feedback"]["policy"]["mean"]["value"] == 0.625


def test_a_response_that_nobody_knows_cannot_be_rated(serve: Serve) -> None:
    answer = rate(serve(), "chatcmpl-nothing", {"score": 1})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "response_not_found"


@pytest.mark.parametrize("score", [-0.1, 1.1, "1", True, None, [1]])
def test_a_score_is_a_number_from_zero_to_one(serve: Serve, score: object) -> None:
    error = rate(serve(), "chatcmpl-nothing", {"score": score}).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_request", "score")


def test_both_routes_ask_for_the_key(serve: Serve) -> None:
    running = serve(api_key=["secret"])
    assert httpx.get(f"{running.url}/v1/ponder/savings").status_code == 401
    assert rate(running, "chatcmpl-nothing", {"score": 1}).status_code == 401


def test_an_empty_answer_is_charged_to_its_arm(serve: Serve) -> None:
    running = serve("thought</think>" + "\n" * 100)
    with running.client() as client, pytest.raises(Exception, match="no answer"):
        client.chat.completions.create(
            model="tiny",
            messages=[{"role": "user", "content": "hi"}],
            extra_body={"ponder": {"max_answer_tokens": 20}},
        )
    assert series(running, "ponder_empty_answers_total") == {'arm="policy"': 1}
    quality = savings(running)["quality"]
    assert quality["empty"]["policy"]["count"] == 1
    assert series(running, "ponder_holdout_quality_sum")['arm="policy",signal="empty"'] == 1
    sampled = sum(len(output) for output in running.engine.outputs)
    assert series(running, "ponder_holdout_tokens_sum")['arm="policy"'] == sampled


def test_a_client_that_leaves_is_charged_too(serve: Serve) -> None:
    """Or the arm that more of them leave would look cheap."""
    running = serve(ENDLESS, delay=0.01)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/chat/completions", json=body) as answer:
        next(answer.iter_lines())
    wait_until(lambda: 'arm="policy"' in series(running, "ponder_holdout_tokens_sum"))
    spent = series(running, "ponder_holdout_tokens_sum")['arm="policy"']
    assert spent > 0
    assert savings(running)["quality"]["empty"]["policy"]["count"] == 0
    assert series(running, "ponder_unfinished_tokens_total") == {'arm="policy"': spent}
    assert series(running, "ponder_prompt_tokens_total")['arm="policy"'] > 0
    assert series(running, "ponder_client_disconnects_total") == {"": 1}


def test_a_client_that_leaves_its_feedback_unsaid_is_no_error(serve: Serve) -> None:
    running = serve("ok")
    host, port = running.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/ponder/x/feedback HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99\r\n\r\n"
        client.sendall(head.encode() + b"{")
    wait_until(lambda: series(running, "ponder_client_disconnects_total") == {"": 1})
    assert errors(running) == {}


def test_state_survives_a_restart_and_is_shared(serve: Serve, tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state.sqlite3"
    one, two = (serve(ENDLESS, "ok", **HOLDOUT, state=state) for _ in range(2))
    ids = [running.ask(user="me").id for running in (one, two, one)]
    # Two rates what one answered, once one has written it.
    wait_until(lambda: rate(two, ids[0], {"score": 1}).status_code == 200)
    # One conversation on two servers is one conversation.
    again = serve(ENDLESS, "ok", **HOLDOUT, state=state)
    reports = [savings(running) for running in (one, two, again)]
    assert reports[0] == reports[1] == reports[2]
    arms = (reports[0]["tokens"][arm] for arm in ("policy", "holdout"))
    assert sorted((arm["conversations"], arm["count"]) for arm in arms) == [(0, 0), (1, 3)]


def test_other_settings_are_another_experiment(serve: Serve, tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite3"
    one = serve(ENDLESS, "ok", **HOLDOUT, state=state)
    reply = one.ask(user="me")
    other = serve(ENDLESS, "ok", **{**HOLDOUT, "default_budget": 12}, state=state)
    before, after = savings(one), savings(other)
    assert before["experiment"] != after["experiment"]
    assert sum(after["tokens"][arm]["count"] for arm in ("policy", "holdout")) == 0
    assert rate(other, reply.id, {"score": 1}).status_code == 200  # and is credited to the first
    feedback = savings(one)["quality"]["feedback"]
    assert sum(feedback[arm]["count"] for arm in ("policy", "holdout")) == 1


def test_a_checkpoint_trained_anew_is_another_experiment(files: ModelFiles, tmp_path: Path) -> None:
    settings = Settings(**HOLDOUT, state=str(tmp_path / "state.sqlite3"))
    model = ServedModel.load(files, settings)
    checkpoint = model.checkpoint
    assert checkpoint.contract is not None
    anew = [
        replace(
            model,
            checkpoint=replace(checkpoint, contract=replace(checkpoint.contract, **change)),
        )
        for change in ({}, {"seed": 1}, {"recipe_sha256": "0" * 64}, {"base_model": "other"})
    ]
    experiments = []
    for served in (model, *anew):
        with closing(open_ledger(settings, served)) as ledger:
            experiments.append(ledger.experiment)
    assert experiments[0] == experiments[1]
    assert len(set(experiments)) == 4


def test_no_name_and_no_text_is_kept(serve: Serve, tmp_path: Path) -> None:
    state = tmp_path / "state.sqlite3"
    running = serve(ENDLESS, "ok", **HOLDOUT, state=state)
    running.ask("a private question", user="somebody@example.org")
    savings(running)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert len(kept) > 1000
    assert not [
        word for word in (b"private", b"somebody", b"ok\n", b"thinking and") if word in kept
    ]


def test_state_that_cannot_be_kept_is_said_at_the_start(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a database, but long enough to look like one" * 100)
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StateError, match="--state"):
            serve(state=path)
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(StateError, match="format 99"):
        serve(state=tmp_path / "newer")


def test_metrics_outlive_a_state_that_fails(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = serve("a</think>b")
    running.ask()
    assert series(running, "ponder_state_failures_total") == {"": 0}
    ledger = running.service.ledger
    ledger._thread.submit(ledger._store._database.execute, "DROP TABLE totals").result()
    running.ask()
    assert series(running, "ponder_requests_total")['arm="policy",end_cause="natural"'] == 2
    assert series(running, "ponder_state_failures_total")[""] >= 1
    refused = httpx.get(f"{running.url}/v1/ponder/savings")
    assert refused.status_code == 503
    error = refused.json()["error"]
    assert error["code"] == "state_unavailable"
    assert "--state" in error["message"]


def test_a_lock_costs_no_account_and_holds_up_nobody(serve: Serve, tmp_path: Path) -> None:
    """All of this is answered while another process holds the file, which it does to the end."""
    state = tmp_path / "state.sqlite3"
    running = serve("a</think>b", state=state)
    known = running.ask()
    assert series(running, "ponder_holdout_tokens_count") == {'arm="policy"': 1}
    with closing(sqlite3.connect(state, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waits = [running.ask() for _ in range(3)]
        for reply in (known, *waits):
            refused = rate(running, reply.id, {"score": 1})
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "state_unavailable"
            assert "another process holds it" in refused.json()["error"]["message"]
            assert refused.headers["retry-after"] == "1"
        assert httpx.get(f"{running.url}/v1/ponder/savings").status_code == 503
        assert series(running, "ponder_holdout_tokens_count") == {'arm="policy"': 1}
        assert series(running, "ponder_state_pending_entries") == {"": 3}
        assert series(running, "ponder_state_failures_total")[""] >= 1
        other.execute("ROLLBACK")
    wait_until(lambda: rate(running, known.id, {"score": 1}).status_code == 200)
    for reply in waits:
        assert rate(running, reply.id, {"score": 1}).status_code == 200
    assert series(running, "ponder_holdout_tokens_count") == {'arm="policy"': 4}
    assert series(running, "ponder_state_lost_entries_total") == {"": 0}


def test_a_scrape_does_not_wait_for_a_disk_that_hangs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "STATE_SECONDS", 0.1)
    running = serve("a</think>b")
    running.ask()
    assert series(running, "ponder_holdout_tokens_count") == {'arm="policy"': 1}
    hangs = threading.Event()
    running.service.ledger._thread.submit(hangs.wait)
    try:
        running.ask()
        assert series(running, "ponder_holdout_tokens_count") == {'arm="policy"': 1}
    finally:
        hangs.set()
    assert "not read within" in caplog.text
    wait_until(lambda: series(running, "ponder_holdout_tokens_count") == {'arm="policy"': 2})


def test_several_answers_of_one_request_are_one_conversation(serve: Serve) -> None:
    running = serve("a</think>b")
    running.ask(n=3)
    running.ask(n=2)
    expected = {"count": 2.0, "conversations": 2.0, "count_squares": 2.0}
    for part, value in expected.items():
        assert series(running, f"ponder_holdout_tokens_{part}") == {'arm="policy"': value}
    forced = {"count": 5.0, "conversations": 2.0, "count_squares": 9.0 + 4.0}
    for part, value in forced.items():
        label = 'arm="policy",signal="forced"'
        assert series(running, f"ponder_holdout_quality_{part}")[label] == value


def test_the_names_pass_promtool(serve: Serve, program: Callable[[str], Path]) -> None:
    running = serve(ENDLESS, "ok", **HOLDOUT)
    running.ask(budget=3)
    text = httpx.get(f"{running.url}/metrics").text
    ours = text[: text.index("# HELP python_")]
    done = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=ours,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
