"""`make demo`: runs a server and Prometheus, asks mixed questions, reports what was saved.

    .venv/bin/python deploy/demo.py [--duration 60] [--keep] [--report runs/demo.html]

Everything runs on this machine, on free ports, and ends when the report is written; with `--keep`
it runs on until Ctrl-C. The policy under test is a default budget, of which the server tells the
model: one that thinks long unless it is told a budget, as most reasoning models do. The
demonstration verifies every answer, and sends the verdict as feedback.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import programs
import report
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from ponder.cage.parent import die_with
from ponder.client import AsyncPonder, Ponder, PonderAPIError
from ponder.tasks.tiny import DIFFICULTIES, TINY_TASKS
from ponder.thought.contract import Contract

DEPLOY = Path(__file__).resolve().parent
PAGE = DEPLOY.parent / "runs" / "demo.html"
MODEL = DEPLOY.parent / "studies" / "bundled" / "hinted"
START_SECONDS = 600.0
STOP_SECONDS = 45.0
CONCURRENCY = 16
SCRAPE_SECONDS = 2
HOLDOUT = 0.5  # far more than a real deployment holds out, so that a minute is enough
console = Console(highlight=False)


class DemoError(Exception):
    """The demonstration failed; the message says why and where to look."""


@dataclass
class Tally:
    """Counts of the load's answers and errors."""

    answered: int = 0
    right: int = 0
    errors: dict[str, int] = field(default_factory=dict)


Child = subprocess.Popen[bytes]


