"""What a cell can and cannot do: each layer of the cage alone, and all of them."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import FunctionType

import psutil
import pytest

from ponder.cage import cell, seccomp

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def keeper() -> Iterator[Connection]:
    ours, theirs = Pipe()
    with ours, theirs:
        yield theirs


@pytest.fixture(params=["filter", "hook", "both"])
def layers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One layer alone, beside the limits, or both."""
    if request.param != "both":
        name = "_refuse" if request.param == "filter" else "_filter"
        monkeypatch.setattr(cell, name, lambda *_: None)
    return str(request.param)


def tried(deed: Callable[[], object], keeper: Connection) -> bytes:
    """What came of a deed in a cell: "done", or the kind of error."""

    def work() -> Iterator[bytes]:
        try:
            deed()
        except BaseException as error:  # noqa: BLE001
            yield type(error).__name__.encode()
        else:
            yield b"done"

    ended = cell.run(work, 1, 10.0, keeper)
    return ended.results[0] if ended.results else f"ended with {ended.status}".encode()


def listening() -> tuple[socket.socket, int]:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    return listener, listener.getsockname()[1]


def test_results_come_in_their_order(keeper: Connection) -> None:
    ended = cell.run(lambda: (str(n).encode() for n in range(1000)), 1000, 10.0, keeper)
    assert ended.results == [str(n).encode() for n in range(1000)]
    assert (ended.status, ended.overdue) == (0, False)


def test_a_result_is_a_line_and_not_too_long(keeper: Connection) -> None:
    ended = cell.run(lambda: [b"one\ntwo", b"x" * 10**6], 2, 10.0, keeper)
    assert ended.results == [b"one two", b"x" * cell.LONGEST_RESULT]


def test_more_results_than_asked_for_are_not_taken(keeper: Connection) -> None:
    ended = cell.run(lambda: iter(lambda: b"more", None), 3, 10.0, keeper)
    assert ended.results == [b"more"] * 3


def test_a_flood_without_an_end_is_cut(keeper: Connection) -> None:
    def flood() -> Iterator[bytes]:
        while True:
            for output in range(3, 64):
                with suppress(OSError):
                    os.write(output, b"x" * 10**6)

    ended = cell.run(flood, 1, 200.0, keeper)
    assert (ended.results, ended.overdue) == ([], False)


def test_the_time_is_each_results_own(keeper: Connection) -> None:
    def slow() -> Iterator[bytes]:
        for _ in range(3):
            time.sleep(0.4)
            yield b"slow"
        while True:
            signal.signal(signal.SIGALRM, signal.SIG_IGN)

    began = time.monotonic()
    ended = cell.run(slow, 4, 1.0, keeper)
    assert ended.results == [b"slow"] * 3
    assert ended.overdue
    assert time.monotonic() - began >= 2.0


def test_a_cell_that_dies_says_how(keeper: Connection) -> None:
    def die() -> Iterator[bytes]:
        yield b"first"
        os._exit(7)

    ended = cell.run(die, 2, 10.0, keeper)
    assert (ended.results, ended.status, ended.overdue) == ([b"first"], 7, False)


def test_the_end_of_its_keepers_other_end_ends_a_cell() -> None:
    ours, theirs = Pipe()
    before = {child.pid for child in psutil.Process().children()}
    threading.Timer(0.3, ours.close).start()
    with theirs, pytest.raises(EOFError):
        cell.run(lambda: iter(lambda: time.sleep(60) or b"", None), 1, 60.0, theirs)
    assert {child.pid for child in psutil.Process().children()} == before


def test_nothing_is_written(layers: str, keeper: Connection, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("as it was")
    deeds: list[Callable[[], object]] = [
        lambda: (tmp_path / "new").write_text("trace"),
        lambda: kept.write_text("trace"),
        lambda: kept.open("a").write("trace"),
        lambda: os.open(kept, os.O_RDWR),
        lambda: os.open(tmp_path / "created", os.O_CREAT),
        lambda: os.truncate(kept, 0),
        kept.unlink,
        lambda: kept.rename(tmp_path / "moved"),
        (tmp_path / "folder").mkdir,
        lambda: (tmp_path / "link").symlink_to(kept),
        lambda: kept.chmod(0o777),
        lambda: os.utime(kept, (0, 0)),
    ]
    if layers != "hook":  # Python has no audit event for it, so that the filter alone knows
        deeds.append(lambda: os.mkfifo(tmp_path / "fifo"))
    before = kept.stat()
    assert b"done" not in [tried(deed, keeper) for deed in deeds]
    after = kept.stat()
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_text() == "as it was"
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_nobody_is_called(layers: str, keeper: Connection) -> None:
    listener, port = listening()
    with listener:
        deeds: list[Callable[[], object]] = [
            lambda: socket.create_connection(("127.0.0.1", port), 5),
            lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 9)),
            lambda: socket.socket(socket.AF_UNIX).connect("\0nobody"),
            lambda: socket.getaddrinfo("example.org", 80),
        ]
        assert b"done" not in [tried(deed, keeper) for deed in deeds]
        with pytest.raises(TimeoutError):
            listener.accept()


