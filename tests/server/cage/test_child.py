"""What a child finds when it starts, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from multiprocessing.connection import Connection

import psutil
import pytest

from ponder.cage.child import Child, limit_memory

HERE = "server.cage.test_child"


def describe(connection: Connection, number: float, text: str) -> None:
    """Says what there is, then what it is sent."""
    open_ones = []
    for fd in range(3, 200):
        try:
            os.fstat(fd)
        except OSError:
            continue
        open_ones.append(fd)
    said = {
        "environment": dict(os.environ),
        "open": len(open_ones),
        "group": os.getpgrp() == os.getpid(),
        "path": sys.path,
        "arguments": [number, text],
    }
    connection.send_bytes(json.dumps(said).encode())
    while True:
        connection.send_bytes(connection.recv_bytes())


def flood(connection: Connection) -> None:
    connection.send_bytes(b"x" * 2**21)
    time.sleep(60)


def small(connection: Connection) -> None:
    limit_memory(1024)
    try:
        bytearray(2**31)
    except MemoryError:
        connection.send_bytes(b"too much")


def test_it_starts_with_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONDER_API_KEY", "secret")
    monkeypatch.setenv("PYTHONSTARTUP", "/nowhere")
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    child = Child(f"{HERE}:describe", 2.5, "it's", environment={"NAMED": "kept"})
    try:
        said = json.loads(child.receive(60) or b"")
        environment = said["environment"]
        assert environment.pop("NAMED") == "kept"
        assert set(environment) <= {
            "LD_LIBRARY_PATH",
            "LC_CTYPE",  # Python's own, where no locale is named
        }
        assert said["open"] == 1
        assert said["group"]
        assert said["path"] == sys.path
        assert said["arguments"] == [2.5, "it's"]
        child.send(b"echo")
        assert child.receive(60) == b"echo"
        assert child.receive(0) is None
    finally:
        assert child.kill() == -signal.SIGKILL
        os.close(reader)
        os.close(writer)
    with pytest.raises(OSError):
        child.send(b"more")


def test_a_frame_that_is_too_long_is_its_end() -> None:
    child = Child(f"{HERE}:flood")
    try:
        with pytest.raises(EOFError):
            child.receive(60)
    finally:
        child.kill()


def test_memory_has_a_limit() -> None:
    child = Child(f"{HERE}:small")
    try:
        assert child.receive(60) == b"too much"
        with pytest.raises(EOFError):
            child.receive(60)
    finally:
        child.kill()


def test_kill_leaves_nothing_and_may_be_repeated() -> None:
    before = psutil.Process().children()
    child = Child(f"{HERE}:flood")
    assert child.kill() == child.kill()
    assert psutil.Process().children() == before
