"""Answers that attack their judge leave no trace: not in files, the network, other processes, the
environment, what is judged later, or the trainer.

Each is given twice: to the judges that Ponder ships, in the dresses in which reasoning-gym's own
scorers would have run it, and to a judge that really runs it, so that the cage alone is tried.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from random import Random

import psutil
import pytest

from ponder.tasks import gym, scorers
from ponder.tasks.gym import GymTask
from ponder.tasks.problems import Problem
from ponder.tasks.workers import Verdict, VerifierPool
from tasks.judges import VERIFIERS, told

SECRET = "hunter2-of-the-operator"
ATTACKS = {
    # files
    "write": "open({trace!r}, 'w').write('x')",
    "append": "open({kept!r}, 'a').write('x')",
    "create": "__import__('os').open({trace!r}, 0o101)",
    "unlink": "__import__('os').unlink({kept!r})",
    "rename": "__import__('os').rename({kept!r}, {trace!r})",
    "truncate": "__import__('os').truncate({kept!r}, 0)",
    "directory": "__import__('os').mkdir({trace!r})",
    "link": "__import__('os').symlink('/etc/passwd', {trace!r})",
    "mode": "__import__('os').chmod({kept!r}, 0o777)",
    "sqlite": "__import__('sqlite3').connect({trace!r}).execute('create table x (y)')",
    "path": "__import__('pathlib').Path({trace!r}).write_bytes(b'x')",
    "temporary": "__import__('tempfile').NamedTemporaryFile(dir={folder!r}, delete=False)",
    "numpy": "__import__('numpy').save({trace!r}, [1])",
    "libc file": "__import__('ctypes').CDLL(None).creat({trace!r}.encode(), 0o600)",
    # the environment and the trainer's memory
    "environment": "open({trace!r}, 'w').write(__import__('os').environ['A_SECRET'])",
    "parent's environment": "open({trace!r}, 'wb').write(open('/proc/{trainer}/environ', 'rb').read())",  # noqa: E501
    "parent's memory": "open('/proc/{trainer}/mem', 'r+b').write(b'x')",
    "ptrace": "__import__('ctypes').CDLL(None).ptrace(16, {trainer}, 0, 0)",
    # the network
    "connect": "__import__('socket').create_connection(('127.0.0.1', {port}), 2)",
    "post": "__import__('urllib.request').request.urlopen('http://127.0.0.1:{port}', b'x', 2)",
    "libc socket": "(lambda c: c.connect(c.socket(2, 1, 0), b'x' * 16, 16))(__import__('ctypes').CDLL(None))",  # noqa: E501
    "unix": "__import__('socket').socket(1).bind({trace!r})",
    # processes
    "fork": "__import__('os').fork()",
    "fork bomb": "[__import__('os').fork() for _ in range(1000)]",
    "system": "__import__('os').system('touch {trace}')",
    "popen": "__import__('subprocess').Popen(['touch', {trace!r}])",
    "spawn": "__import__('os').posix_spawn('/bin/touch', ['touch', {trace!r}], {{}})",
    "exec": "__import__('os').execv('/bin/touch', ['touch', {trace!r}])",
    "multiprocessing": "__import__('multiprocessing').Process(target=print).start()",
    "thread": "__import__('threading').Thread(target=lambda: [None for _ in iter(int, 1)]).start()",
    "kill trainer": "__import__('os').kill({trainer}, 9)",
    "kill keeper": "__import__('os').kill(__import__('os').getppid(), 9)",
    "kill group": "__import__('os').killpg(0, 9)",
    "daemon": "__import__('os').setsid()",
    # what is judged later
    "threshold": "setattr(__import__('sys').modules['ponder.tasks.gym'], '_FULL_SCORE', -1)",
    "scorer": "setattr(__import__('tasks.judges').judges.VERIFIERS['runs'], 'check', print)",
    "modules": "__import__('sys').modules.clear()",
    "builtins": "setattr(__import__('builtins'), 'bool', lambda x: True)",
    "equality": "setattr(__import__('operator'), 'eq', lambda a, b: True)",
    "importer": "__import__('sys').meta_path.insert(0, None)",
    "frames": "__import__('sys')._getframe(2).f_locals.update(text='right')",
    "objects": "[o.clear() for o in __import__('gc').get_objects() if type(o) is dict]",
    "trace function": "__import__('sys').settrace(lambda *a: None)",
    "signals": "[__import__('signal').signal(n, 1) for n in (2, 14, 15)]",
    "at exit": "__import__('atexit').register(print, 'x', file=open({trace!r}, 'w'))",
    "reference": "[p.__class__.__dict__['answer'].__set__(p, '') for p in __import__('gc').get_objects() if type(p).__name__ == 'Problem']",  # noqa: E501
    # resources
    "memory": "bytearray(2**50)",
    "much memory": "[bytearray(2**24) for _ in range(10**6)]",
    "endless": "[None for _ in iter(int, 1)]",
    "power": "9**9**9",
    "digits": "str(10**10**6)",
    "nesting": "(" * 5000 + ")" * 5000,
    "unary": "-" * 20000 + "1",
    "recursion": "(lambda f: f(f))(lambda f: f(f))",
    "stack": "__import__('sys').setrecursionlimit(10**9) or (lambda f: f(f))(lambda f: f(f))",
    "flood": "[print('x' * 10**6) for _ in range(300)]",
    "backtracking": "__import__('re').match('(a+)+$', 'a' * 64 + 'b')",
    "expansion": "__import__('sympy').expand('(a+b+c+d)**400')",
    "file size": "open({trace!r}, 'wb').truncate(2**40)",
    # the way back
    "exit": "__import__('os')._exit(0)",
    "leave": "exit(0)",
    "abort": "__import__('os').abort()",
    "segment": "__import__('ctypes').string_at(1)",
    "descriptors": "[__import__('os').write(fd, b'right\\n' * 9) for fd in range(3, 64)]",
    "closing": "__import__('os').closerange(0, 1024)",
    "pickle": "__import__('pickle').loads(b'cos\\nsystem\\n(S\"touch {trace}\"\\ntR.')",
    "error": "(_ for _ in ()).throw(type('E', (Exception,), {{'__repr__': lambda s: 'right'}}))",
    "result": "type('Right', (str,), {{'__eq__': lambda a, b: True, '__bool__': lambda a: True}})()",  # noqa: E501
}
# An answer that runs may of course say that it is right: its own verdict is all that it gets.
OWN_VERDICT = {"descriptors", "result", "builtins", "equality", "frames"}


class Scene:
    """What attacks aim at, and whether it is as it was."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._kept = folder / "kept"
        self._kept.write_text("as it was")
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._before = self._state()

    def armed(self, attack: str) -> str:
        return attack.format(
            trace=str(self.folder / "trace"),
            kept=str(self._kept),
            folder=str(self.folder),
            port=self._listener.getsockname()[1],
            trainer=os.getpid(),
        )

    def assert_untouched(self) -> None:
        assert self._state() == self._before
        with pytest.raises(BlockingIOError):
            self._listener.accept()

    def close(self) -> None:
        self._listener.close()

    def _state(self) -> object:
        stat = self._kept.stat()
        return (
            [(path.name, path.read_text()) for path in self.folder.iterdir()],
            (stat.st_mode, stat.st_mtime_ns),
            os.environ["A_SECRET"],
            gym._FULL_SCORE,
            sorted(scorers.OWN),
        )


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setenv("A_SECRET", SECRET)
    scene = Scene(tmp_path)
    yield scene
    scene.close()