def test_no_process_starts_and_none_is_signalled(layers: str, keeper: Connection) -> None:
    deeds: list[Callable[[], object]] = [
        os.fork,
        lambda: 1 / (os.system("true") == 0),
        lambda: subprocess.run(["/bin/true"], check=True),
        lambda: os.execv("/bin/true", ["true"]),
        lambda: os.posix_spawn("/bin/true", ["true"], {}),
        lambda: os.kill(os.getppid(), signal.SIGTERM),
        lambda: os.killpg(0, signal.SIGTERM),
    ]
    before = {child.pid for child in psutil.Process().children()}
    caught: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    try:
        assert b"done" not in [tried(deed, keeper) for deed in deeds]
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert caught == []
    assert {child.pid for child in psutil.Process().children()} == before


def test_limits_cannot_be_raised(layers: str, keeper: Connection) -> None:
    deeds: list[Callable[[], object]] = [
        lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**9, 10**9)),
        lambda: resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0)),
    ]
    assert b"done" not in [tried(deed, keeper) for deed in deeds]


def test_the_filter_holds_what_python_does_not_see(
    monkeypatch: pytest.MonkeyPatch, keeper: Connection, tmp_path: Path
) -> None:
    """Calls of the C library by themselves, as code could make that has the run of the process."""
    monkeypatch.setattr(cell, "_refuse", lambda *_: None)
    libc = ctypes.CDLL(None, use_errno=True)
    name = str(tmp_path / "trace").encode()
    calls: list[Callable[[], int]] = [
        lambda: libc.open(name, os.O_CREAT | os.O_WRONLY, 0o600),
        lambda: libc.creat(name, 0o600),
        lambda: libc.mkdir(name, 0o700),
        lambda: libc.socket(2, 1, 0),
        libc.fork,
        lambda: libc.kill(os.getppid(), 15),
        lambda: libc.ptrace(16, os.getppid(), 0, 0),
        lambda: libc.syscall(310, os.getppid(), 0, 0, 0, 0, 0),  # process_vm_readv
        lambda: libc.syscall(425, 1, 0),  # io_uring_setup
        lambda: libc.syscall(437, -100, name, 0, 0),  # openat2
        lambda: libc.memfd_create(b"x", 0),
        lambda: libc.prctl(22, 2, 0, 0, 0),
        lambda: libc.unshare(0x10000000),
        lambda: libc.mount(b"none", b"/mnt", b"tmpfs", 0, 0),
        lambda: libc.shmget(0, 4096, 0o1600),
        lambda: libc.dup2(1, 3),
    ]

    def work() -> Iterator[bytes]:
        for call in calls:
            yield str(call()).encode()

    ended = cell.run(work, len(calls), 10.0, keeper)
    assert ended.results == [b"-1"] * len(calls)
    assert list(tmp_path.iterdir()) == []


def test_code_that_came_as_text_does_not_run(keeper: Connection) -> None:
    deeds: list[Callable[[], object]] = [
        lambda: eval("1 + 1"),
        lambda: exec("1 + 1"),
        lambda: eval(compile("1 + 1", "<string>", "eval")),
        lambda: exec(compile("1 + 1", "<answer>", "exec")),
        lambda: exec(compile("1 + 1", "answer.py", "exec")),
        lambda: FunctionType(compile("1 + 1", "<answer>", "eval"), {}),
    ]
    assert [tried(deed, keeper) for deed in deeds] == [b"PermissionError"] * len(deeds)


def test_it_computes_and_reads(layers: str, keeper: Connection) -> None:
    assert tried(lambda: Path(__file__).read_text(), keeper) == b"done"
    assert tried(lambda: sum(range(10**5)), keeper) == b"done"
    assert tried(lambda: bytearray(2**28), keeper) == b"done"


def test_no_other_descriptor_is_there(keeper: Connection, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)

        def work() -> Iterator[bytes]:
            for number in range(3, 200):
                try:
                    os.fstat(number)
                except OSError:
                    continue
                yield str(number).encode()

        ended = cell.run(work, 200, 10.0, keeper)
    assert len(ended.results) == 1  # what it writes its results to


def test_it_dies_with_its_maker(tmp_path: Path) -> None:
    """A maker that is killed cannot end its cells: the kernel does."""
    ours, theirs = Pipe()
    maker = os.fork()
    if not maker:
        ours.close()
        cell.run(lambda: iter(lambda: time.sleep(60) or b"", None), 1, 60.0, theirs)
        os._exit(0)
    theirs.close()
    until = time.monotonic() + 10
    while not (cells := psutil.Process(maker).children()) and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)  # it says so to the kernel after it was forked
    os.kill(maker, signal.SIGKILL)
    os.waitpid(maker, 0)
    gone, alive = psutil.wait_procs(cells, timeout=10)
    ours.close()
    assert gone
    assert alive == []


def test_the_filter_is_here_and_can_be_asked_for() -> None:
    assert cell.filtered()
    assert seccomp.program(5) is seccomp.program(5)