@contextlib.contextmanager
def process(
    command: list[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Run a child in a session of its own, so that Ctrl-C reaches it only through this process.

    Start it in the main thread: it is told to end when that thread is gone.
    """
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            preexec_fn=functools.partial(die_with, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - it takes no lock
        )
    try:
        yield child
    finally:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def end_on_signals() -> None:
    """End as on Ctrl-C when told to, and when the terminal goes, so that no child runs on.

    A shell's background jobs ignore Ctrl-C; under nohup, a terminal that goes is still ignored.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)


def wait_ready(name: str, url: str, child: Child, log: Path) -> None:
    with console.status(f"{name} is starting (its output: {log})"):
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if child.poll() is not None:
                said = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise DemoError(f"{name} exited with {child.returncode}:\n{said}")
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(url, timeout=2).status_code == 200:
                    return
            time.sleep(0.2)
    raise DemoError(f"{name} was not ready in {START_SECONDS:.0f} s: see {log}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def budget() -> int:
    """The policy: the largest budget of which the server tells the model's second trained budget.

    The model keeps to what it is told, which saves tokens. With almost twice as many hardly a
    thought is cut, and only cuts cost right answers.
    """
    contract = Contract.load(MODEL)
    assert contract is not None
    return contract.trained_budgets[2] - 1


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """Serve the model under a default budget, with a holdout. Yields the URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command: list[str | Path] = [sys.executable, "-m", "ponder.cli.main", "serve", MODEL]
    command += ["--port", str(port), "--default-budget", str(budget())]
    command += ["--holdout", str(HOLDOUT), "--holdout-key", "a key for a demonstration"]
    command += ["--state", folder / "state.sqlite3"]
    with process(command, folder / "server.log") as child:
        wait_ready("ponder", f"{url}/readyz", child, folder / "server.log")
        yield url


@contextlib.contextmanager
def prometheus(folder: Path, *targets: str) -> Iterator[str]:
    """Run Prometheus with the shipped rules, at shorter intervals. Yields its URL."""
    program = programs.find("prometheus")
    for name in ("savings.yml", "alerts.yml"):
        shutil.copy(DEPLOY / "prometheus" / name, folder)
    consoles = DEPLOY / "prometheus" / "consoles"
    configuration = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    quick = re.sub(r"(_interval): \S+", rf"\1: {SCRAPE_SECONDS}s", configuration)
    (folder / "prometheus.yml").write_text(quick)
    listed = ", ".join(f'"{target.removeprefix("http://")}"' for target in targets)
    (folder / "targets.yml").write_text(f"- targets: [{listed}]\n")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command: list[str | Path] = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'metrics'}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url={url}",
        f"--web.console.templates={consoles}",
    ]
    with process(command, folder / "prometheus.log") as child:
        wait_ready("prometheus", f"{url}/-/ready", child, folder / "prometheus.log")
        yield url


async def load(url: str, seconds: float) -> Tally:
    """Ask questions for `seconds` and rate the answers; each lane asks its next after an answer."""
    tally, source, end = Tally(), random.Random(), time.monotonic() + seconds

    async def lane(client: AsyncPonder) -> None:
        while time.monotonic() < end:
            task = source.choice(TINY_TASKS)
            problem = task.sample(source, source.choice(DIFFICULTIES))
            try:
                reply = await client.chat(problem.question)
                score = task.verify(problem, reply.choices[0].message.content or "")
                await client.feedback(reply.id, float(score))
            except PonderAPIError as error:
                tally.errors[error.code] = tally.errors.get(error.code, 0) + 1
                await asyncio.sleep(1)
                continue
            tally.answered += 1
            tally.right += score

    async with (
        AsyncPonder(url) as client,
        _bar(tally, seconds),
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CONCURRENCY):
            group.create_task(lane(client))
    return tally


@contextlib.asynccontextmanager
async def _bar(tally: Tally, seconds: float) -> AsyncIterator[None]:
    """Show the time as a bar, and beside it the answers so far."""
    text = TextColumn("{task.fields[answered]} answers, {task.fields[right]:.0%} right")
    columns = (TextColumn("asking"), BarColumn(), TimeRemainingColumn(), text)

    async def advance(progress: Progress) -> None:
        task = progress.add_task("", total=seconds, answered=0, right=0.0)
        start = time.monotonic()
        while True:
            right = tally.right / max(1, tally.answered)
            passed = time.monotonic() - start
            progress.update(task, completed=passed, answered=tally.answered, right=right)
            await asyncio.sleep(0.25)

    with Progress(*columns, console=console) as progress:
        advancing = asyncio.create_task(advance(progress))
        try:
            yield
        finally:
            advancing.cancel()


def summary(url: str, monitor: report.Monitor, page: Path, tally: Tally) -> None:
    """Print what was measured and the raised alerts, and write the page."""
    with Ponder(url) as client:
        savings = client.savings().model_dump(mode="json")
    policy = (
        f"The policy is a default budget of {budget()} tokens, of which the model is told; the "
        f"holdout, {HOLDOUT:.0%} of the conversations, thinks without one."
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(report.page(savings, monitor, policy), encoding="utf-8")
    console.print("", report.table(savings), policy, "", sep="\n")
    console.print(f"[bold]{report.sentence(savings)}[/bold]")
    raised = [
        f"{name} is {state}" for name, state in monitor.alerts().items() if state != "inactive"
    ]
    console.print(f"Alerts: {', '.join(raised) or 'none'}.")
    for code, times in tally.errors.items():
        console.print(f"{times} requests ended in {code}.")
    console.print(
        f"The dashboard and the alerts as a page: {page.absolute().as_uri()}", soft_wrap=True
    )


def look(url: str, monitor: str) -> None:
    """Print the addresses of the pages while everything runs on."""
    console.print("\nServer and Prometheus keep running. Ctrl-C ends them.")
    pages = {
        f"{url}/docs": "the server's API",
        f"{url}/metrics": "its metrics",
        f"{monitor}/alerts": "rules and alerts",
        f"{monitor}/consoles/runbook.html": "what to do about an alert",
    }
    for page, what in pages.items():
        # Debian's Prometheus has pages of its own only where it is installed, not just unpacked.
        if httpx.get(page).status_code == 200:
            console.print(f"  {page:<48} {what}", soft_wrap=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--duration", type=float, default=60, help="seconds of load (60)")
    parser.add_argument("--keep", action="store_true", help="run on until Ctrl-C")
    parser.add_argument("--report", type=Path, default=PAGE, help="the page (runs/demo.html)")
    options = parser.parse_args()
    end_on_signals()
    try:
        programs.find("prometheus")
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ponder-demo-")))
            url = stack.enter_context(server(folder))
            monitor = stack.enter_context(prometheus(folder, url))
            start = time.time()
            tally = asyncio.run(load(url, options.duration))
            time.sleep(3 * SCRAPE_SECONDS)  # for a last scrape, and the rules after it
            watched = report.Monitor(monitor, start, time.time())
            summary(url, watched, options.report, tally)
            if options.keep:
                look(url, monitor)
                signal.pause()
    except KeyboardInterrupt:
        console.print("\ndemo: ended")
    except (DemoError, programs.NotFound) as error:
        console.print(f"demo: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
