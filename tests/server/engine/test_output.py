"""The standard streams of a process that loads a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE

PROGRAM = """
import logging, os, subprocess, sys, time
from pathlib import Path
from ponder.engine.output import Output

console = os.fdopen(os.dup(2), "w")
logging.basicConfig(stream=console, level=logging.WARNING, format="%(levelname)s|%(message)s")
output = Output(Path(sys.argv[1]), live=sys.argv[2] == "live")
child = subprocess.Popen(
    ["sh", "-c", "echo noise; read go; echo '(EngineCore pid=1) ERROR 11-25 broken'; echo '  why'"],
    stdin=subprocess.PIPE,
)
while "noise" not in output.text():
    time.sleep(0.01)
print("a bar 10%|#", end="\\r", flush=True)
os.write(2, b"and a word\\n")
while not ("and a word" in output.text() and output.progress):
    time.sleep(0.01)
assert output.progress == "a bar 10%|#"
output.loaded()
print("my own", flush=True)
logged = []
logging.getLogger().handlers[0].addFilter(lambda record: logged.append(record.getMessage()) or True)
child.communicate(b"go\\n")
while "  why" not in logged:
    output.text()
"""


def run(tmp_path: Path, mode: str) -> tuple[str, list[str], str]:
    program, kept = tmp_path / "program.py", tmp_path / "kept"
    program.write_text(PROGRAM)
    command = [sys.executable, program, kept, mode]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr + kept.read_text()
    return done.stdout, done.stderr.splitlines(), kept.read_text()


def test_what_is_printed_while_a_model_loads_is_kept_and_later_lines_are_logged(
    tmp_path: Path,
) -> None:
    out, err, kept = run(tmp_path, "quiet")
    assert out == "my own\n"
    assert err[-2:] == ["ERROR|(EngineCore pid=1) ERROR 11-25 broken", "ERROR|  why"]
    assert not [line for line in err if "noise" in line]
    assert "noise\n" in kept
    assert "broken" not in kept
    assert "my own" not in kept


def test_who_asked_for_the_engines_log_sees_it_from_the_start(tmp_path: Path) -> None:
    _, err, kept = run(tmp_path, "live")
    assert [line for line in err if line.startswith("WARNING|") and line.endswith("noise")]
    assert "noise\n" in kept
