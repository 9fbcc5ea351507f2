"""The life of the server process: bind, load, serve, drain, exit with an honest status."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import signal
import socket
import traceback
from collections.abc import Iterator
from textwrap import fill

import uvicorn
import uvloop

from ponder.checkpoint import calls
from ponder.engine.failure import explain
from ponder.engine.protocol import Engine, EngineSetupError, Load
from ponder.engine.table import load_engine, prepare_engine
from ponder.engine.tokenizer import ModelFiles
from ponder.engine.warmup import WarmupError, warm_up
from ponder.errors import SetupError
from ponder.server import logs
from ponder.server.app import create_app
from ponder.server.listener import Listener
from ponder.server.logs import process_log
from ponder.server.model import ServedModel
from ponder.server.observers.protocol import Observer
from ponder.server.observers.spans import Spans
from ponder.server.observers.verifier import Verifier
from ponder.server.savings import open_ledger
from ponder.server.service import Service
from ponder.server.settings import BUNDLED_KNOWS, BUNDLED_MODEL, Settings, misspelt
from ponder.server.shared.link import Link
from ponder.server.start import Start, stop_signals
from ponder.thought.contract import Contract
from ponder.thought.errors import InvalidCloseText

_LAST_WORDS_SECONDS = 1.0  # how long a server whose engine died still answers 503
_LAST_BYTES_SECONDS = 5  # for clients to read the rest when all requests have ended


class ListenError(SetupError):
    """The port is taken, or the address is not this machine's."""


class LoadError(SetupError):
    """The model does not load; the message says why, and where the engine's own words are."""


def run(settings: Settings) -> int:
    """Serve until SIGTERM, SIGINT, SIGHUP or the engine's death; returns the exit status."""
    logs.configure(settings.log_format)
    for sentence in misspelt(os.environ):
        process_log.warning("%s", sentence)
    start = Start()
    try:
        status: int = uvloop.run(_serve(settings, start))
    except LoadError as error:
        process_log.critical("%s", error)
        return 1  # what was printed is kept
    except (SetupError, InvalidCloseText, FileNotFoundError) as error:
        process_log.critical("%s", error)
        status = 1
    except SystemExit:  # vLLM's --help
        printed = start.output.text()
        start.clean()
        print(printed)
        raise
    else:
        process_log.info("stopped")
    finally:
        start.output.release()
    start.clean()
    return status


