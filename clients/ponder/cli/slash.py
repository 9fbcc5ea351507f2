"""The commands inside a chat: `/budget 64` and its like."""

from __future__ import annotations

import re
from pathlib import Path

from ponder.cli.conversation import Conversation, find_model
from ponder.cli.meter import UNLIMITED, known_budget

COMMANDS = {
    "/budget": ("N", "thinking tokens for the next answers; 0 is no thought, -1 no limit, or auto"),
    "/model": ("NAME", "ask another model of the server; without a name, list them"),
    "/retry": ("", "ask the last question again, in place of its answer"),
    "/save": ("FILE", "write the conversation to a JSON file"),
    "/clear": ("", "forget the conversation"),
    "/help": ("", "this list"),
    "/quit": ("", "leave; so does Ctrl-D"),
}
TYPING = {
    "\\": "at the end of a line: the question goes on in the next",
    '"""': "opens a question of several lines, and closes it",
    "Ctrl-J": "begins a new line; pasted lines are one question",
    "Ctrl-C": "finishes a thought, stops an answer, clears what is typed; twice, it leaves",
}
HELP = "\n".join(
    f"{word:<14} {text}"
    for word, text in [
        *((f"{name} {value}", text) for name, (value, text) in COMMANDS.items()),
        *TYPING.items(),
    ]
)


def is_command(text: str) -> bool:
    """Whether a text is a command; `/etc/hosts is what?` is a question."""
    return re.fullmatch(r"/\w+( .*)?", text) is not None


def obey(conversation: Conversation, text: str) -> str:
    """Carry out a command; returns what to say about it. Raises `PonderAPIError`."""
    command, _, value = text.partition(" ")
    if command not in _ACTIONS:
        return f"{command} is not a command: see /help"
    return _ACTIONS[command](conversation, value.strip())


def budget_in_words(conversation: Conversation) -> str:
    model = conversation.model.ponder
    if not model.thinks:
        thought = "thinks in a way that the server does not understand"
        return f"this model {'does not think' if model.unread is None else thought}"
    if conversation.budget == "auto":
        return "budget: auto, what the model's curve says"
    known = known_budget(conversation.budget, model)
    whose = "the server's default, " if conversation.budget is None else ""
    return f"budget: {whose}{'no limit' if known is None else f'{known} tokens'}"


def _budget(conversation: Conversation, value: str) -> str:
    if value == "auto":
        conversation.budget = "auto"
    elif value:
        try:
            budget = int(value)
        except ValueError:
            budget = UNLIMITED - 1
        if budget < UNLIMITED:
            return "a budget is a number of tokens, 0 for no thought, -1 for no limit, or auto"
        conversation.budget = budget
    return budget_in_words(conversation)


def _model(conversation: Conversation, name: str) -> str:
    if name:
        conversation.model = find_model(conversation.client, name)
        return f"{name} answers from here on; {budget_in_words(conversation)}"
    cards = conversation.client.models().data
    return "\n".join(
        f"{card.id} (asked now)" if card.id == conversation.model.id else card.id for card in cards
    )


def _save(conversation: Conversation, name: str) -> str:
    if not name:
        return "name a file: /save FILE"
    try:
        file = Path(name).expanduser()
        conversation.save(file)
    except FileExistsError:
        return f"{name} is there already: name another file"
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a NUL in the name
        return f"{name} cannot be written ({error}): name another file"
    return f"the conversation is in {file}"


def _retry(conversation: Conversation, _: str) -> str:
    return "" if conversation.retry() else "there is no question to ask again"


def _clear(conversation: Conversation, _: str) -> str:
    conversation.clear()
    return "the conversation is forgotten"


_ACTIONS = {
    "/help": lambda *_: HELP,
    "/budget": _budget,
    "/model": _model,
    "/retry": _retry,
    "/save": _save,
    "/clear": _clear,
}
