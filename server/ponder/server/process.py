"""The life of the server process: bind, load, serve, drain, exit with an honest status."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
import uvloop

from ponder.engine import vllm
from ponder.engine.tokenizer import ModelFiles, TokenizerError
from ponder.server import logs
from ponder.server.app import create_app
from ponder.server.model import ServedModel
from ponder.server.savings import open_ledger
from ponder.server.service import Service
from ponder.server.settings import Settings
from ponder.server.store import StateError
from ponder.server.traces import Traces, TracesError
from ponder.server.verifier import Verifier, VerifierError
from ponder.thought.contract import ContractError
from ponder.thought.errors import InvalidCloseText

logger = logging.getLogger(__name__)
_THREADS = ("VLLM_CPU_OMP_THREADS_BIND", "OMP_NUM_THREADS")
_LAST_WORDS_SECONDS = 1.0  # how long a server whose engine died still answers 503
_LAST_BYTES_SECONDS = 5  # for what clients have not read yet when all requests have ended


class StartupError(Exception):
    """Something the operator can mend; the message says how."""


_OPERATOR_ERRORS = (
    StartupError,
    FileNotFoundError,
    ContractError,
    TokenizerError,
    InvalidCloseText,
    StateError,
    VerifierError,
    TracesError,
)


def run(settings: Settings) -> int:
    """Serve until SIGTERM, SIGINT or the engine's death; returns the exit status."""
    logs.configure(settings.log_format)
    try:
        listener = bind(settings.host, settings.port)
        files = ModelFiles.find(settings.model)
        model = ServedModel.load(files, settings)
        options = ["--served-model-name", model.name, *vllm.prepare(files.directory)]
        threads = [f"{name}={os.environ[name]}" for name in _THREADS if name in os.environ]
        print(f"ponder: starting vLLM: {' '.join([*threads, *options])}", flush=True)
        options += settings.engine_options
        status: int = uvloop.run(_serve(settings, files, model, options, listener))
        return status
    except _OPERATOR_ERRORS as error:
        print(f"ponder: {error}", file=sys.stderr)
        return 1


async def _serve(
    settings: Settings,
    files: ModelFiles,
    model: ServedModel,
    options: list[str],
    listener: socket.socket,
) -> int:
    with contextlib.ExitStack() as stack:
        ledger = stack.enter_context(contextlib.closing(open_ledger(settings, model)))
        verifier = traces = None
        if settings.verifier is not None:
            verifier = stack.enter_context(
                contextlib.closing(
                    Verifier(settings.verifier, settings.verifier_memory, settings.verifier_env)
                )
            )
        if settings.traces:
            traces = stack.enter_context(contextlib.closing(Traces()))
        engine = vllm.VLLMEngine.start(files.name, options)
        try:
            service = Service(settings, model, engine, ledger, verifier=verifier, traces=traces)
            await Server(service, listener).serve(sockets=[listener])
            return 1 if service.dead else 0
        finally:
            engine.shutdown()


class Server(uvicorn.Server):
    """uvicorn with our signals (it would die of them, instead of exiting 0) and our greeting."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
            )
        )
        self._service = service
        self._listener = listener
        self._hurry = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Its connections inherit it, and the port of those that linger is free for the next server.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await super().startup(sockets)
        self._watch = asyncio.create_task(self._leave_when_dead())
        # A full collection over all that vLLM imports stops the loop for half a second.
        gc.collect()
        gc.freeze()
        print(greeting(self._service, self._listener), flush=True)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._watch.cancel()  # from here on the engine may go

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        """First signal: drain. Second: end what runs. Third: leave at once.

        While it drains the server still listens, so that `/readyz` says why it takes nothing and
        `/metrics` is read to the end.
        """
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._drain())
        elif not self._hurry.is_set():
            self._hurry.set()
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        await self._service.drain(self._hurry)
        self.should_exit = True

    async def _leave_when_dead(self) -> None:
        await self._service.watch_engine()
        await asyncio.sleep(_LAST_WORDS_SECONDS)
        self.should_exit = True


def greeting(service: Service, listener: socket.socket) -> str:
    """Where the server is, and a request that works when pasted."""
    host, port = listener.getsockname()[:2]
    url = f"http://{_address('127.0.0.1' if host in ('0.0.0.0', '::') else host, port)}"
    model = service.model
    body: dict[str, object] = {
        "model": model.name,
        "messages": [{"role": "user", "content": "What is 17 + 25 - 9?"}],
    }
    if model.compiled is not None:
        body["thinking_token_budget"] = 64
    key = " -H 'Authorization: Bearer YOUR_KEY'" if service.settings.api_key else ""
    form = model.form.name if model.form else "does not think"
    return (
        f"ponder: serving {model.name} ({form}) at {url}\n\n"
        f"  curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n"
        f"    -d '{json.dumps(body)}'\n"
    )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """Take the port before the model is loaded, so that a taken one is said at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # Two sockets that both say so may be bound to one port until one of them listens.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        listener.close()
        raise StartupError(
            f"cannot listen on {_address(host, port)} ({error.strerror}): choose another --host "
            f"or --port"
        ) from error
    return listener
