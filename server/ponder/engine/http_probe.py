"""Finds out what an inference server supports, before the engine relies on it.

Servers silently ignore unknown fields, so that an accepted request proves nothing: the probe checks
the reply.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson

from ponder.engine.http_dialects import DIALECTS, Dialect, Piece
from ponder.engine.http_wire import Interrupted
from ponder.engine.protocol import EngineError, EngineRequest, EngineSetupError, Load, Sampling
from ponder.environment.urls import without_password

_SECONDS = 60.0  # a server may compile for its first tokens
_TOKENS = 8
_CHUNK = 4
_MOST_LOGPROBS = (20, 5, 1, 0)
_TEXT = "A sum: 1+2=3, naïve 漢字 🙂\n\tdone."
_FLAGS = "vllm serve MODEL --enable-scale-out --enable-prompt-tokens-details"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a server supports. `model` is the model's name there, `health` the path of its health.

    `chunks` says that it gathers tokens when asked to, `cached` that it reports prefix-cache hits,
    and `compared` that its tokenizer was found to be the model's.
    """

    name: str
    dialect: Dialect
    model: str
    max_model_len: int
    max_logprobs: int
    health: str
    chunks: bool
    cached: bool
    compared: bool

    def lines(self, url: str) -> Iterator[str]:
        """Log lines for the operator."""
        yield (
            f"{without_password(url)} serves {self.model} ({self.dialect.serves}): a context of "
            f"{self.max_model_len} tokens, {self.max_logprobs} log probabilities beside a token"
        )
        if self.name != "generate":
            yield f"requests go to {self.dialect.path}; the cheapest way is `{_FLAGS}`"
        if not self.chunks:
            yield "it sends each token by itself, which costs both sides: a newer server gathers"
        if not self.cached:
            yield (
                "it does not report prefix-cache hits, and usage will say 0 cached tokens: start "
                "it with --enable-prompt-tokens-details"
            )
        if not self.compared:
            yield "its tokenizer cannot be compared with the model's, but the names agree"


class Lacking(EngineError):
    """The server lacks something; the message continues a sentence that begins with its path."""


def probe(load: Load, url: str, headers: Mapping[str, str], dialect: str | None) -> Found:
    """Ask a server for everything that the engine will ask for.

    Raises `EngineSetupError`.
    """
    timeout = httpx.Timeout(_SECONDS, connect=10)
    options: dict[str, Any] = {"headers": dict(headers), "timeout": timeout, "trust_env": False}
    with httpx.Client(base_url=url, **options) as client:
        try:
            card = _card(client, load)
            model, length = str(card["id"]), card.get("max_model_len")
            if not isinstance(length, int):
                raise EngineSetupError(
                    f"{_shown(client)} does not report its context length (max_model_len in "
                    f"/v1/models): name an inference server, or a router that passes its models on"
                )
            compared = _compare(client, load, card)
            ready = client.get("/readiness").status_code == 200  # a router; its /health covers all
            for name, logprobs, pieces in _tried(client, load, model, dialect):
                return Found(
                    name=name,
                    dialect=DIALECTS[name],
                    model=model,
                    max_model_len=length,
                    max_logprobs=logprobs,
                    health="/readiness" if ready else "/health",
                    chunks=max(len(piece.token_ids) for piece in pieces) > 1,
                    cached=any(piece.cached is not None for piece in pieces),
                    compared=compared,
                )
        except httpx.TransportError as error:
            raise EngineSetupError(
                f"no inference server answers at {_shown(client)} ({error or repr(error)}): "
                f"start it first, as with `{_FLAGS}`, or give its address after `--`"
            ) from error
    raise AssertionError("the last dialect either serves or says what it lacks")


def _shown(client: httpx.Client) -> str:
    return without_password(str(client.base_url).rstrip("/"))


