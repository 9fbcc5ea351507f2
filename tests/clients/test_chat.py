"""`ponder chat` as a process, in a pipe and on a terminal, against a server that is scripted."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from .scripted import Reply, ScriptedServer, answer, chunk, error, models, report

COMMAND = [sys.executable, "-m", "ponder.cli.main", "chat"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def chat(
    server: ScriptedServer, *argv: str | bytes, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, "--url", server.url, *argv],
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=20,
        check=False,
    )
    return subprocess.CompletedProcess(
        done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
    )


def test_a_question_is_answered_once(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    done = chat(server, "--budget", "32", "--system", "Be brief.", "3 + 4?")
    assert (done.returncode, done.stdout) == (0, "It is 7.\n")
    assert done.stderr == (
        "Let me think.\nthought 32/32 tokens · cut at the budget · answer 7 tokens\n"
    )
    assert server.asked == [
        {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "3 + 4?"},
            ],
            "thinking_token_budget": 32,
            "stream": True,
        }
    ]


def test_a_piped_question_is_answered_once(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    done = chat(server, stdin="Wie viel ist €3 + €4?\n".encode(), PONDER_API_KEY="secret")
    assert (done.returncode, done.stdout) == (0, "It is 7.\n")
    assert server.asked[0]["messages"][0]["content"] == "Wie viel ist €3 + €4?\n"
    assert "thinking_token_budget" not in server.asked[0]
    assert server.keys == ["Bearer secret"]


@pytest.mark.parametrize("argv", [(), (b"caf\xe9",)])
def test_bytes_that_are_no_text_do_no_harm(server: ScriptedServer, argv: tuple[bytes]) -> None:
    server.replies.append(Reply(answer()))
    assert chat(server, *argv, stdin=b"caf\xe9").stdout == "It is 7.\n"
    assert server.asked[0]["messages"][0]["content"].startswith("caf")


def test_no_question_is_said(server: ScriptedServer) -> None:
    done = chat(server, stdin=b" \n")
    assert (done.returncode, server.asked) == (2, [])
    assert "there is no question" in done.stderr


def test_a_model_is_chosen_by_name(server: ScriptedServer) -> None:
    server.models = models("tiny", "large")
    server.replies.append(Reply(answer()))
    assert chat(server, "--model", "large", "Hi").returncode == 0
    assert server.asked[0]["model"] == "large"
    done = chat(server, "--model", "none", "Hi")
    told = "ponder chat: the server has no model none: it has tiny, large\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_an_error_of_the_server_is_its_message(server: ScriptedServer) -> None:
    server.replies.append(Reply(status=400, body=error("send a smaller budget")))
    done = chat(server, "Hi")
    assert (done.returncode, done.stderr) == (1, "ponder chat: send a smaller budget\n")


def test_an_error_in_the_stream_keeps_what_came(server: ScriptedServer) -> None:
    server.replies.append(Reply([chunk(content="It"), error("the engine died", "engine_error")]))
    done = chat(server, "Hi")
    assert (done.returncode, done.stdout) == (1, "It\n")
    assert done.stderr == "ponder chat: the engine died\n"


def test_no_server_names_the_remedy(server: ScriptedServer) -> None:
    done = chat(server, "--url", "http://127.0.0.1:9", "Hi")
    assert done.returncode == 1
    assert done.stderr == (
        "ponder chat: no server answers at http://127.0.0.1:9: start one with `ponder serve`, "
        "or name another with --url\n"
    )


class Terminal:
    """`ponder chat` on a pseudo-terminal, as a user sees it."""

    def __init__(self, *argv: str) -> None:
        self._file, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [*COMMAND, *argv],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30"},
        )
        os.close(theirs)
        self._written = b""
        self._seen = 0

    @property
    def raw(self) -> str:
        return self._written.decode(errors="replace")

    def type(self, line: str) -> None:
        os.write(self._file, line.encode() + b"\r")

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end_of_input(self) -> None:
        os.write(self._file, b"\x04")

    def wait_for(self, text: str) -> str:
        """What came up to `text`, without colours, since the last wait."""
        return self._read(lambda new: text in new)

    def leaves_with(self) -> int:
        self._read(lambda _: self._process.poll() is not None)
        return self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._file)

    def _read(self, enough: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + 15
        while not enough(new := ESCAPES.sub("", self.raw[self._seen :])):
            assert time.monotonic() < deadline, f"waited in vain, with this on the screen: {new}"
            if select.select([self._file], [], [], 0.05)[0]:
                try:
                    self._written += os.read(self._file, 1 << 16)
                except OSError:  # Linux says so when the other side has closed
                    assert self._process.wait(5) is not None
        self._seen = len(self.raw)
        return new


@pytest.fixture
def terminal(server: ScriptedServer) -> Iterator[Terminal]:
    terminal = Terminal("--url", server.url)
    yield terminal
    terminal.close()


def test_a_conversation(server: ScriptedServer, terminal: Terminal) -> None:
    server.replies.append(Reply(answer(said="It is 7.")))
    server.replies.append(Reply(answer(end_cause="natural", thinking_tokens=20)))
    server.replies.append(Reply(answer()))
    opening = terminal.wait_for("› ")
    assert f"tiny at {server.url}" in opening
    assert "budget: the server's default, no limit" in opening

    terminal.type("3 + 4?")
    shown = terminal.wait_for("› ")
    assert shown.index("Let me think.") < shown.index("It is 7.") < shown.index("thought 32/32")
    assert "\x1b[2mLet me think.\x1b[0m" in terminal.raw
    assert "\x1b[1mIt is 7.\x1b[0m" in terminal.raw

    terminal.type("/budget 32")
    assert "budget: 32 tokens" in terminal.wait_for("\n› ")
    terminal.type("Sure?")
    assert "thought 20/32 tokens · ended by itself, 12 to spare" in terminal.wait_for("\n› ")
    assert "thinking_token_budget" not in server.asked[0]
    assert server.asked[1]["thinking_token_budget"] == 32
    assert server.asked[1]["messages"] == [
        {"role": "user", "content": "3 + 4?"},
        {"role": "assistant", "content": "It is 7."},
        {"role": "user", "content": "Sure?"},
    ]

    terminal.type("/clear")
    assert "forgotten" in terminal.wait_for("\n› ")
    terminal.type("/etc/hosts is what?")
    terminal.wait_for("answer 7 tokens")
    assert server.asked[2]["messages"] == [{"role": "user", "content": "/etc/hosts is what?"}]
    terminal.type("/quit")
    assert terminal.leaves_with() == 0


def test_commands_explain_themselves(server: ScriptedServer, terminal: Terminal) -> None:
    terminal.wait_for("› ")
    for typed, told in [
        ("/help", "forget the conversation"),
        ("/budget", "the server's default, no limit"),
        ("/budget ten", "a budget is a number of tokens"),
        ("/budget -2", "a budget is a number of tokens"),
        ("/budget 1 2", "a budget is a number of tokens"),
        ("/budget -1", "budget: no limit"),
        ("/nonsense", "/nonsense is not a command: see /help"),
        ("   ", ""),
    ]:
        terminal.type(typed)
        assert told in terminal.wait_for("\n› ")
    assert server.asked == []
    terminal.end_of_input()
    assert terminal.leaves_with() == 0


def test_ctrl_c_stops_the_answer_then_leaves(server: ScriptedServer, terminal: Terminal) -> None:
    server.replies.append(Reply([chunk(reasoning="Let me")], endless=True))
    server.replies.append(Reply([chunk(content="It is")], endless=True))
    server.replies.append(Reply(answer()))
    terminal.wait_for("› ")
    terminal.type("one")
    terminal.wait_for("Let me")
    terminal.interrupt()
    assert "stopped" in terminal.wait_for("\n› ")
    assert server.client_gone.wait(5)
    terminal.type("two")
    terminal.wait_for("It is")
    terminal.interrupt()
    terminal.wait_for("\n› ")
    terminal.type("three")
    assert "answer 7 tokens" in terminal.wait_for("\n› ")
    # What was stopped before it said anything is forgotten; what it said is kept.
    assert [message["content"] for message in server.asked[2]["messages"]] == [
        "two",
        "It is",
        "three",
    ]
    time.sleep(0.3)  # readline forgets a signal that comes before it starts to wait
    terminal.interrupt()
    assert terminal.leaves_with() == 0
    assert "Traceback" not in terminal.raw


def test_an_error_is_told_and_the_chat_goes_on(server: ScriptedServer, terminal: Terminal) -> None:
    server.replies.append(Reply(status=503, body=error("too busy: ask again", "overloaded")))
    server.replies.append(Reply([chunk(content="It")]))
    server.replies.append(Reply(answer(**report(end_cause="disabled", budget_effective=0))))
    terminal.wait_for("› ")
    terminal.type("one")
    assert "too busy: ask again" in terminal.wait_for("\n› ")
    terminal.type("two")
    assert "ended before the answer did" in terminal.wait_for("\n› ")
    terminal.type("three")
    assert "no thought · answer 7 tokens" in terminal.wait_for("\n› ")
    assert [message["content"] for message in server.asked[2]["messages"]] == ["two", "It", "three"]


def test_ctrl_c_of_a_single_question_is_status_130(server: ScriptedServer) -> None:
    server.replies.append(Reply([chunk(content="It is")], endless=True))
    with subprocess.Popen(
        [*COMMAND, "--url", server.url, "Hi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"It is"
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == b""
    assert server.client_gone.wait(5)
