"""Connections that cost too much, on real sockets: each is ended, named and counted."""

from __future__ import annotations

import json
import re
import resource
import socket
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import psutil
import pytest

from ponder.server import listener
from ponder.server.bounds import Bounds, affordable
from ponder.server.rarely import Rarely
from waiting import wait_until

from .conftest import Running, Serve

HOST = b"Host: localhost\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\n" + HOST
ASK = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
STREAM = json.dumps({"messages": [{"role": "user", "content": "hi"}], "stream": True}).encode()
QUICK = Bounds(
    request_seconds=0.5, idle_seconds=1, stall_seconds=0.5, slow_seconds=2, linger_seconds=0.5,
    sweep_seconds=0.05,
)  # fmt: skip
MIB = 1 << 20


def connect(running: Running) -> socket.socket:
    address = httpx.URL(running.url)
    return socket.create_connection((address.host, address.port or 80), timeout=20)


def told(connection: socket.socket) -> bytes:
    """All that the server says until it closes."""
    parts = []
    try:
        while part := connection.recv(1 << 16):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def said(running: Running, *parts: bytes) -> bytes:
    """What the server answers to bytes, as far as it takes them."""
    with connect(running) as connection:
        try:
            for part in parts:
                connection.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return told(connection)


def refused(answer: bytes) -> tuple[int, str]:
    """(status, code) of an error in our shape that has an id and ends the connection."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert re.search(rb"\r\nx-request-id: req-[0-9a-f]{32}(\r\n|$)", head)
    assert b"\r\nconnection: close" in head
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def counted(running: Running, reason: str) -> float:
    text = httpx.get(f"{running.url}/metrics", timeout=60).text
    name = f'ponder_connections_refused_total{{reason="{reason}"}} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if name in line)


def open_now(running: Running) -> float:
    text = httpx.get(f"{running.url}/metrics", timeout=60).text
    found = re.search(r"^ponder_connections_open (\S+)$", text, re.MULTILINE)
    assert found
    return float(found[1]) - 1  # but for the one that asks


def test_every_reason_begins_at_zero(serve: Serve) -> None:
    """The reasons are those that the listener's source names, as codes or as words."""
    source = Path(listener.__file__).read_text()
    words = re.findall(r'(?:\.cut|\.refused)\("(\w+)"', source)
    words += re.findall(r'\.refuse\(\w+, "(\w+)"\)', source)
    words += re.findall(r'ApiError\(\s*\d+,\s*"(\w+)"', source)
    assert set(words) == set(listener.REASONS)
    text = httpx.get(f"{serve().url}/metrics", timeout=60).text
    shown = re.findall(r'^ponder_connections_refused_total{reason="(\w+)"} 0', text, re.MULTILINE)
    assert set(shown) == set(listener.REASONS)


ENDLESS = {
    "one header": [b"GET /healthz HTTP/1.1\r\na: ", *[b"x" * 65536] * 64],
    "many headers": [b"GET /healthz HTTP/1.1\r\n", *[b"a: b\r\n" * 10_000] * 64],
    "a header at once": [b"GET /healthz HTTP/1.1\r\n" + HOST + b"a: %s\r\n\r\n" % (b"x" * 66_000)],
    "trailers": [
        CHAT + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
        *[b"a: b\r\n" * 10_000] * 64,
    ],
    "a chunk's extension": [CHAT + b"transfer-encoding: chunked\r\n\r\n1;", *[b"x" * 65536] * 64],
    "blank lines": [b"\r\n" * 32768] * 64,
    "a URL": [b"GET /", *[b"x" * 65536] * 64],
    "a URL at once": [b"GET /%s HTTP/1.1\r\n" % (b"x" * 66_000) + HOST + b"\r\n"],
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_never_ends_is_ended_early(serve: Serve, kind: str) -> None:
    running = serve()
    expected = (414, "uri_too_long") if "URL" in kind else (431, "headers_too_large")
    assert refused(said(running, *ENDLESS[kind])) == expected
    assert counted(running, expected[1]) == 1
    wait_until(lambda: open_now(running) == 0)


def test_an_endless_head_takes_no_memory(serve: Serve) -> None:
    running, process = serve(bounds=QUICK), psutil.Process()
    httpx.get(f"{running.url}/healthz")
    before = process.memory_info().rss
    for start in (b"GET /healthz HTTP/1.1\r\na: ", b"GET /"):
        with connect(running) as connection:
            connection.sendall(start)
            with pytest.raises((BrokenPipeError, ConnectionResetError)):  # the server ends it
                while True:
                    connection.sendall(b"x" * MIB)
    assert process.memory_info().rss - before < 32 * MIB


def test_a_head_within_the_bound_is_served(serve: Serve) -> None:
    request = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + HOST
    answer = said(serve(), request, b"a: %s\r\n\r\n" % (b"x" * 60_000))
    assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "request_", [b"GET /heal", CHAT, CHAT + b"content-length: 100\r\n\r\n{", CHAT + b"a: b\r\n"]
)
def test_a_request_that_does_not_arrive_is_ended(serve: Serve, request_: bytes) -> None:
    running = serve(bounds=QUICK)
    assert refused(said(running, request_)) == (408, "request_timeout")
    assert counted(running, "request_timeout") == 1
    assert running.service.running == 0


