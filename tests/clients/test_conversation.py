"""`ponder chat` on a terminal: typing, pasting, Ctrl-C, commands, history."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from waiting import wait_until

from .scripted import DONE, Reply, ScriptedServer, answer, chunk, error, models, report
from .terminal import Terminal

Start = Callable[..., Terminal]


@pytest.fixture
def start(server: ScriptedServer, tmp_path: Path) -> Iterator[Start]:
    """Chats that share their state."""
    started = []

    def chat(*argv: str, **options: str) -> Terminal:
        started.append(Terminal("--url", server.url, *argv, state=tmp_path, **options))
        return started[-1]

    yield chat
    for terminal in started:
        terminal.close()


@pytest.fixture
def terminal(start: Start) -> Terminal:
    return start()


def questions(server: ScriptedServer) -> list[str]:
    return [body["messages"][-1]["content"] for body in server.asked]


def test_a_conversation(server: ScriptedServer, terminal: Terminal) -> None:
    server.replies.append(Reply(answer(said="It is 7.")))
    server.replies.append(Reply(answer(end_cause="natural", thinking_tokens=20)))
    server.replies.append(Reply(answer()))
    opening = terminal.wait_for_prompt()
    assert f"tiny at {server.url}" in opening
    assert "budget: the server's default, no limit" in opening

    terminal.type("3 + 4?")
    shown = terminal.wait_for_prompt()
    assert shown.index("Let me think.") < shown.index("It is 7.") < shown.index("thought 32/32")
    assert "\x1b[2mLet me think.\x1b[0m" in terminal.raw
    assert "\x1b[1mIt is 7.\x1b[0m" in terminal.raw

    terminal.type("/budget 32")
    assert "budget: 32 tokens" in terminal.wait_for_prompt()
    terminal.type("Sure?")
    assert "thought 20/32 tokens · ended by itself, 12 to spare" in terminal.wait_for_prompt()
    assert "thinking_token_budget" not in server.asked[0]
    assert server.asked[1]["thinking_token_budget"] == 32
    assert server.asked[1]["messages"] == [
        {"role": "user", "content": "3 + 4?"},
        {"role": "assistant", "content": "It is 7."},
        {"role": "user", "content": "Sure?"},
    ]

    terminal.type("/clear")
    assert "forgotten" in terminal.wait_for_prompt()
    terminal.type("/etc/hosts is what?")
    assert "answer 7 tokens" in terminal.wait_for_prompt()
    assert server.asked[2]["messages"] == [{"role": "user", "content": "/etc/hosts is what?"}]
    terminal.type("/quit")
    assert terminal.leaves_with() == 0


def test_pasted_lines_are_one_question(server: ScriptedServer, terminal: Terminal) -> None:
    server.replies.extend(Reply(answer()) for _ in range(2))
    terminal.wait_for_prompt()
    terminal.write("Summarise: ")
    terminal.paste("one\n\n  two \\\nthree\n")
    terminal.type("")
    terminal.wait_for_prompt()
    terminal.paste("/clear\nis a command of what?")
    terminal.type("")
    terminal.wait_for_prompt()
    # The indentation and the backslash are the text's own.
    assert questions(server) == [
        "Summarise: one\n\n  two \\\nthree",
        "/clear\nis a command of what?",
    ]


def test_a_long_paste_arrives_whole(server: ScriptedServer, terminal: Terminal) -> None:
    text = "\n".join(f"line {number} of many" for number in range(500))
    server.replies.append(Reply(answer()))
    terminal.wait_for_prompt()
    terminal.paste(text)
    terminal.type("")
    terminal.wait_for("answer 7 tokens")
    assert questions(server) == [text]


def test_a_backslash_and_quotes_make_several_lines(
    server: ScriptedServer, terminal: Terminal
) -> None:
    server.replies.extend(Reply(answer()) for _ in range(4))
    terminal.wait_for_prompt()
    for lines, question in [
        (["one \\", "two"], "one \ntwo"),
        (['"""', "three", "", "  four", '"""'], "three\n\n  four"),
        (['"""five', 'six"""'], "five\nsix"),
        (['the sign """ alone'], 'the sign """ alone'),
    ]:
        for line in lines:
            terminal.type(line)
        terminal.wait_for_prompt()
        assert questions(server)[-1] == question
    assert len(server.asked) == 4


def test_what_is_typed_during_an_answer_waits_as_one_question(
    server: ScriptedServer, terminal: Terminal
) -> None:
    server.replies.append(Reply([chunk(content="It is")], endless=True))
    server.replies.append(Reply(answer()))
    terminal.wait_for_prompt()
    terminal.type("one")
    terminal.wait_for("It is")
    terminal.type("two")
    terminal.type("three")
    terminal.wait_for("three\r\n")  # its echo: the terminal made Enter a line feed
    terminal.interrupt()
    terminal.wait_for_prompt()
    terminal.type("four")
    terminal.wait_for("answer 7 tokens")
    assert questions(server) == ["one", "two\nthree\nfour"]


def test_ctrl_c_clears_what_is_typed_and_leaves_when_pressed_twice(
    server: ScriptedServer, terminal: Terminal
) -> None:
    server.replies.append(Reply(answer()))
    terminal.wait_for_prompt()
    terminal.write("a mistake")
    terminal.wait_for_screen(lambda lines: lines[-1] == "› a mistake")
    terminal.press_ctrl_c()
    terminal.wait_for_screen(lambda lines: lines[-1] == "›")
    terminal.press_ctrl_c()
    assert "Ctrl-C again leaves" in terminal.wait_for_prompt()
    # Whatever is typed between them, two are needed again.
    terminal.type("3 + 4?")
    terminal.wait_for_prompt()
    assert questions(server) == ["3 + 4?"]
    terminal.interrupt()
    assert "Ctrl-C again leaves" in terminal.wait_for_prompt()
    terminal.press_ctrl_c()
    assert terminal.leaves_with() == 0
    assert "Traceback" not in terminal.raw


@pytest.mark.parametrize("press", [Terminal.press_ctrl_c, Terminal.interrupt])
def test_ctrl_c_stops_the_answer(
    server: ScriptedServer, terminal: Terminal, press: Callable[[Terminal], None]
) -> None:
    server.replies.append(Reply([chunk(reasoning="Let me")], endless=True))
    server.replies.append(Reply([chunk(content="It is")], endless=True))
    server.replies.append(Reply(answer()))
    terminal.wait_for_prompt()
    terminal.type("one")
    terminal.wait_for("Let me")
    press(terminal)
    terminal.wait_for("finishing the thought · Ctrl-C again stops")
    press(terminal)
    assert "stopped" in terminal.wait_for_prompt()
    assert server.client_gone.wait(5)
    terminal.type("two")
    terminal.wait_for("It is")
    press(terminal)
    terminal.wait_for_prompt()
    terminal.type("three")
    assert "answer 7 tokens" in terminal.wait_for_prompt()
    # What was stopped before it said anything is forgotten; what it said is kept.
    assert [message["content"] for message in server.asked[2]["messages"]] == [
        "two",
        "It is",
        "three",
    ]
    assert "Traceback" not in terminal.raw


@pytest.mark.parametrize("said", [(), ("Let me",)])
def test_ctrl_c_during_a_thought_finishes_it(
    server: ScriptedServer, terminal: Terminal, said: tuple[str, ...]
) -> None:
    """Also before its first token came."""
    thought = [chunk(reasoning=piece) for piece in said]
    rest = [chunk(content="It is 7."), chunk("stop", ponder=report(end_cause="finish_now")), DONE]
    server.replies.append(Reply(thought, endless=True, then=rest))
    server.replies.append(Reply(answer()))
    terminal.wait_for_prompt()
    terminal.type("one")
    terminal.wait_for("Let me" if said else "waiting for the first token")
    wait_until(lambda: len(server.asked) == 1)
    terminal.press_ctrl_c()
    shown = terminal.wait_for_prompt()
    assert "It is 7." in shown
    assert "thought 32/32 tokens · closed when asked to" in shown
    assert server.finished == server.names[:1]
    terminal.type("two")
    terminal.wait_for_prompt()
    assert [message["content"] for message in server.asked[1]["messages"]] == [
        "one",
        "It is 7.",
        "two",
    ]
    assert len(set(server.names)) == 2
    terminal.interrupt()  # as ever, outside an answer
    assert "Ctrl-C again leaves" in terminal.wait_for_prompt()
    assert "Traceback" not in terminal.raw


def test_a_server_that_cannot_finish_says_why(server: ScriptedServer, terminal: Terminal) -> None:
    server.replies.append(Reply([chunk(reasoning="Let me")], endless=True))
    server.refusal = (404, error("there is no /v1/ponder/x/finish", "not_found"))
    terminal.wait_for_prompt()
    terminal.type("one")
    terminal.wait_for("Let me")
    terminal.press_ctrl_c()
    terminal.wait_for("not finished: there is no /v1/ponder/x/finish · Ctrl-C again stops")
    terminal.press_ctrl_c()
    assert "stopped" in terminal.wait_for_prompt()


def test_without_a_thought_ctrl_c_stops(server: ScriptedServer, start: Start) -> None:
    terminal = start("--budget", "0")
    server.replies.append(Reply(endless=True))
    terminal.wait_for_prompt()
    terminal.type("one")
    wait_until(lambda: len(server.asked) == 1)
    terminal.press_ctrl_c()
    assert "stopped" in terminal.wait_for_prompt()
    assert server.finished == []


def test_commands_explain_themselves(server: ScriptedServer, terminal: Terminal) -> None:
    terminal.wait_for_prompt()
    for typed, told in [
        ("/budget", "the server's default, no limit"),
        ("/budget ten", "a budget is a number of tokens"),
        ("/budget -2", "a budget is a number of tokens"),
        ("/budget 1 2", "a budget is a number of tokens"),
        ("/budget -1", "budget: no limit"),
        ("/budget auto", "budget: auto, what the model's curve says"),
        ("/budget 9999999999999", "budget: 9999999999999 tokens"),
        ("/nonsense", "/nonsense is not a command: see /help"),
        ("/retry", "there is no question to ask again"),
        ("/save", "name a file: /save FILE"),
        ("/model", "tiny (asked now)"),
        ("/model none", "the server has no model none: it has tiny"),
        ("   ", ""),
    ]:
        terminal.type(typed)
        assert told in terminal.wait_for_prompt()
    terminal.type("/help")
    said = terminal.wait_for_prompt()
    for word in ("/budget N", "/model NAME", "/retry", "/save FILE", "/clear", "/quit", '"""'):
        assert word in said
    assert server.asked == []
    terminal.end_of_input()
    assert terminal.leaves_with() == 0


