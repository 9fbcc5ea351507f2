"""A real HTTP server that says what a test tells it to, and the wire's JSON to say."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DONE = "[DONE]"


def report(**changes: Any) -> dict[str, Any]:
    return {
        "budget_requested": 32,
        "budget_effective": 32,
        "budget_source": "request",
        "thinking_tokens": 32,
        "forced_tokens": 4,
        "answer_tokens": 7,
        "retry_tokens": 0,
        "end_cause": "budget",
        "answer_forced": False,
        **changes,
    }


def chunk(finish_reason: str | None = None, **parts: Any) -> dict[str, Any]:
    """`reasoning` and `content` go to the delta, `ponder` to the choice."""
    ponder = parts.pop("ponder", None)
    choice = {"index": 0, "delta": parts, "finish_reason": finish_reason, "ponder": ponder}
    return {"id": "chat-1", "created": 0, "model": "tiny", "choices": [choice]}


def answer(
    *, thought: tuple[str, ...] = ("Let me ", "think."), said: str = "It is 7.", **changes: Any
) -> list[Any]:
    """The events of a whole streamed answer."""
    return [
        chunk(role="assistant"),
        *(chunk(reasoning=piece) for piece in thought),
        *(chunk(content=piece) for piece in said.splitlines(keepends=True)),
        chunk("stop", ponder=report(**changes)),
        DONE,
    ]


def completion(said: str = "It is 7.") -> dict[str, Any]:
    usage = {"prompt_tokens": 5, "completion_tokens": 43, "total_tokens": 48}
    usage |= {"completion_tokens_details": {"reasoning_tokens": 32}}
    message = {"content": said, "reasoning": "Let me think."}
    choice = {"index": 0, "message": message, "finish_reason": "stop", "ponder": report()}
    return {
        "id": "chat-1",
        "created": 0,
        "model": "tiny",
        "choices": [choice],
        "usage": usage | {"prompt_tokens_details": {"cached_tokens": 0}},
    }


def models(*names: str, **changes: Any) -> dict[str, Any]:
    capabilities = {
        "thinks": True,
        "format": "qwen3",
        "default_budget": -1,
        "budget_ceiling": None,
        "trained_budgets": [],
        "close_text": "\n</think>\n\n",
        "allowed_close_texts": [],
        "efforts": {},
        **changes,
    }
    cards = [{"id": n, "created": 0, "max_model_len": 4096, "ponder": capabilities} for n in names]
    return {"data": cards}


def savings() -> dict[str, Any]:
    arm = {"count": 3, "conversations": 2, "mean": None}
    measure = {
        "status": "insufficient data",
        "more_needed": None,
        "policy": arm,
        "holdout": arm,
        "difference": None,
        "ratio": None,
    }
    return {
        "status": "insufficient data",
        "more_requests_needed": None,
        "holdout": 0.0,
        "experiment": "e",
        "since": 0.0,
        "tokens": measure,
        "seconds": measure,
        "quality": dict.fromkeys(("feedback", "verifier", "forced", "empty"), measure),
    }


def error(message: str, code: str = "invalid_budget", param: str | None = None) -> dict[str, Any]:
    body = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return {"error": body}


def event_stream(events: list[Any]) -> bytes:
    return b"".join(
        b"data: " + (event if isinstance(event, str) else json.dumps(event)).encode() + b"\n\n"
        for event in events
    )


@dataclass
class Reply:
    """A stream of events, or with a `status` a JSON body. `endless`: until the client goes.

    `then` comes once the client has the thought finished.
    """

    events: list[Any] = field(default_factory=list)
    status: int | None = None
    body: Any = None
    endless: bool = False
    then: list[Any] = field(default_factory=list)


class ScriptedServer:
    """Answers chat requests with `replies` in turn; `asked` has their bodies, `names` their names.

    A thought that is to be finished releases one of its `endless` replies, whose `then` follows;
    `refusal` is the error that is said instead.
    """

    def __init__(self) -> None:
        self.replies: deque[Reply] = deque()
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.names: list[str | None] = []
        self.finished: list[str] = []
        self.refusal: tuple[int, Any] | None = None
        self._finish = threading.Event()
        self.models: dict[str, Any] = models("tiny")
        self.client_gone = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        script = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._json(200, script.models)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path.endswith("/finish"):
                    self._finished(self.path.split("/")[-2])
                    return
                script.asked.append(json.loads(body))
                script.names.append(self.headers["x-client-request-id"])
                script.keys.append(self.headers["authorization"])
                reply = script.replies.popleft()
                if reply.status is not None:
                    self._json(reply.status, reply.body)
                    return
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.end_headers()
                self.wfile.write(event_stream(reply.events))
                try:
                    while reply.endless and not (reply.then and script._finish.is_set()):
                        self.wfile.write(b": keep-alive\n\n")
                        time.sleep(0.01)
                    script._finish.clear()
                    self.wfile.write(event_stream(reply.then))
                except OSError:
                    script.client_gone.set()

            def _finished(self, name: str) -> None:
                script.finished.append(name)
                if script.refusal is not None:
                    self._json(*script.refusal)
                    return
                self._json(202, {"object": "ponder.finish", "id": name, "choices": [0]})
                script._finish.set()

            def _json(self, status: int, value: Any) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """The test's output is not the place."""

        return Handler
