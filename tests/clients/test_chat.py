"""`ponder chat` as a process in a pipe, against a server that is scripted."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from .scripted import Reply, ScriptedServer, answer, chunk, error, models
from .terminal import COMMAND


def chat(
    server: ScriptedServer, *argv: str | bytes, stdin: bytes = b"", **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, "--url", server.url, *argv],
        input=stdin,
        capture_output=True,
        env={**os.environ, **environment},
        timeout=120,
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


def test_auto_and_the_task_are_asked_for(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer(budget_source="auto")))
    done = chat(server, "--budget", "auto", "--task", "sum", "--no-hint", "3 + 4?")
    assert (done.returncode, done.stdout) == (0, "It is 7.\n")
    assert "cut at the budget that auto chose" in done.stderr
    assert server.asked[0]["thinking_token_budget"] == "auto"
    assert server.asked[0]["ponder"] == {"hint": False, "task": "sum"}


@pytest.mark.parametrize("budget", ["many", "-2", "1.5"])
def test_a_budget_that_is_none_is_refused(server: ScriptedServer, budget: str) -> None:
    done = chat(server, "--budget", budget, "3 + 4?")
    assert done.returncode == 2
    assert done.stderr == (
        "ponder chat: --budget must be a number of tokens, -1 for no limit, or auto\n"
    )


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


def test_a_byte_order_mark_is_no_part_of_the_question(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    assert chat(server, stdin="\ufeff3 + 4?".encode()).returncode == 0
    assert server.asked[0]["messages"][0]["content"] == "3 + 4?"


def test_with_stdout_closed_a_question_is_answered_to_nobody(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    command = [*COMMAND, "--url", server.url, "3 + 4?"]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"Let me think." in done.stderr


def test_a_prompt_and_what_is_piped_in_are_one_question(server: ScriptedServer) -> None:
    server.replies.extend([Reply(answer())] * 2)
    assert chat(server, "Summarise:", stdin=b"One line.\nAnother.\n").returncode == 0
    assert chat(server, "Alone?", stdin=b" \n").returncode == 0
    asked = [body["messages"][0]["content"] for body in server.asked]
    assert asked == ["Summarise:\n\nOne line.\nAnother.\n", "Alone?"]


def test_a_pipe_that_says_nothing_is_waited_for_aloud(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    with subprocess.Popen(
        [*COMMAND, "--url", server.url, "Summarise:"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        assert b"standard input until it ends" in process.stderr.readline()
        process.stdin.write(b"late")
        process.stdin.close()
        assert process.wait(120) == 0
    assert server.asked[0]["messages"][0]["content"] == "Summarise:\n\nlate"


def test_without_standard_input_the_prompt_is_the_question(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    shell = 'exec "$@" <&-'
    command = ["sh", "-c", shell, "sh", *COMMAND, "--url", server.url, "Hi"]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, b"It is 7.\n")


def test_sampling_is_asked_for_as_typed(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    flags = "--temperature 0 --top-p 0.9 --seed 7 --max-tokens 99 --no-hint --deadline-ms 2000"
    flags += " --budget 9999999999999 --early-exit agreement"
    assert chat(server, *flags.split(), "Hi").returncode == 0
    body = server.asked[0]
    assert {name: body[name] for name in body if name not in ("messages", "model", "stream")} == {
        "temperature": 0.0,
        "top_p": 0.9,
        "seed": 7,
        "max_completion_tokens": 99,
        "ponder": {"hint": False, "early_exit": {"method": "agreement"}, "deadline_ms": 2000},
        "thinking_token_budget": 9999999999999,
    }


def test_a_strategy_is_asked_for_as_typed(server: ScriptedServer) -> None:
    server.replies.append(Reply(answer()))
    flags = "--strategy particles --thoughts 8 --budget 512"
    assert chat(server, *flags.split(), "Hi").returncode == 0
    assert server.asked[0]["ponder"] == {"strategy": {"method": "particles", "n": 8}}


def test_server_key_and_model_may_come_from_the_environment(server: ScriptedServer) -> None:
    server.models = models("tiny", "large")
    server.replies.append(Reply(answer()))
    done = subprocess.run(
        [*COMMAND, "Hi"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={
            **os.environ,
            "PONDER_URL": server.url.removeprefix("http://"),
            "PONDER_API_KEY": "secret",
            "PONDER_MODEL": "large",
        },
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"It is 7.\n")
    assert (server.asked[0]["model"], server.keys) == ("large", ["Bearer secret"])


def test_what_the_environment_says_wrongly_is_named(server: ScriptedServer) -> None:
    done = chat(server, "Hi", PONDER_MODEL="none")
    told = "ponder chat: the server has no model none: it has tiny (PONDER_MODEL names it)\n"
    assert (done.returncode, done.stderr) == (1, told)
    broken = {**os.environ, "PONDER_URL": "ftp://host"}
    wrong = subprocess.run([*COMMAND, "Hi"], env=broken, capture_output=True, check=False)
    assert wrong.returncode == 2
    assert b"PONDER_URL or OPENAI_BASE_URL in the environment: 'ftp://host'" in wrong.stderr
    wrong = subprocess.run([*COMMAND, "--url", "host:x"], capture_output=True, check=False)
    assert wrong.returncode == 2
    assert b"--url: 'host:x' is no URL" in wrong.stderr


@pytest.mark.parametrize(
    ("encoding", "out", "err"),
    [
        ("latin-1", b"\xbd of caf\xe9 > 1\n", "thought 32/32 tokens · cut"),
        ("ascii", b"? of cafe > 1\n", "thought 32/32 tokens - cut"),
    ],
)
def test_what_an_encoding_lacks_is_spelt(
    server: ScriptedServer, encoding: str, out: bytes, err: str
) -> None:
    server.replies.append(Reply(answer(said="½ of café › 1")))
    done = subprocess.run(
        [*COMMAND, "--url", server.url, "Hi"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, out)
    assert err in done.stderr.decode(encoding)


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


def test_ctrl_c_of_a_single_question_is_status_130(server: ScriptedServer) -> None:
    server.replies.append(Reply([chunk(content="It is")], endless=True))
    with subprocess.Popen(
        [*COMMAND, "--url", server.url, "Hi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"It is"
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
        assert process.stderr.read() == b""
    assert server.client_gone.wait(5)
