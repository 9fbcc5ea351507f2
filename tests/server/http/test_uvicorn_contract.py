"""What `ponder.server.listener` takes for granted of uvicorn and httptools.

When an upgrade fails here, read `uvicorn/protocols/http/httptools_impl.py` again beside it.
"""

from __future__ import annotations

import inspect

import httptools
import pytest
from uvicorn import Server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ponder.server.listener import Connection

OVERRIDDEN = {
    "connection_made", "connection_lost", "data_received", "pause_writing", "resume_writing",
    "on_message_begin", "on_headers_complete", "on_body", "on_message_complete",
    "on_response_complete", "_start_asgi_task",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_what_is_overridden_is_there_and_takes_the_same(name: str) -> None:
    ours = list(inspect.signature(getattr(Connection, name)).parameters)
    assert ours == list(inspect.signature(getattr(HttpToolsProtocol, name)).parameters)


def test_nothing_else_is_overridden() -> None:
    own = {name for name, value in vars(Connection).items() if inspect.isfunction(value)}
    inherited = {name for name in own if hasattr(HttpToolsProtocol, name)} - {"__init__"}
    assert inherited == OVERRIDDEN


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (HttpToolsProtocol.__init__, ["self.loop", "self.cycle", "self.pipeline", "self.flow"]),
        (HttpToolsProtocol.on_message_begin, ['self.url = b""', "self.headers = []"]),
        (HttpToolsProtocol.on_headers_complete, ["on_response=self.on_response_complete"]),
        (HttpToolsProtocol.data_received, ["self.parser.feed_data(data)"]),
        (RequestResponseCycle.__init__, ["self.more_body", "self.disconnected", "self.keep_alive"]),
        (
            RequestResponseCycle.send,
            [
                "if self.flow.write_paused and not self.disconnected:\n            await self.flow",
                "if self.disconnected:",
                "self.chunked_encoding is None",
                "self.expected_content_length",
                'self.scope["method"] != "HEAD"',
            ],
        ),
        (RequestResponseCycle.receive, ["self.message_event", "http.disconnect"]),
        (Server.startup, ["config.http_protocol_class("]),
    ],
)
def test_uvicorn_still_works_as_the_listener_expects(where: object, names: list[str]) -> None:
    source = inspect.getsource(where)  # type: ignore[arg-type]
    assert [name for name in names if name not in source] == []


def test_a_response_waits_for_nothing_but_a_paused_connection() -> None:
    assert inspect.getsource(RequestResponseCycle.send).count("await ") == 1


def test_an_error_in_a_callback_comes_with_what_raised_it() -> None:
    class Protocol:
        def on_headers_complete(self) -> None:
            raise LookupError("ours")

    with pytest.raises(httptools.HttpParserCallbackError) as caught:
        httptools.HttpRequestParser(Protocol()).feed_data(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(caught.value.__context__, LookupError)
