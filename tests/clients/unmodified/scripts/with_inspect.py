"""Inspect, of the UK's AI Security Institute."""

import json

from command import folder, run_program
from said import MODEL, QUESTION, URL, run

TASK = f"""\
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes


@task
def sums():
    return Task(dataset=[Sample(input={QUESTION!r}, target="33")], scorer=includes())
"""


def task():
    home = folder()
    (home / "sums.py").write_text(TASK)
    body = json.dumps({"thinking_token_budget": 64})
    run_program(
        "inspect",
        "eval",
        "sums.py",
        "--model",
        f"openai-api/ponder/{MODEL}",
        "--extra-body",
        body,
        "--temperature",
        "0",
        "--log-format",
        "json",
        "--display",
        "none",
        cwd=home,
        PONDER_BASE_URL=URL,
        PONDER_API_KEY="none",
        INSPECT_LOG_DIR=home / "logs",
    )
    (log,) = (home / "logs").glob("*.json")
    found = json.loads(log.read_text())
    metrics = found["results"]["scores"][0]["metrics"]
    return {"status": found["status"], "right": metrics["accuracy"]["value"]}


run(globals())
