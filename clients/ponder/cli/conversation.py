"""A conversation: its messages so far, and its next question."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from pathlib import Path

from ponder.cli.display import Display
from ponder.cli.interrupt import finishing
from ponder.cli.meter import Meter, known_budget, summary
from ponder.client import ChatOptions, Ponder, PonderAPIError
from ponder.client.request import Budget
from ponder.protocol.response import ChunkChoice, ModelCard


class Conversation:
    """Talks with one model of one server. `budget` and `model` hold for the next answers."""

    def __init__(
        self,
        client: Ponder,
        model: ModelCard,
        *,
        budget: Budget | None,
        system: str | None,
        options: ChatOptions,
        meter: Meter,
        display: Callable[[], Display],
    ) -> None:
        self.client = client
        self.model = model
        self.budget = budget
        self._options = options
        self._meter = meter
        self._display = display
        self._opening = [{"role": "system", "content": _encodable(system)}] if system else []
        self._messages: list[dict[str, str]] = []
        self._last: tuple[int, str] | None = None

    def clear(self) -> None:
        self._messages.clear()
        self._last = None

    def ask(self, text: str) -> None:
        """Show the answer as it streams, then its cost.

        The first Ctrl-C during a thought finishes the thought, where the display can say so. An
        early end (Ctrl-C, `PonderAPIError`) closes the connection, which stops the engine, and is
        raised on; the part of the answer that came stays in the conversation.
        """
        self._last = (len(self._messages), text)
        self._messages.append({"role": "user", "content": _encodable(text)})
        answer: list[str] = []
        try:
            self._stream(answer)
        finally:
            if said := "".join(answer).strip():
                self._messages.append({"role": "assistant", "content": said})
            else:
                self._messages.pop()

    def retry(self) -> bool:
        """Ask the last question again, in place of its answer; False where there is none."""
        if self._last is None:
            return False
        at, text = self._last
        del self._messages[at:]
        self.ask(text)
        return True

    def save(self, file: Path) -> None:
        """Write the conversation as JSON. Raises `OSError`, also where the file exists."""
        said = {"model": self.model.id, "messages": [*self._opening, *self._messages]}
        with file.open("x", encoding="utf-8") as output:
            output.write(json.dumps(said, indent=2, ensure_ascii=False) + "\n")

    def _stream(self, answer: list[str]) -> None:
        messages = [*self._opening, *self._messages]
        unlimited = "auto" if self.budget == "auto" else "no limit"
        self._meter.start(known_budget(self.budget, self.model.ponder), unlimited)
        name = f"chat-{secrets.token_hex(16)}"
        last: ChunkChoice | None = None
        with (
            self._display() as display,
            finishing(lambda: not answer and self._finish(name, display)),
            self.client.chat(
                messages,
                model=self.model.id,
                budget=self.budget,
                name=name,
                stream=True,
                **self._options,
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

    def _finish(self, name: str, display: Display) -> bool:
        """Ask the server, beside the stream, to finish the thought; False if it cannot be shown."""
        if not self.model.ponder.thinks or self.budget == 0 or not display.finishing():
            return False

        def ask() -> None:
            try:
                self.client.finish(name)
            except PonderAPIError as error:
                display.unfinished(error.message)

        threading.Thread(target=ask, daemon=True).start()
        return True


def find_model(client: Ponder, name: str | None) -> ModelCard:
    """The model called `name`, or the server's first. Raises `PonderAPIError`."""
    models = client.models().data
    for card in models:
        if name in (None, card.id):
            return card
    known = ", ".join(card.id for card in models)
    message = f"the server has no model {name}: it has {known or 'none'}"
    raise PonderAPIError(404, "model_not_found", message, "model")


def _encodable(text: str) -> str:
    """Replace lone surrogates: bytes of the command line or terminal that were no UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
