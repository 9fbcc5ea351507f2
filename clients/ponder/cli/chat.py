"""`ponder chat`: talk to a server in the terminal."""

from __future__ import annotations

import select
import sys
from typing import Annotated, Literal, TextIO

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.console import Console
from rich.text import Text

from ponder import environment
from ponder.cli.connection import ServerOptions, explained
from ponder.cli.conversation import Conversation, find_model
from ponder.cli.display import Display, LiveDisplay, PlainDisplay
from ponder.cli.meter import UNLIMITED, Meter
from ponder.cli.slash import COMMANDS, budget_in_words, is_command, obey
from ponder.cli.spelling import spell
from ponder.client import ChatOptions, PonderAPIError
from ponder.environment.urls import without_password
from ponder.protocol.fields import BUDGET

_PATIENCE_S = 2.0


class Options(ServerOptions):
    """Talk to a Ponder server in the terminal.

    The thought is dim, the answer bright, and a meter shows how much of the budget is used. With a
    PROMPT, or text piped in, or both, it answers once and leaves. In a pipe the answer goes to
    stdout and the thought to stderr.
    """

    prompt: CliPositionalArg[str | None] = Field(
        None, description="ask this and leave; piped text follows it (default: a conversation)"
    )
    model: str | None = Field(
        None,
        description=f"model to ask (default: {environment.named(environment.MODEL)}, else the "
        "server's first)",
    )
    budget: Annotated[Annotated[int, Field(ge=UNLIMITED)] | Literal["auto"], BUDGET] | None = Field(
        None,
        description="thinking tokens; 0 answers without thinking, -1 is no limit, auto takes the "
        "budget from the model's curve (default: the server's)",
    )
    task: str | None = Field(
        None, description="kind of question, whose curve auto uses, as /v1/models lists it"
    )
    hint: bool | None = Field(
        None,
        description="tell a model that was trained on budgets which budget it has (default: the "
        "server's)",
    )
    deadline_ms: int | None = Field(
        None,
        ge=1,
        description="milliseconds until the answer is due; the server closes the thought in time "
        "(default: the server's)",
    )
    early_exit: Literal["agreement", "entropy"] | None = Field(
        None,
        description="close a thought whose answer probes have found, which are billed "
        "(default: no probes)",
    )
    strategy: Literal["best_of", "self_consistency", "particles"] | None = Field(
        None,
        description="think several times on one budget and give one answer: the most frequent, or "
        "the one that the server's verifier scores highest (default: one thought)",
    )
    thoughts: int = Field(5, ge=2, le=64, description="how many thoughts a --strategy has")
    temperature: float | None = Field(None, ge=0, description="0 takes the likeliest token")
    top_p: float | None = Field(None, gt=0, le=1, description="share of likely tokens to draw from")
    seed: int | None = Field(None, description="seed of the sampling, for the same draws again")
    max_tokens: int | None = Field(
        None, ge=1, description="most tokens of thought and answer (default: the context)"
    )
    system: str | None = Field(None, description="system message that opens the conversation")
    history: bool = Field(
        True,
        description="keep what is typed for the next chat, in ~/.local/state/ponder/chat-history",
    )

    def sampling(self) -> ChatOptions:
        """The chat's sampling options; those left out keep the server's defaults."""
        options = ChatOptions()
        if self.temperature is not None:
            options["temperature"] = self.temperature
        if self.top_p is not None:
            options["top_p"] = self.top_p
        if self.seed is not None:
            options["seed"] = self.seed
        if self.max_tokens is not None:
            options["max_completion_tokens"] = self.max_tokens
        if self.deadline_ms is not None:
            options["deadline_ms"] = self.deadline_ms
        early = self.early_exit and {"method": self.early_exit}
        strategy = self.strategy and {"method": self.strategy, "n": self.thoughts}
        own = {"hint": self.hint, "task": self.task, "early_exit": early, "strategy": strategy}
        if given := {name: value for name, value in own.items() if value is not None}:
            options["ponder"] = given
        return options


def run(options: Options) -> int:
    """Returns 0 for success, 1 if the only question got no answer, 2 without a question."""
    console = Console(highlight=False, markup=False, emoji=False)
    # rich takes FORCE_COLOR for a terminal; what a pipe reads must be the answer alone.
    live = sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal
    meter = Meter()

    def display() -> Display:
        return LiveDisplay(console, meter) if live else PlainDisplay()

    try:
        connected = options.connect()
    except ValueError as error:
        return _complain(str(error), status=2)
    with connected as client:
        try:
            wanted = options.model or environment.model()
            conversation = Conversation(
                client,
                find_model(client, wanted),
                budget=options.budget,
                system=options.system,
                options=options.sampling(),
                meter=meter,
                display=display,
            )
            if options.prompt is None and _is_terminal(sys.stdin) and _is_terminal(sys.stdout):
                return _converse(conversation, console, options)
            question = _question(options.prompt)
            if not question.strip():
                return _complain("there is no question: give a PROMPT or pipe one in", status=2)
            conversation.ask(question)
            return 0
        except PonderAPIError as error:
            said = explained(error, client)
            if error.code == "model_not_found" and options.model is None:
                said += f" ({environment.MODEL[0]} names it)"
            return _complain(said, status=1)


def _question(prompt: str | None) -> str:
    """The prompt, the piped text, or both together."""
    if _is_terminal(sys.stdin) and prompt is not None:
        return prompt
    parts = [prompt, _piped()]
    return "\n\n".join(part for part in parts if part and part.strip())


def _piped() -> str:
    """All of standard input; after a while without input, say what the command waits for."""
    if sys.stdin is None:  # closed, as by `<&-`
        return ""
    if not select.select([sys.stdin], [], [], _PATIENCE_S)[0]:
        print(
            "ponder chat: reading the question from standard input until it ends; "
            "`< /dev/null` leaves it out",
            file=sys.stderr,
        )
    return sys.stdin.buffer.read().decode("utf-8-sig", errors="replace")


def _converse(conversation: Conversation, console: Console, options: Options) -> int:
    """Question by question until the user leaves."""
    from ponder.cli.prompt import Prompt  # prompt_toolkit takes a while

    def say(text: str, style: str = "dim cyan") -> None:
        if text:
            console.print(Text(text, style))

    say(f"{conversation.model.id} at {without_password(conversation.client.base_url)}")
    say(f"{budget_in_words(conversation)} · /help")
    history = environment.state_home() / "chat-history" if options.history else None
    prompt = Prompt(spell("› ", console.encoding), history=history, commands=COMMANDS, say=say)
    while True:
        console.print()
        try:
            text = prompt.ask()
        except EOFError:
            return 0
        if text == "/quit":
            return 0
        try:
            if is_command(text):
                say(obey(conversation, text))
            elif text:
                conversation.ask(text)
        except KeyboardInterrupt:
            say("stopped")
        except PonderAPIError as error:
            say(explained(error, conversation.client), "red")


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _complain(problem: str, *, status: int) -> int:
    print(f"ponder chat: {problem}", file=sys.stderr)
    return status
