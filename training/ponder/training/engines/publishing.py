"""How new weights reach the vLLM servers that sample; `rollouts.transfer` names one of the ways.

checkpoint   the trainer writes them to a directory that the servers see too, and has them load it
nccl         the trainer broadcasts them from its GPU to those of the servers, by vLLM's own engine
             (written against vLLM 0.32 and 0.33; NCCL itself was not run: it needs two GPUs)
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import torch
from safetensors.torch import save_file

from ponder.environment.urls import without_password

from ..run.recipe import RecipeError
from .protocol import Weights, WorkersLost

_SECONDS = 600.0
_POLL_SECONDS = 0.2
_SERVE = (
    "VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --enable-scale-out --logprobs-mode processed_logprobs"
)
_NCCL = """ --weight-transfer-config '{"backend": "nccl"}'"""


class Publisher(Protocol):
    """Hands weights to all servers; every process of the trainer has one.

    `publish` returns once all servers sample from the weights. It raises `RecipeError` where a
    server was started without the routes for it, `WorkersLost` where one fails.
    """

    def publish(self, weights: Weights) -> None: ...
    def close(self) -> None: ...


class Servers:
    """The control routes of vLLM servers at `urls`; `command` starts one that has them.

    It has the methods of vLLM's `VLLMWeightSyncClient`, each for all servers at once. `failure` is
    what the first failed request raised.
    """

    def __init__(self, urls: Sequence[str], command: str) -> None:
        self.urls = urls
        self.failure: Exception | None = None
        self._command = command

    def post(self, path: str, *bodies: Mapping[str, Any]) -> None:
        """Send every server its body, or all the only one; return when all have answered."""
        given = bodies if len(bodies) > 1 else bodies * len(self.urls)
        with ThreadPoolExecutor(len(self.urls)) as pool:
            list(pool.map(lambda url, body: self._ask("POST", url, path, body), self.urls, given))

    def worlds(self) -> list[int]:
        """GPUs of each server."""
        return [self._ask("GET", url, "/get_world_size")["world_size"] for url in self.urls]

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """The first server's GPUs have the ranks from `rank_offset` on, the others follow."""
        bodies, rank = [], init_info["rank_offset"]
        for world in self.worlds():
            bodies.append({"init_info": {**init_info, "rank_offset": rank}})
            rank += world
        self.post("/init_weight_transfer_engine", *bodies)

    def start_weight_update(self) -> None:
        self.post("/start_weight_update", {})

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.post("/update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.post("/finish_weight_update", {"weight_version": weight_version})

    def _ask(self, method: str, url: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        try:
            return _asked(method, url, path, body, self._command)
        except (RecipeError, WorkersLost) as error:
            self.failure = self.failure or error
            raise


def _asked(method: str, url: str, path: str, body: Mapping[str, Any] | None, command: str) -> Any:
    """A server's JSON. Raises `RecipeError` without such a route, `WorkersLost` on failure."""
    shown = without_password(url)
    try:
        with httpx.Client(base_url=url, timeout=_SECONDS, trust_env=False) as client:
            reply = client.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise WorkersLost(
            f"rollouts.servers: {shown} took no new weights: {path}: {error or repr(error)}; "
            "start it again, then go on with --resume"
        ) from error
    if reply.status_code == 404:
        raise RecipeError(f"rollouts.servers: {shown} takes no new weights: start it as\n{command}")
    if reply.is_error:
        raise WorkersLost(
            f"rollouts.servers: {shown} took no new weights: {path} answered {reply.status_code} "
            f"{reply.text[:300]}; its log says more. It must be started as\n{command}"
        )
    return reply.json() if reply.content else None


class Checkpointed:
    """Through `directory`, which every server must see under the same path."""

    def __init__(self, urls: Sequence[str], directory: Path, rank: int) -> None:
        seen = f"{_SERVE}\nwhere it sees {directory} under the same path"
        self._servers = Servers(urls, seen)
        self._directory = directory
        self._main = rank == 0

    def publish(self, weights: Weights) -> None:
        kept = {}
        for name, weight in weights():  # of which every process has its part
            if self._main:
                kept[name] = weight.to("cpu", torch.bfloat16).contiguous()
        if not self._main:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        save_file(kept, self._directory / "model.safetensors", metadata={"format": "pt"})
        call = {"method": "reload_weights", "kwargs": {"weights_path": str(self._directory)}}
        self._servers.post("/collective_rpc", call)
        self._servers.post("/reset_prefix_cache", {})

    def close(self) -> None:
        if self._main:
            shutil.rmtree(self._directory, ignore_errors=True)


class Transferred:
    """By vLLM's weight transfer: the trainer is rank 0 of a NCCL group with all servers' GPUs."""

    def __init__(self, urls: Sequence[str], rank: int) -> None:
        self._servers = Servers(urls, _SERVE + _NCCL)
        self._rank = rank
        self._engine: Any = None

    def publish(self, weights: Weights) -> None:
        if self._engine is None:
            self._engine = self._joined(weights)
        self._engine.source.weights = weights
        # A broadcast waits forever for a server that is lost, and nothing can interrupt it.
        raised: list[BaseException] = []
        device = torch.cuda.current_device() if torch.cuda.is_available() else None

        def send() -> None:
            try:
                if device is not None:
                    torch.cuda.set_device(device)
                self._engine.send_weights()
            except BaseException as error:  # noqa: BLE001
                raised.append(error)  # raised again below

        sending = Thread(target=send, daemon=True)
        sending.start()
        while sending.is_alive() and self._servers.failure is None:
            sending.join(_POLL_SECONDS)
        if error := self._servers.failure or next(iter(raised), None):
            raise error
        if self._rank == 0:
            self._servers.post("/reset_prefix_cache", {})

    def _joined(self, weights: Weights) -> Any:
        """vLLM's engine that sends, once all servers have joined its group."""
        try:
            from .vllm_transfer import Source, join
        except ImportError as error:
            raise RecipeError(
                f"rollouts.transfer = nccl: vLLM cannot be imported here ({error}): install it "
                "beside the trainer, or set it to checkpoint"
            ) from error

        urls = self._servers.urls
        return join(self._servers, Source(weights), _reached_at(urls), self._rank)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.shutdown()
            if self._rank == 0 and self._servers.failure is None:
                self._servers.post("/shutdown_weight_transfer_engine", {})


def _reached_at(urls: Sequence[str]) -> tuple[str, int]:
    """This machine's address as the servers see it, and a free port there.

    A connection-less socket sends nothing: the system only tells the route.
    """
    found = []
    for url in urls:
        parts = urlsplit(url)
        family, *_, there = socket.getaddrinfo(
            parts.hostname, parts.port or 80, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, socket.SOCK_DGRAM) as route:
            route.connect(there)
            found.append((family, route.getsockname()[0]))
    outside = (it for it in found if not ip_address(it[1]).is_loopback)
    family, host = next(outside, found[0])
    with socket.create_server((host, 0), family=family) as free:
        return host, free.getsockname()[1]


def publisher(transfer: str, urls: Sequence[str], directory: Path, rank: int) -> Publisher:
    """The one that a recipe's `rollouts.transfer` names. Raises `RecipeError`."""
    if transfer == "checkpoint":
        return Checkpointed(urls, directory, rank)
    if not on_gpu():
        raise RecipeError(
            "rollouts.transfer = nccl sends from a GPU, and here is none: set it to checkpoint"
        )
    return Transferred(urls, rank)


def on_gpu() -> bool:
    return torch.cuda.is_available()