def test_another_model_answers_and_the_last_question_is_asked_again(
    server: ScriptedServer, terminal: Terminal
) -> None:
    server.models = models("tiny", "large")
    server.replies.append(Reply(answer(said="It is 6.")))
    server.replies.append(Reply(status=503, body=error("too busy", "overloaded")))
    server.replies.append(Reply(answer(said="It is 7.")))
    terminal.wait_for_prompt()
    terminal.type("3 + 4?")
    terminal.wait_for_prompt()
    terminal.type("/model large")
    assert "large answers from here on" in terminal.wait_for_prompt()
    terminal.type("/retry")
    assert "too busy" in terminal.wait_for_prompt()
    terminal.type("/retry")
    assert "It is 7." in terminal.wait_for_prompt()
    assert [body["model"] for body in server.asked] == ["tiny", "large", "large"]
    assert all(body["messages"] == [{"role": "user", "content": "3 + 4?"}] for body in server.asked)


def test_a_conversation_is_saved_and_nothing_is_written_over(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    server.replies.append(Reply(answer(said="Es sind 7 €.")))
    terminal = start("--system", "Be brief.")
    terminal.wait_for_prompt()
    terminal.type("3 + 4?")
    terminal.wait_for_prompt()
    file = tmp_path / "a conversation.json"
    terminal.type(f"/save {file}")
    assert "the conversation is in" in terminal.wait_for_prompt()
    assert json.loads(file.read_text(encoding="utf-8")) == {
        "model": "tiny",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "3 + 4?"},
            {"role": "assistant", "content": "Es sind 7 €."},
        ],
    }
    terminal.type(f"/save {file}")
    assert "name another file" in terminal.wait_for_prompt()
    terminal.type(f"/save {tmp_path}/nowhere/file")
    assert "cannot be written" in terminal.wait_for_prompt()