def test_a_trickle_does_not_put_the_deadline_off(serve: Serve) -> None:
    running = serve(bounds=QUICK)
    with connect(running) as connection:
        connection.sendall(CHAT + b"content-length: 1000000\r\n\r\n")
        ended = threading.Event()

        def trickle() -> None:
            try:
                while not ended.wait(0.05):
                    connection.send(b" ")
            except OSError:
                ended.set()

        sender = threading.Thread(target=trickle)
        sender.start()
        try:
            assert refused(told(connection)) == (408, "request_timeout")
        finally:
            ended.set()
            sender.join()


def test_a_long_answer_is_not_a_late_request(serve: Serve) -> None:
    """Nor is the next request late that is sent meanwhile."""
    running = serve("thinking " * 4 + "</think>\n\n" + "word " * 30, bounds=QUICK, delay=0.05)
    request = CHAT + b"content-length: %d\r\n\r\n" % len(ASK) + ASK
    last = request.replace(HOST, HOST + b"connection: close\r\n")
    answer = said(running, request + last)
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert counted(running, "request_timeout") == 0


def test_connections_on_which_nothing_happens_are_closed(serve: Serve) -> None:
    running = serve(bounds=QUICK)
    assert said(running) == b""
    answer = said(running, b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1") == 1


def test_idle_connections_are_kept_longer_than_proxies_keep_them() -> None:
    assert Bounds().idle_seconds > 60


def unread(running: Running, fields: dict[str, object]) -> socket.socket:
    """A client that asks and never reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    address = httpx.URL(running.url)
    connection.connect((address.host, address.port))
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    connection.sendall(CHAT + b"content-length: %d\r\n\r\n" % len(body) + body)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_never_reads_is_cut(serve: Serve, stream: bool) -> None:
    running = serve("a</think>\n\n" + "word " * 2000, bounds=QUICK, chunk_sizes=(16,))
    fields = {"n": 16, "stream": stream, "logprobs": True, "top_logprobs": 5}
    with unread(running, fields):
        wait_until(lambda: counted(running, "slow_reader") == 1, 60)
        wait_until(lambda: open_now(running) == 0)
    assert running.service.running == 0


def test_a_client_that_reads_slowly_gets_everything(serve: Serve) -> None:
    bounds = replace(QUICK, slow_seconds=60)
    running = serve("a</think>\n\n" + "word " * 2000, bounds=bounds, chunk_sizes=(16,))
    with unread(running, {"n": 16, "stream": True}) as connection:
        got = b""
        while b"data: [DONE]" not in got[-64:]:
            part = connection.recv(1 << 14)
            assert part, "the connection was cut"
            got += part
            time.sleep(0.001)
    assert counted(running, "slow_reader") == 0


def test_where_there_is_no_room_the_longest_waiting_goes(serve: Serve) -> None:
    running = serve(bounds=replace(QUICK, connections=8, request_seconds=60, idle_seconds=60))
    with ExitStack() as stack:
        waiting = []
        for number in range(30):
            waiting.append(stack.enter_context(connect(running)))
            waiting[-1].sendall(b"GET /healthz HTTP/1.1\r\n")
            wait_until(lambda number=number: open_now(running) >= min(7, number))  # type: ignore[misc]
        assert running.ask().choices[0].message.content
        assert open_now(running) <= 8
        assert told(waiting[0]) == b""
        waiting[-1].sendall(HOST + b"connection: close\r\n\r\n")
        assert told(waiting[-1]).startswith(b"HTTP/1.1 200 ")
    assert counted(running, "evicted") >= 22


def test_where_all_are_busy_a_new_one_is_told(serve: Serve) -> None:
    bounds = replace(QUICK, connections=2)
    running = serve("a</think>\n\n" + "word " * 400, bounds=bounds, delay=0.05)
    request = CHAT + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM
    with connect(running) as one, connect(running) as two:
        for busy in (one, two):
            busy.sendall(request)
            assert busy.recv(100).startswith(b"HTTP/1.1 200 ")
        with connect(running) as third:
            assert refused(told(third)) == (503, "too_many_connections")


def test_without_descriptors_there_is_a_line_and_then_a_recovery(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(bounds=replace(QUICK, idle_seconds=60, request_seconds=60))
    httpx.get(f"{running.url}/healthz")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name.name) for name in Path("/proc/self/fd").iterdir())
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        taken: list[socket.socket] = []
        stack.callback(lambda: [one.close() for one in taken])

        def noticed() -> bool:
            """Take every descriptor, also those that earlier tests' objects free meanwhile."""
            with suppress(OSError):
                while True:
                    taken.append(connect(running))
            return "no descriptor is left" in caplog.text

        wait_until(noticed)
    wait_until(lambda: httpx.get(f"{running.url}/healthz").status_code == 200)
    assert counted(running, "descriptors") >= 1
    assert "ulimit -n" in caplog.text


def test_bounds_follow_the_descriptors_there_are() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert affordable(10).connections == min(1024, max(16, hard - 128))
    assert affordable(10_000).connections > affordable(10).connections
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        affordable(256)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == min(hard, 1 << 16)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


MALFORMED = [
    b"hello there\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\n" + 2 * HOST + b"\r\n",
    b"GET /healthz HTTP/1.1\r\n" + HOST + b"content-length: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300),
]


@pytest.mark.parametrize("request_", MALFORMED)
def test_what_is_no_request_is_refused_in_our_shape(serve: Serve, request_: bytes) -> None:
    assert refused(said(serve(), request_)) == (400, "malformed_request")


def test_malformed_requests_do_not_fill_the_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve()
    for _ in range(50):
        said(running, MALFORMED[0])
    assert counted(running, "malformed_request") == 50
    lines = [record.getMessage() for record in caplog.records if "ended" in record.getMessage()]
    assert 1 <= len(lines) < 10
    assert re.search(r"from 127\.0\.0\.1:\d+: ", lines[0])


def test_a_tls_client_is_told_of_in_words(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    running = serve()
    with pytest.raises(httpx.ConnectError):
        httpx.get(running.url.replace("http:", "https:"))
    assert "it speaks TLS, and this port plain HTTP: use http://" in caplog.text
    assert counted(running, "tls") == 1


@pytest.mark.parametrize("body", [ASK, STREAM])
def test_http_1_0_gets_no_chunks(serve: Serve, body: bytes) -> None:
    request = b"POST /v1/chat/completions HTTP/1.0\r\ncontent-length: %d\r\n\r\n" % len(body)
    head, _, answer = said(serve(), request + body).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"transfer-encoding" not in head and b"connection: close" in head
    if body == STREAM:
        assert answer.startswith(b"data: {") and answer.endswith(b"data: [DONE]\n\n")
    else:
        assert json.loads(answer)["choices"]


def test_garbage_behind_a_request_does_not_spoil_its_answer(serve: Serve) -> None:
    running = serve("a</think>\n\n" + "word " * 20, delay=0.01)
    request = CHAT + b"content-length: %d\r\n\r\n" % len(STREAM) + STREAM
    answer = said(running, request + MALFORMED[0])
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"data: [DONE]" in answer


def test_an_upgrade_is_not_taken_up(serve: Serve) -> None:
    request = b"GET /healthz HTTP/1.1\r\n" + HOST
    for upgrade in (b"websocket", b"h2c"):
        answer = said(serve(), request + b"connection: Upgrade\r\nupgrade: %s\r\n\r\n" % upgrade)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"connection: close" in answer


def test_a_rare_line_says_how_many_it_stands_for(caplog: pytest.LogCaptureFixture) -> None:
    import logging

    rarely = Rarely(logging.getLogger("ponder.rarely"), seconds=0.05)
    for _ in range(5):
        rarely.warning("a", "first %s", "kind")
    rarely.warning("b", "other")
    time.sleep(0.06)
    rarely.warning("a", "first %s", "kind")
    assert [record.getMessage() for record in caplog.records] == [
        "first kind",
        "other",
        "first kind (and 4 more like it since the last such line)",
    ]
