"""`ponder chat`: talk to a server in the terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Annotated

from pydantic import BaseModel, Field, HttpUrl, SecretStr
from pydantic_settings import CliPositionalArg
from rich.console import Console
from rich.text import Text

from ponder.cli.display import Display, LiveDisplay, PlainDisplay
from ponder.cli.meter import UNLIMITED, Meter, known_budget, summary
from ponder.client import Ponder, PonderAPIError
from ponder.protocol.response import ChunkChoice, ModelCard

HELP = """\
/budget N  thinking tokens for the next answers; 0 answers without thinking, -1 is no limit
/clear     forget the conversation
/help      this list
/quit      leave; so do Ctrl-D and, while nothing is being answered, Ctrl-C
Ctrl-C     stop the answer that is being written"""


def _key_of_environment() -> SecretStr | None:
    """The first, where the server's own variable lists several."""
    key = os.environ.get("PONDER_API_KEY", "").split(",")[0].strip()
    return SecretStr(key) if key else None


class Options(BaseModel):
    """Talk to a Ponder server in the terminal.

    The thought is dim, the answer bright, and a meter shows what is used of the budget. With a
    PROMPT, or one piped in, it answers once: in a pipe the answer is on stdout and the thought on
    stderr.
    """

    prompt: CliPositionalArg[str | None] = Field(
        None, description="ask this and leave (default: a conversation)"
    )
    url: HttpUrl = Field(
        HttpUrl("http://127.0.0.1:8000"),
        description="where the server listens (default: http://127.0.0.1:8000)",
    )
    api_key: SecretStr | None = Field(
        default_factory=_key_of_environment,
        description="key the server asks for (default: PONDER_API_KEY in the environment)",
    )
    model: str | None = Field(None, description="model to ask (default: the server's first)")
    budget: Annotated[int, Field(ge=UNLIMITED)] | None = Field(
        None,
        description="thinking tokens; 0 answers without thinking, -1 is no limit "
        "(default: the server's)",
    )
    system: str | None = Field(None, description="system message that opens the conversation")


def run(options: Options) -> int:
    """0 when all went well, 1 when the one question asked got no answer."""
    console = Console(highlight=False, markup=False, emoji=False)
    live = console.is_terminal and not console.is_dumb_terminal
    meter = Meter()

    def display() -> Display:
        return LiveDisplay(console, meter) if live else PlainDisplay()

    key = options.api_key.get_secret_value() if options.api_key else None
    with Ponder(str(options.url), key) as client:
        try:
            model = _find_model(client, options.model)
            conversation = Conversation(client, model, options, meter, display)
            if options.prompt is None and sys.stdin.isatty() and sys.stdout.isatty():
                return _converse(conversation, console)
            return _answer_once(conversation, options.prompt)
        except PonderAPIError as error:
            print(f"ponder chat: {_problem(error, client)}", file=sys.stderr)
            return 1


class Conversation:
    """What was said so far, with one model of one server. `budget` holds for the next answers."""

    def __init__(
        self,
        client: Ponder,
        model: ModelCard,
        options: Options,
        meter: Meter,
        display: Callable[[], Display],
    ) -> None:
        self.client = client
        self.model = model
        self.budget = options.budget
        self._meter = meter
        self._display = display
        self._opening = [{"role": "system", "content": options.system}] if options.system else []
        self._messages: list[dict[str, str]] = []

    def clear(self) -> None:
        self._messages.clear()

    def ask(self, text: str) -> None:
        """Show the answer as it streams, then what it took.

        Whatever ends it early (Ctrl-C, `PonderAPIError`) closes the connection, which stops the
        engine, and passes on; the part of an answer that came stays in the conversation.
        """
        self._messages.append({"role": "user", "content": _encodable(text)})
        answer: list[str] = []
        try:
            self._stream(answer)
        finally:
            if said := "".join(answer).strip():
                self._messages.append({"role": "assistant", "content": said})
            else:
                self._messages.pop()

    def _stream(self, answer: list[str]) -> None:
        messages = [*self._opening, *self._messages]
        self._meter.start(known_budget(self.budget, self.model.ponder))
        last: ChunkChoice | None = None
        with (
            self._display() as display,
            self.client.chat(
                messages, model=self.model.id, budget=self.budget, stream=True
            ) as stream,
        ):
            for choice in (choice for chunk in stream for choice in chunk.choices):
                if choice.delta.reasoning:
                    self._meter.add(choice.delta.reasoning)
                    display.thought(choice.delta.reasoning)
                if choice.delta.content:
                    answer.append(choice.delta.content)
                    display.answer(choice.delta.content)
                last = choice
            if last is not None and last.ponder is not None:
                self._meter.finish(last.ponder)
                display.note(summary(last.ponder, last.finish_reason))


def _find_model(client: Ponder, name: str | None) -> ModelCard:
    models = client.models().data
    for card in models:
        if name in (None, card.id):
            return card
    known = ", ".join(card.id for card in models)
    message = f"the server has no model {name}: it has {known or 'none'}"
    raise PonderAPIError(404, "model_not_found", message, "model")


def _answer_once(conversation: Conversation, prompt: str | None) -> int:
    text = sys.stdin.buffer.read().decode(errors="replace") if prompt is None else prompt
    if not text.strip():
        print("ponder chat: there is no question: give a PROMPT or pipe one in", file=sys.stderr)
        return 2
    conversation.ask(text)
    return 0


def _converse(conversation: Conversation, console: Console) -> int:
    """Question by question until the user leaves."""
    with suppress(ImportError):
        import_module("readline")  # gives `input` its line editing and history

    def say(text: str, style: str = "dim cyan") -> None:
        console.print(Text(text, style))

    say(f"{conversation.model.id} at {conversation.client.base_url}")
    say(f"{_budget_in_words(conversation)} · /help")
    while True:
        try:
            text = input("\n› ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return 0
        if text == "/quit":
            return 0
        try:
            if re.fullmatch(r"/\w+( .*)?", text):
                say(_obey(conversation, *text.split()))
            elif text:
                conversation.ask(text)
        except KeyboardInterrupt:
            say("stopped")
        except PonderAPIError as error:
            say(_problem(error, conversation.client), "red")


def _obey(conversation: Conversation, command: str, *values: str) -> str:
    """Carry out an in-chat command; returns what to say about it."""
    if command == "/help":
        return HELP
    if command == "/clear":
        conversation.clear()
        return "the conversation is forgotten"
    if command != "/budget":
        return f"{command} is not a command: see /help"
    if values:
        if len(values) > 1 or not re.fullmatch(r"-1|\d{1,9}", values[0]):
            return "a budget is a number of tokens, 0 for no thought, -1 for no limit"
        conversation.budget = int(values[0])
    return _budget_in_words(conversation)


def _budget_in_words(conversation: Conversation) -> str:
    if not conversation.model.ponder.thinks:
        return "this model does not think"
    known = known_budget(conversation.budget, conversation.model.ponder)
    whose = "the server's default, " if conversation.budget is None else ""
    return f"budget: {whose}{'no limit' if known is None else f'{known} tokens'}"


def _problem(error: PonderAPIError, client: Ponder) -> str:
    if error.code == "unreachable":
        return (
            f"no server answers at {client.base_url}: start one with `ponder serve`, "
            f"or name another with --url"
        )
    return error.message


def _encodable(text: str) -> str:
    """Bytes that were no UTF-8 on the command line or terminal reach us as lone surrogates."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
