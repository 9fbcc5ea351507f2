"""The routes by which servers take weights: who is asked what, and what a failure says."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from ponder.training.engines import publishing
from ponder.training.engines.protocol import WorkersLost
from ponder.training.engines.publishing import Servers, Transferred, publisher
from ponder.training.run.recipe import RecipeError
from training.policy import recipe


class Scripted:
    """A server with `gpus` that keeps what it was asked; `failing` are paths it answers by 500."""

    def __init__(self, gpus: int, failing: tuple[str, ...] = ()) -> None:
        self.asked: list[tuple[str, Any]] = []
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._say(200, {"world_size": gpus})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                script.asked.append((self.path, body))
                failed = self.path in failing
                self._say(500 if failed else 200, {"error": "out of memory"} if failed else {})

            def _say(self, status: int, body: object) -> None:
                said = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Scripted:
        Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def two() -> Iterator[tuple[Scripted, Scripted]]:
    with ExitStack() as stack:
        yield stack.enter_context(Scripted(2)), stack.enter_context(Scripted(4))


def test_every_gpu_of_every_server_has_a_rank_of_its_own(two: tuple[Scripted, Scripted]) -> None:
    Servers([it.url for it in two], "vllm serve").init_weight_transfer_engine(
        {"rank_offset": 1, "world_size": 7}
    )
    said = [it.asked for it in two]
    path = "/init_weight_transfer_engine"
    assert said == [
        [(path, {"init_info": {"rank_offset": 1, "world_size": 7}})],
        [(path, {"init_info": {"rank_offset": 3, "world_size": 7}})],
    ]


def test_all_servers_are_told_of_an_update(two: tuple[Scripted, Scripted]) -> None:
    servers = Servers([it.url for it in two], "vllm serve")
    servers.start_weight_update()
    servers.update_weights({"names": ["head"]})
    servers.finish_weight_update()
    assert two[0].asked == two[1].asked
    assert [path for path, _ in two[0].asked] == [
        "/start_weight_update",
        "/update_weights",
        "/finish_weight_update",
    ]


def test_a_server_that_fails_ends_a_broadcast_that_waits_for_it() -> None:
    with Scripted(1, failing=("/update_weights",)) as server:
        channel = Transferred([server.url], rank=0)
        began = Event()

        class Stuck:
            """vLLM's sender, whose broadcast does not return."""

            source = SimpleNamespace()

            def send_weights(self) -> None:
                Thread(target=self._tell, daemon=True).start()
                began.set()
                Event().wait()

            def _tell(self) -> None:
                with suppress(WorkersLost):
                    channel._servers.update_weights({})

        channel._engine = Stuck()
        with pytest.raises(WorkersLost, match=f"{server.url} took .* answered 500 .*out of memory"):
            channel.publish(lambda: iter(()))
        assert began.is_set()


@pytest.mark.parametrize(
    ("family", "host", "url"),
    [
        (socket.AF_INET, "127.0.0.1", "http://127.0.0.1:8001"),
        (socket.AF_INET6, "::1", "http://[::1]:8001"),
    ],
)
def test_servers_reach_the_trainer_by_the_address_that_faces_them(
    family: socket.AddressFamily, host: str, url: str
) -> None:
    try:
        socket.create_server((host, 0), family=family).close()
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    address, port = publishing._reached_at([url])
    assert (address, port > 0) == (host, True)


def test_a_failed_reload_names_the_directory_that_a_server_must_see(tmp_path: Path) -> None:
    with Scripted(1, failing=("/collective_rpc",)) as server:
        files = publisher("checkpoint", [server.url], tmp_path / "published", 0)
        with pytest.raises(WorkersLost, match=f"where it sees {tmp_path}/published under the same"):
            files.publish(lambda: iter(()))
        files.close()


def test_without_a_gpu_or_servers_nccl_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "on_gpu", lambda: False)
    with pytest.raises(RecipeError, match="here is none: set it to checkpoint"):
        publisher("nccl", ["http://127.0.0.1:1"], tmp_path, 0)
    with pytest.raises(ValueError, match=r"rollouts\.transfer is how rollouts\.servers"):
        recipe(tmp_path, "grpo", rollouts={"transfer": "nccl"})