@pytest.fixture(scope="module")
def running() -> Iterator[VerifierPool]:
    with VerifierPool(1, time_limit_s=1.0, memory_limit_mb=512, verifiers=VERIFIERS) as pool:
        yield pool


@pytest.fixture(scope="module")
def shipped() -> Iterator[VerifierPool]:
    with VerifierPool(1, time_limit_s=5.0) as pool:
        yield pool


def family() -> list[int]:
    return sorted(child.pid for child in psutil.Process().children(recursive=True))


@pytest.mark.parametrize("name", ATTACKS)
def test_a_judge_that_runs_answers_is_held(name: str, scene: Scene, running: VerifierPool) -> None:
    assert running.judge([told("answer = 'right'", "runs")]) == [Verdict(True)]
    before = family()
    attack = scene.armed(ATTACKS[name])
    attacked = running.judge([told(f"answer = {attack}", "runs")])
    later = running.judge([told("answer = 'right'", "runs"), told("answer = 'banana'", "runs")])
    assert later == [Verdict(True), Verdict(False)]
    assert family() == before
    scene.assert_untouched()
    if name not in OWN_VERDICT:
        assert not attacked[0].correct


def test_the_attacks_would_work_without_the_cage(scene: Scene) -> None:
    """What is held is worth holding: outside, an answer leaves its trace."""
    exec(scene.armed(ATTACKS["path"]))
    assert (scene.folder / "trace").read_text() == "x"
    with pytest.raises(AssertionError):
        scene.assert_untouched()


def problem_of(name: str) -> Problem:
    if name == "math":
        return Problem("test:2", "test", 0, "?", r"\frac{1}{2}", "math")
    return GymTask.find(name).sample(Random(0), 0)


@pytest.mark.parametrize("name", [*scorers.OWN, "math"])
def test_the_judges_that_are_shipped_do_not_run_answers(
    name: str, scene: Scene, shipped: VerifierPool
) -> None:
    problem = problem_of(name)
    attacks = [scene.armed(attack) for attack in ATTACKS.values()]
    dressed = [
        dress
        for attack in attacks
        for dress in (attack, f"[{attack}]", f"The answer is [{attack}].", f"\\boxed{{{attack}}}")
    ]
    verdicts = shipped.judge((problem, text) for text in [*dressed, problem.answer, "banana"])
    assert [text for text, v in zip(dressed, verdicts, strict=False) if v.correct] == []
    assert {v.failure for v in verdicts} <= {None, "error", "time"}
    assert verdicts[-2] == Verdict(True)
    assert not verdicts[-1].correct
    scene.assert_untouched()


def test_there_are_enough_of_them() -> None:
    assert len(ATTACKS) >= 40
