"""A real HTTP server on a scripted engine: for rules and faults, not for proof of a feature."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import openai
import pytest
import uvicorn
from browser import Page, browsing
from opentelemetry.sdk.trace.export import SpanExporter

from curves import calibrate
from ponder.engine.protocol import Vocabulary
from ponder.engine.scripted import Script, ScriptedEngine, say
from ponder.engine.tokenizer import ModelFiles
from ponder.server.app import create_app
from ponder.server.bounds import Bounds
from ponder.server.listener import Listener
from ponder.server.model import ServedModel
from ponder.server.observers.protocol import Observer
from ponder.server.observers.spans import Spans
from ponder.server.observers.verifier import Verifier
from ponder.server.savings import open_ledger
from ponder.server.service import Service
from ponder.server.settings import BUNDLED_MODEL, Settings
from ponder.server.shared.link import Link
from ponder.thought.contract import Contract
from waiting import PATIENCE, wait_until

Kind = TypeVar("Kind", bound=Observer)
THOUGHT = "First I add. Then I check it.</think>\n\nThe answer is 42."


@dataclasses.dataclass
class Running:
    """A server under test: its engine, its service and a client that never retries."""

    service: Service
    engine: ScriptedEngine
    url: str
    loop: asyncio.AbstractEventLoop

    def observer(self, kind: type[Kind]) -> Kind:
        """The one observer of this kind."""
        (found,) = (one for one in self.service._observers if isinstance(one, kind))
        return found

    def client(self, api_key: str = "none") -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=api_key, max_retries=0, timeout=PATIENCE
        )

    def ask(self, content: str = "What is 40 + 2?", **fields: object) -> Any:
        """One chat completion, or the list of its chunks.

        What the official client does not know goes in extra_body.
        """
        known = {"stream", "n", "stop", "seed", "logprobs", "top_logprobs", "max_tokens"}
        known |= {"max_completion_tokens", "temperature", "stream_options", "tools", "model"}
        known |= {"reasoning_effort", "response_format", "messages", "logit_bias"}
        known |= {"tool_choice", "parallel_tool_calls"}
        extra = {name: fields.pop(name) for name in list(fields) if name not in known}
        fields.setdefault("model", "tiny")
        fields.setdefault("messages", [{"role": "user", "content": content}])
        with self.client() as client:
            reply = client.chat.completions.create(**fields, extra_body=extra)  # type: ignore[call-overload]
            return list(reply) if fields.get("stream") else reply


Serve = Callable[..., Running]


@pytest.fixture(scope="session")
def files() -> ModelFiles:
    return ModelFiles.find(BUNDLED_MODEL)


@pytest.fixture
def serve(files: ModelFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts servers; they stop with the test."""
    stops: list[Callable[[], None]] = []

    def start(
        *texts: str,
        script: Script | None = None,
        template: str | None = None,
        bare: bool = False,
        tasks: Mapping[str, Mapping[int, float]] = MappingProxyType({}),
        thinks: bool = True,
        unread: str | None = None,
        chunk_sizes: tuple[int, ...] = (1,),
        delay: float = 0.0,
        max_model_len: int = 4096,
        exporter: SpanExporter | None = None,
        bounds: Bounds | None = None,
        observers: Sequence[Observer] = (),
        **settings: object,
    ) -> Running:
        state = str(settings.pop("state", ":memory:"))
        config = Settings(state=state, **settings)  # type: ignore[arg-type]
        given = files
        contract = Contract.load(files.directory)
        assert contract is not None
        calibrated = calibrate(contract, tasks)
        if template is not None or calibrated != contract:
            directory = tmp_path_factory.mktemp("model") / files.label
            shutil.copytree(files.directory, directory)
            if template is not None:
                (directory / "chat_template.jinja").write_text(template)
            calibrated.save(directory)
            if bare:  # of its contract: the template says how it thinks
                (directory / "ponder.json").unlink()
            given = ModelFiles.find(str(directory))
        model = ServedModel.load(given, config)
        if not thinks:
            without = dataclasses.replace(model.checkpoint, form=None, compiled=None, unread=unread)
            model = dataclasses.replace(model, checkpoint=without)
        script = script or (say if len(texts) < 2 else reason)(
            *(texts or (THOUGHT,)), vocabulary=model.tokenizer
        )
        engine = ScriptedEngine(
            script,
            model.tokenizer,
            max_model_len=max_model_len,
            chunk_sizes=chunk_sizes,
            delay=delay,
        )
        ledger = open_ledger(config, model)
        closing = contextlib.ExitStack()
        seeing = list(observers)
        if exporter:
            seeing.append(closing.enter_context(contextlib.closing(Spans(exporter))))
        verifier = None
        if config.verifier:
            verifier = Verifier(config.verifier, config.verifier_memory, config.verifier_env)
            closing.enter_context(contextlib.closing(verifier))
        # Nobody runs it: to this server, Redis is away.
        link = Link(config.redis.get_secret_value()) if config.redis else None
        service = Service(config, model, engine, ledger, seeing, verifier=verifier, link=link)
        connections = Listener(service, bounds)
        server = uvicorn.Server(
            connections.config(create_app(service), port=0, log_level="error", log_config=None)
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        wait_until(lambda: server.started)  # uvicorn has no event to wait for
        port = server.servers[0].sockets[0].getsockname()[1]
        loop = server.servers[0].get_loop()

        def stop() -> None:
            server.should_exit = True
            thread.join(PATIENCE)
            closing.close()
            ledger.close()

        stops.append(stop)
        return Running(service, engine, f"http://127.0.0.1:{port}", loop)

    yield start
    for stop in stops:
        stop()


@pytest.fixture(scope="session")
def tab(
    program: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Page]]:
    """Opens a tab of one browser; without Chromium the test is skipped."""
    with browsing(program("chromium"), tmp_path_factory.mktemp("browser")) as tab:
        yield tab


@pytest.fixture
def page(tab: Callable[[], Page]) -> Iterator[Page]:
    """A tab that closes with the test."""
    page = tab()
    yield page
    page.close()


def reason(thought: str, *answers: str, vocabulary: Vocabulary) -> Script:
    """A script that thinks while the thought is open and then gives the next answer."""
    (end,) = vocabulary.encode("</think>")
    said = iter(answers)

    def script(prompt: Sequence[int], _number: int) -> Iterator[int]:
        text = next(said, answers[-1]) if end in prompt else thought
        yield from vocabulary.encode(text)
        yield min(vocabulary.eos_token_ids)

    return script
