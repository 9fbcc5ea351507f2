"""`make demo`: a server, Prometheus, a minute of mixed questions, and what was saved.

    .venv/bin/python deploy/demo.py [--duration 60]

Everything runs on this machine, on ports of its own; Ctrl-C ends it all. The policy under test is a
default budget; every answer is verified, and rated by what that says.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import programs
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ponder.client import AsyncPonder, PonderAPIError
from ponder.training.tasks.tiny import DIFFICULTIES, TINY_TASKS

DEPLOY = Path(__file__).resolve().parent
START_SECONDS = 240.0
STOP_SECONDS = 45.0
CONCURRENCY = 16
SCRAPE_SECONDS = 2
BUDGET = 96
HOLDOUT = 0.4  # far more than a real deployment spares, so that a minute is enough
console = Console(highlight=False)


class DemoError(Exception):
    """What went wrong and where to look."""


@dataclass
class Tally:
    """What the load has seen."""

    answered: int = 0
    right: int = 0
    errors: dict[str, int] = field(default_factory=dict)


@contextlib.contextmanager
def process(command: list[str | Path], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a session of its own, so that Ctrl-C reaches it through us alone."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def wait_ready(name: str, url: str, child: subprocess.Popen[bytes], log: Path) -> None:
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


@contextlib.contextmanager
def server(folder: Path) -> Iterator[str]:
    """The bundled checkpoint under a default budget, with a holdout. Yields the server's URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command: list[str | Path] = [sys.executable, "-m", "ponder.cli.main", "serve"]
    command += ["--port", str(port), "--default-budget", str(BUDGET)]
    command += ["--holdout", str(HOLDOUT), "--holdout-key", "a key for a demonstration"]
    command += ["--state", folder / "state.sqlite3"]
    with process(command, folder / "server.log") as child:
        wait_ready("ponder", f"{url}/readyz", child, folder / "server.log")
        yield url


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Prometheus with the rules that are shipped, at a quicker pace. Yields its URL."""
    program = programs.find("prometheus")
    for name in ("savings.yml", "alerts.yml"):
        shutil.copy(DEPLOY / "prometheus" / name, folder)
    configuration = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    quick = re.sub(r"(_interval): \S+", rf"\1: {SCRAPE_SECONDS}s", configuration)
    (folder / "prometheus.yml").write_text(quick)
    (folder / "targets.yml").write_text(f'- targets: ["{target.removeprefix("http://")}"]\n')
    url = f"http://127.0.0.1:{(port := free_port())}"
    command: list[str | Path] = [
        program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'metrics'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with process(command, folder / "prometheus.log") as child:
        wait_ready("prometheus", f"{url}/-/ready", child, folder / "prometheus.log")
        yield url


async def load(url: str, seconds: float) -> Tally:
    """Ask for `seconds`, each lane its next question when it has its answer, and rate them all."""
    tally, source, end = Tally(), random.Random(), time.monotonic() + seconds

    async def lane(client: AsyncPonder, http: httpx.AsyncClient) -> None:
        while time.monotonic() < end:
            task = source.choice(TINY_TASKS)
            problem = task.sample(source, source.choice(DIFFICULTIES))
            try:
                reply = await client.chat(problem.question)
            except PonderAPIError as error:
                tally.errors[error.code] = tally.errors.get(error.code, 0) + 1
                await asyncio.sleep(1)
                continue
            score = task.verify(problem, reply.choices[0].message.content or "")
            path = f"{url}/v1/ponder/{reply.id}/feedback"
            (await http.post(path, json={"score": float(score)})).raise_for_status()
            tally.answered += 1
            tally.right += score

    async with (
        AsyncPonder(url) as client,
        httpx.AsyncClient() as http,
        _bar(tally, seconds),
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CONCURRENCY):
            group.create_task(lane(client, http))
    return tally


@contextlib.asynccontextmanager
async def _bar(tally: Tally, seconds: float) -> AsyncIterator[None]:
    """Time on a bar, and beside it what has come back so far."""
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


def savings_table(report: dict[str, Any]) -> Table:
    """`GET /v1/ponder/savings`, a row per measure."""
    table = Table(title=f"Savings: {report['status']}", title_justify="left")
    for heading in ("per request", "policy", "holdout", "difference", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "per request" else "right")
    quality = report["quality"]
    measures = {"tokens": report["tokens"], "seconds": report["seconds"]}
    measures |= {"right answers": quality["feedback"], "forced answers": quality["forced"]}
    for name, measure in measures.items():
        means = [measure[arm]["mean"] for arm in ("policy", "holdout")]
        cells = ["–" if mean is None else f"{mean['value']:.3g}" for mean in means]
        difference = measure["difference"]
        if difference is None:
            cells += ["–", f"{measure['more_needed']} more needed"]
        else:
            ends = f"{difference['low']:+.3g} … {difference['high']:+.3g}"
            cells += [f"{difference['value']:+.3g}", ends]
        table.add_row(name, *cells)
    return table


def saved_share(monitor: str) -> float | None:
    """The share of tokens saved, as Prometheus recorded it; None while it is not measured."""
    query = {"query": '1 - ponder:savings:ratio{measure="tokens"}'}
    reply = httpx.get(f"{monitor}/api/v1/query", params=query).raise_for_status().json()
    values = reply["data"]["result"]
    return float(values[0]["value"][1]) if values else None


def report(url: str, monitor: str, tally: Tally) -> None:
    """What was measured, by the server and by Prometheus, and where it can be seen."""
    time.sleep(3 * SCRAPE_SECONDS)  # a scrape, and the rules after it
    body = httpx.get(f"{url}/v1/ponder/savings").raise_for_status().json()
    console.print("", savings_table(body), sep="\n")
    share = saved_share(monitor)
    if share is not None:
        console.print(f"Prometheus recorded that {share:.1%} of the tokens are saved.")
    for code, times in tally.errors.items():
        console.print(f"{times} requests ended in {code}.")
    places = {
        f"{url}/v1/ponder/savings": "the report",
        f"{url}/metrics": "the metrics",
        f"{monitor}/alerts": "rules and alerts (a page of Prometheus, where it is installed whole)",
        "deploy/grafana/ponder.json": "the dashboard, to import into Grafana",
    }
    console.print("\nLook at")
    for place, what in places.items():
        console.print(f"  {place:<44} {what}", soft_wrap=True)
    console.print("\nServer and Prometheus keep running. Ctrl-C ends them.")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--duration", type=float, default=60, help="seconds of load (60)")
    duration = parser.parse_args().duration
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        programs.find("prometheus")
        with contextlib.ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ponder-demo-")))
            url = stack.enter_context(server(folder))
            monitor = stack.enter_context(prometheus(folder, url))
            tally = asyncio.run(load(url, duration))
            report(url, monitor, tally)
            signal.pause()
    except KeyboardInterrupt:
        console.print("\ndemo: ended")
    except (DemoError, programs.NotFound) as error:
        console.print(f"demo: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