def _card(client: httpx.Client, load: Load) -> dict[str, Any]:
    """The server's description of the model that it serves."""
    url, reply = _shown(client), client.get("/v1/models")
    if reply.status_code in (401, 403):
        raise EngineSetupError(
            f"{url} wants a key: set VLLM_API_KEY to the one it was started with"
        )
    try:
        cards = reply.raise_for_status().json()["data"]
        roots = [card for card in cards if not card.get("parent")]  # an adapter names its model
        assert roots
    except (httpx.HTTPError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise EngineSetupError(
            f"{url} is no inference server that lists its models (GET /v1/models: "
            f"{reply.status_code} {reply.text[:100]!r}): give the address of vLLM or of its router"
        ) from error
    named: dict[str, Any] = next((card for card in roots if _names(card) & _ours(load)), roots[0])
    return named


def _names(card: Mapping[str, Any]) -> set[str]:
    found = {str(card["id"]), str(card.get("root") or card["id"])}
    return found | {Path(name).name for name in found}


def _ours(load: Load) -> set[str]:
    return {load.name, load.served_as, Path(load.name).name}


def _compare(client: httpx.Client, load: Load, card: Mapping[str, Any]) -> bool:
    """Whether the server's tokenizer could be asked. Raises where it is another model's."""
    model = card["id"]
    theirs = _ids(
        client.post(
            "/tokenize", json={"model": model, "prompt": _TEXT, "add_special_tokens": False}
        ),
        "tokens",
    )
    if theirs is None:
        asked = {"model": model, "prompt": _TEXT, "add_special_tokens": False, "max_tokens": 1}
        reply = client.post("/v1/completions", json={**asked, "return_token_ids": True})
        theirs = _ids(reply, "choices", 0, "prompt_token_ids")
    remedy = f"start `vllm serve {load.name}` there, or serve {model} here"
    if theirs is not None and theirs != load.vocabulary.encode(_TEXT):
        raise EngineSetupError(
            f"{_shown(client)} serves {model}, whose tokens are not those of {load.name}: {remedy}"
        )
    if theirs is None and not _names(card) & _ours(load):
        raise EngineSetupError(
            f"{_shown(client)} serves {model} and not {load.name}, and its tokenizer cannot be "
            f"asked (--tokens-only): {remedy}, or start it under the same name "
            f"(--served-model-name)"
        )
    return theirs is not None


def _ids(reply: httpx.Response, *path: str | int) -> list[int] | None:
    if reply.status_code != 200:
        return None
    try:
        found = reply.json()
        for step in path:
            found = found[step]
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    return found if isinstance(found, list) else None


def _tried(
    client: httpx.Client, load: Load, model: str, only: str | None
) -> Iterator[tuple[str, int, Sequence[Piece]]]:
    """The dialects that the server speaks, each with its most log probabilities and its reply."""
    lacks = []
    for name, dialect in DIALECTS.items():
        if only not in (None, name):
            continue
        for logprobs in _MOST_LOGPROBS:
            try:
                yield name, logprobs, _spoken(client, dialect, load, model, logprobs)
            except Lacking as lack:
                said = f"{dialect.path} {lack}"
        lacks.append(said)
    raise EngineSetupError(
        f"{_shown(client)} takes token ids in no way that Ponder knows ({'; '.join(lacks)}): "
        f"start it as `{_FLAGS}`"
    )


def _spoken(
    client: httpx.Client, dialect: Dialect, load: Load, model: str, logprobs: int
) -> Sequence[Piece]:
    """Ask for tokens as the engine will; returns the server's pieces. Raises `Lacking`."""
    sampling = Sampling(
        max_tokens=_TOKENS,
        temperature=0.0,
        ignore_eos=True,
        logprobs=logprobs,
        chunk_tokens=_CHUNK,
    )
    request = EngineRequest(load.vocabulary.encode(_TEXT), sampling, f"ponder-probe-{logprobs}")
    body = orjson.dumps(dialect.body(request, model))
    head = {"content-type": "application/json"}
    pieces: list[Piece] = []
    with client.stream("POST", dialect.path, content=body, headers=head) as reply:
        if reply.status_code != 200:
            said = reply.read().decode(errors="replace")
            raise Lacking(f"answers {reply.status_code} {said[:200]!r}")
        try:
            for line in reply.read().split(b"\n"):  # iter_lines splits at U+2028, too
                if line.startswith(b"data: {"):
                    event = orjson.loads(line[len(b"data: ") :])
                    if event.get("error"):
                        raise Lacking(f"fails: {str(event['error'])[:200]}")
                    done = sum(len(piece.token_ids) for piece in pieces)
                    pieces.append(dialect.parse(event, done))
        except (KeyError, TypeError, ValueError, Interrupted) as error:
            raise Lacking(f"sends an event that cannot be read ({error!r})") from error
    told = [entry for piece in pieces for entry in piece.logprobs or ()]
    if sum(len(piece.token_ids) for piece in pieces) != _TOKENS:
        raise Lacking("returns no token ids")
    if not any(piece.finish == "length" for piece in pieces):
        raise Lacking("does not say how a request ended")
    if len(told) != _TOKENS or any(len(entry.top) < logprobs for entry in told):
        raise Lacking(f"returns no {logprobs} log probabilities")
    return pieces