def test_what_was_typed_comes_back_in_the_next_chat(
    server: ScriptedServer, start: Start, tmp_path: Path
) -> None:
    server.replies.extend(Reply(answer()) for _ in range(2))
    first = start()
    first.wait_for_prompt()
    first.paste("one\ntwo")
    first.type("")
    first.wait_for_prompt()
    first.end_of_input()
    assert first.leaves_with() == 0
    file = tmp_path / "ponder" / "chat-history"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    second = start()
    second.wait_for_prompt()
    second.write("\x1b[A")
    second.wait_for_screen(lambda lines: lines[-2:] == ["› one", "  two"])
    second.type("")
    second.wait_for("answer 7 tokens")
    assert questions(server) == ["one\ntwo"] * 2

    third = start("--no-history")
    third.wait_for_prompt()
    kept = file.read_bytes()
    third.type("/budget")
    third.wait_for_prompt()
    assert file.read_bytes() == kept


def test_a_history_that_cannot_be_kept_is_said(start: Start, tmp_path: Path) -> None:
    (tmp_path / "ponder").write_text("a file, where the folder should be")
    terminal = start()
    assert "no lines are kept" in terminal.wait_for_prompt()


@pytest.mark.parametrize(
    ("encoding", "mark", "bar"), [("latin-1", ">", "·"), ("ascii", ">", "-"), ("utf-8", "›", "·")]
)
def test_any_encoding_of_the_terminal(
    server: ScriptedServer, start: Start, encoding: str, mark: str, bar: str
) -> None:
    server.replies.append(Reply(answer(said="It is ½ – or “7” → good.")))
    terminal = start("--budget", "32", encoding=encoding)
    assert f"budget: 32 tokens {bar} /help" in terminal.wait_for_prompt()
    terminal.wait_for_screen(lambda lines: lines[-1] == mark)
    terminal.type("3 + 4?")
    said = terminal.wait_for_prompt()
    assert f"thought 32/32 tokens {bar} cut at the budget" in said
    spelt = {
        "utf-8": "It is ½ – or “7” → good.",
        "latin-1": 'It is ½ - or "7" -> good.',
        "ascii": 'It is ? - or "7" -> good.',
    }
    assert spelt[encoding] in terminal.lines
    terminal.end_of_input()
    assert terminal.leaves_with() == 0
    assert "Traceback" not in terminal.raw


def test_a_dumb_terminal_is_enough(server: ScriptedServer, start: Start) -> None:
    server.replies.append(Reply(answer()))
    terminal = start(TERM="dumb")
    terminal.wait_for("› ")
    terminal.type("3 + 4?")
    terminal.wait_for("answer 7 tokens")
    terminal.type("/quit")
    assert terminal.leaves_with() == 0
    assert questions(server) == ["3 + 4?"]


def test_an_error_is_told_and_the_chat_goes_on(server: ScriptedServer, terminal: Terminal) -> None:
    server.replies.append(Reply(status=503, body=error("too busy: ask again", "overloaded")))
    server.replies.append(Reply([chunk(content="It")]))
    server.replies.append(Reply(answer(**report(end_cause="disabled", budget_effective=0))))
    terminal.wait_for_prompt()
    terminal.type("one")
    assert "too busy: ask again" in terminal.wait_for_prompt()
    terminal.type("two")
    assert "ended before the answer did" in terminal.wait_for_prompt()
    terminal.type("three")
    assert "no thought · answer 7 tokens" in terminal.wait_for_prompt()
    assert [message["content"] for message in server.asked[2]["messages"]] == ["two", "It", "three"]