async def _serve(settings: Settings, start: Start) -> int:
    """Serve; quick checks come before slow ones."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(bind(settings.host, settings.port))
        files = ModelFiles.find(settings.model)
        Contract.load(files.directory)
        prepare_engine(settings.engine, files.directory)
        observers: list[Observer] = []
        if settings.traces:
            observers.append(stack.enter_context(contextlib.closing(Spans())))
        verifier = None
        if settings.verifier is not None:
            verifier = stack.enter_context(
                contextlib.closing(
                    Verifier(settings.verifier, settings.verifier_memory, settings.verifier_env)
                )
            )
        model = ServedModel.load(files, settings)
        ledger = stack.enter_context(contextlib.closing(open_ledger(settings, model)))
        link = None
        if settings.redis is not None:
            link = Link(settings.redis.get_secret_value())
            await link.check()
        engine = await _load(settings, files, model, start)
        try:
            service = Service(
                settings, model, engine, ledger, observers, verifier=verifier, link=link
            )
            async with link.running() if link else contextlib.nullcontext():
                await Server(service, listener).serve(sockets=[listener])
            return 1 if service.watch.dead else 0
        finally:
            engine.shutdown()
            await asyncio.sleep(0)  # connections close in the loop


async def _load(settings: Settings, files: ModelFiles, model: ServedModel, start: Start) -> Engine:
    """An engine that has given tokens. Raises `LoadError`, `EngineSetupError`."""
    load = Load(
        name=files.name,
        directory=files.directory,
        served_as=model.name,
        vocabulary=model.tokenizer,
        end_of_thought=model.checkpoint.form.end if model.checkpoint.form else None,
        calls=settings.tool_parser or calls.parser(model.tokenizer.chat_template),
        calls_needed=settings.tool_parser is not None,
        options=settings.engine_options,
        stall_timeout=settings.stall_timeout,
    )
    try:
        with start.heartbeat(f"loading {model.name}"):
            engine = load_engine(settings.engine, load)
            try:
                await warm_up(engine, model.tokenizer.encode("Hello"))
            except WarmupError:
                engine.shutdown()
                raise
    except EngineSetupError:
        raise
    except Exception as error:
        traceback.print_exc()  # into the same file as the other output
        raise LoadError(
            f"the model did not load: {explain(start.failed())} (all that was printed is in "
            f"{start.output.file})"
        ) from error
    start.succeeded()
    return engine


class Server(uvicorn.Server):
    """uvicorn with our signal handling (its own would not exit with 0) and our greeting."""

    def __init__(self, service: Service, listener: socket.socket) -> None:
        super().__init__(
            Listener(service).config(
                create_app(service),
                log_config=None,
                log_level="warning",
                timeout_graceful_shutdown=_LAST_BYTES_SECONDS,
            )
        )
        self._service = service
        self._listener = listener
        self._hurry = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Connections inherit the option: lingering ones do not keep the port from the next server.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await super().startup(sockets)
        self._watch = asyncio.create_task(self._leave_when_dead())
        # A full collection over all that vLLM imports stops the loop for half a second.
        gc.collect()
        gc.freeze()
        greet(self._service, self._listener)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._watch.cancel()  # from here on the engine may go

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop, before = asyncio.get_running_loop(), {n: signal.getsignal(n) for n in stop_signals()}
        for number in before:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _stop(self) -> None:
        """First signal: drain. Second: end what runs. Third: leave at once.

        While it drains the server still listens, so that `/readyz` tells why it takes no requests
        and `/metrics` can be read to the end.
        """
        if self._leaving is None:
            process_log.info(
                "draining: running answers (%d) have %d s to end; a second signal (Ctrl-C) cuts "
                "them",
                self._service.running,
                self._service.settings.drain_timeout,
            )
            self._leaving = asyncio.create_task(self._drain())
        elif not self._hurry.is_set():
            self._hurry.set()
        else:
            self.should_exit = self.force_exit = True

    async def _drain(self) -> None:
        await self._service.drain(self._hurry)
        self.should_exit = True

    async def _leave_when_dead(self) -> None:
        await self._service.watch.until_dead()
        await asyncio.sleep(_LAST_WORDS_SECONDS)
        self.should_exit = True


def greet(service: Service, listener: socket.socket) -> None:
    """Log the server's address; for people, add questions to ask and a curl line to paste."""
    host, port = listener.getsockname()[:2]
    url = f"http://{_address('127.0.0.1' if host in ('0.0.0.0', '::') else host, port)}"
    model = service.model
    body: dict[str, object] = {
        "model": model.name,
        "messages": [{"role": "user", "content": "What is 17 + 25 - 9?"}],
    }
    if model.checkpoint.form is not None:
        body["thinking_token_budget"] = 64
    key = " -H 'Authorization: Bearer YOUR_KEY'" if service.settings.api_key else ""
    known = ""
    if service.settings.model == BUNDLED_MODEL:
        known = fill(BUNDLED_KNOWS, 78, initial_indent="  ", subsequent_indent="  ") + "\n\n"
    example = (
        f"\n\n{known}  curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' \\\n"
        f"    -d '{json.dumps(body)}'\n"
    )
    thinks, form = model.checkpoint.form, "does not think"
    if thinks is not None:
        form = thinks.name
    elif model.checkpoint.unread is not None:
        form = "thinks, but not in a way that Ponder can read: docs/models.md"
    process_log.info("serving %s (%s) at %s", model.name, form, url, extra={"more": example})


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """Take the port before the model loads, so that a taken port is an error at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        # With SO_REUSEADDR, two sockets may be bound to one port until one of them listens.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        listener.close()
        raise ListenError(
            f"cannot listen on {_address(host, port)} ({error.strerror}): choose another --host "
            f"or --port"
        ) from error
    return listener
