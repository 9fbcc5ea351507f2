"""`make serve-fleet`: runs a fleet on one machine as it would run on many.

    .venv/bin/python deploy/fleet.py [--port 8000] [options of `ponder serve`]

Starts two stock vLLM servers on the bundled checkpoint with vLLM's router in front, two Ponder
servers with nginx in front, and Prometheus. The Ponder servers share pools and running replies in
Redis, and the savings in a file. Everything ends with Ctrl-C. Options that this command does not
know go to both Ponder servers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import demo
import programs
import proxy
from demo import DemoError, console, end_on_signals, free_port

from ponder.engine.vllm import cpu_settings, on_cpu
from ponder.server.settings import BUNDLED_MODEL

DEPLOY = Path(__file__).resolve().parent
SITE = DEPLOY / "nginx" / "ponder.conf"
WORKERS = REPLICAS = 2
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
}


def environment(model: Path) -> dict[str, str]:
    """The environment of a vLLM server on this machine."""
    chosen = cpu_settings(model)[0] if on_cpu() else {}
    return {**os.environ, **QUIET, **chosen}


def worker(model: Path, port: int, *options: str) -> list[str | Path]:
    """The command of a vLLM server that takes and gives token ids, and reports cache hits."""
    engine = cpu_settings(model)[1] if on_cpu() else []
    command: list[str | Path] = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    command += ["--model", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--disable-uvicorn-access-log", *engine]
    command += ["--enable-scale-out", "--enable-prompt-tokens-details"]
    return [*command, "--generation-config", "vllm", *options]


def router(port: int, workers: Sequence[str]) -> list[str | Path]:
    """The command of vLLM's router: a thought keeps its server, new ones go to the least loaded."""
    program = Path(sys.executable).with_name("vllm-router")
    if not program.exists():
        raise DemoError("vllm-router is missing: make serve-fleet installs it (the extra `fleet`)")
    command: list[str | Path] = [program, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--worker-urls", *workers, "--policy", "sticky_least_loaded"]
    command += ["--health-check-interval-secs", "1", "--health-failure-threshold", "1"]
    # Otherwise it avoids a failed server's address for a minute, even if a new server is there.
    command += ["--disable-circuit-breaker"]
    return [*command, "--prometheus-port", str(free_port()), "--log-level", "warning"]


def replica(port: int, engine: str, *options: str) -> list[str | Path]:
    """The command of a Ponder server on the router."""
    command: list[str | Path] = [sys.executable, "-m", "ponder.cli.main", "serve", BUNDLED_MODEL]
    command += ["--port", str(port), "--engine", "http"]
    return [*command, *options, "--", engine]


@contextlib.contextmanager
def prometheus(folder: Path, replicas: Sequence[str], workers: Sequence[str]) -> Iterator[str]:
    """Run Prometheus, which scrapes Ponder and, as a job of their own, vLLM. Yields its URL."""
    listed = ", ".join(f'"{url.removeprefix("http://")}"' for url in workers)
    (folder / "engines.yml").write_text(f"- targets: [{listed}]\n")
    with demo.prometheus(folder, *replicas) as url:
        yield url


def redis(folder: Path, port: int) -> list[str | Path]:
    """The command of a Redis for a trial, which keeps nothing on disk."""
    command: list[str | Path] = [programs.find("redis-server"), "--port", str(port), "--save", ""]
    return [*command, "--bind", "127.0.0.1", "--dir", folder, "--maxmemory-policy", "noeviction"]


def check_port(port: int) -> None:
    """Raise `DemoError` if the port is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise DemoError(
                f"port {port} is taken ({error.strerror}): make serve-fleet PORT=8010"
            ) from error


@contextlib.contextmanager
def fleet(folder: Path, port: int, options: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Run the whole fleet; yields the addresses of nginx and of Prometheus."""
    model = Path(BUNDLED_MODEL)
    state = [] if "--state" in options else ["--state", str(folder / "state.sqlite3")]
    with contextlib.ExitStack() as stack:

        def started(
            name: str,
            command: list[str | Path],
            path: str,
            at: int,
            environ: dict[str, str] | None = None,
        ) -> str:
            log = folder / f"{name.replace(' ', '-')}.log"
            running.append((name, f"http://127.0.0.1:{at}{path}", log))
            processes[name] = stack.enter_context(demo.process(command, log, environ))
            return f"http://127.0.0.1:{at}"

        def ready() -> None:
            try:
                while running:
                    name, url, log = running[0]
                    demo.wait_ready(name, url, processes[name], log)
                    console.print(f"fleet: {name} is ready at {url.rpartition('/')[0]}")
                    del running[0]
            except BaseException:  # a server that is still starting has no requests to finish
                for name, *_ in running:
                    processes[name].kill()
                raise

        running: list[tuple[str, str, Path]] = []
        processes: dict[str, demo.Child] = {}
        environ = environment(model)
        if "--redis" not in options:
            at = free_port()
            libraries = {**os.environ, "LD_LIBRARY_PATH": programs.libraries()}
            stack.enter_context(demo.process(redis(folder, at), folder / "redis.log", libraries))
            state += ["--redis", f"redis://127.0.0.1:{at}/0"]
        workers = [
            started(f"vLLM {n + 1}", worker(model, at), "/health", at, environ)
            for n, at in enumerate(free_port() for _ in range(WORKERS))
        ]
        ready()
        at = free_port()
        routed = started("the router", router(at, workers), "/readiness", at)
        ready()
        replicas = [
            started(f"Ponder {n + 1}", replica(at, routed, *state, *options), "/readyz", at)
            for n, at in enumerate(free_port() for _ in range(REPLICAS))
        ]
        ready()
        hosts = [url.removeprefix("http://") for url in replicas]
        text = proxy.site(SITE.read_text(), f"127.0.0.1:{port}", hosts)
        command = proxy.command(programs.find("nginx"), folder, text)
        front = started("nginx", command, "/readyz", port)
        ready()
        yield front, stack.enter_context(prometheus(folder, replicas, workers))


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make serve-fleet", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--port", type=int, default=8000, help="of nginx, before it all (8000)")
    known, options = parser.parse_known_args()
    end_on_signals()
    try:
        for program in ("nginx", "prometheus", "redis-server"):
            programs.find(program)
        check_port(known.port)
        with contextlib.ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="ponder-fleet-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            console.print(f"fleet: logs are in {folder}")
            front, monitor = stack.enter_context(fleet(folder, known.port, options))
            console.print(
                f"\nThe fleet answers at [bold]{front}[/bold], its alerts are at {monitor}/alerts. "
                f"Ctrl-C ends it.\nAsk it: .venv/bin/ponder chat --url {front} '2+2'",
                soft_wrap=True,
            )
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        console.print("\nfleet: ended")
    except (DemoError, programs.NotFound) as error:
        console.print(f"fleet: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
