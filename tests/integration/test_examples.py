"""Every example and every block of docs/client.md runs against a real server, and is right."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import ServerProcess

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
JAVASCRIPT = ROOT / ".tools" / "javascript"
ANSWER = "The answer is 33."
BUDGETS = ["budget 0: ", "budget 8: ", f"budget 64: {ANSWER}"]
SAYS = {
    "budgets.py": BUDGETS,
    "streaming.py": [ANSWER, " of 64 tokens of thought were used"],
    "asynchronous.py": ["17 + 25 - 9? The answer is 33.", "40 + 12 - 20? The answer is 32."],
    "langchain_chat.py": [ANSWER, "tokens of thought"],
    "tools.py": ["budget 0: calculate(4821 * 377)", "budget 64: The answer is 1817517."],
    "typed_client.py": [ANSWER, "savings: insufficient data", "invalid_budget: "],
    "curl.sh": ['"trained_budgets"', ANSWER, '"end_cause"', "data: [DONE]"],
    "chat.mjs": [*BUDGETS, ANSWER],
}
BLOCKS = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/client.md").read_text(), re.M | re.S)


def run(server: ServerProcess, *command: str | Path) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, "PONDER_URL": server.url, "PONDER_API_KEY": "none"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def found(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is missing: apt-get install {package}")
    return path


@pytest.fixture(scope="session")
def javascript() -> Path:
    """A folder with the packages that examples/package.json names, outside of the tree."""
    npm = found("npm", "npm")
    wanted = json.loads((EXAMPLES / "package.json").read_text())["dependencies"]
    installed = JAVASCRIPT / "node_modules" / "openai" / "package.json"
    if not installed.exists() or json.loads(installed.read_text())["version"] != wanted["openai"]:
        JAVASCRIPT.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / "package.json", JAVASCRIPT)
        quiet = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
        done = subprocess.run(
            [npm, "install", *quiet],
            cwd=JAVASCRIPT,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"npm could not install openai ({done.stderr.strip()}): mend its registry")
    return JAVASCRIPT


def test_no_example_is_left_out() -> None:
    others = {"README.md", "package.json", "package-lock.json"}
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()}
    assert files - others == set(SAYS)
    assert set(re.findall(r"^\| \[([\w.]+)\]", (EXAMPLES / "README.md").read_text(), re.M)) == set(
        SAYS
    )


@pytest.mark.parametrize("name", [name for name in SAYS if name.endswith(".py")])
def test_examples_in_python(server: ServerProcess, name: str) -> None:
    said = run(server, sys.executable, EXAMPLES / name)
    assert [part for part in SAYS[name] if part not in said] == [], said


def test_the_example_for_curl(server: ServerProcess) -> None:
    found("curl", "curl")
    said = run(server, "sh", EXAMPLES / "curl.sh")
    assert [part for part in SAYS["curl.sh"] if part not in said] == [], said


def test_the_example_in_javascript(server: ServerProcess, javascript: Path) -> None:
    shutil.copy(EXAMPLES / "chat.mjs", javascript)
    said = run(server, found("node", "nodejs"), javascript / "chat.mjs")
    assert [part for part in SAYS["chat.mjs"] if part not in said] == [], said


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_pages_code_says_what_its_comments_promise(server: ServerProcess, number: int) -> None:
    code = BLOCKS[number]
    promised = set(re.findall(r"^ +print\(.*\)  # (.+)$", code, re.MULTILINE))
    said = run(server, sys.executable, "-c", code).splitlines()
    assert promised, "a block shows at least one result"
    assert promised - set(said) == set(), said
