"""The prompt of a chat: lines and blocks, pastes, history, and Ctrl-C."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.enums import DEFAULT_BUFFER
from prompt_toolkit.filters import has_focus
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.utils import is_dumb_terminal

_QUOTES = '"""'


class Prompt:
    """Reads the user's questions. `say` shows a message between two of them."""

    def __init__(
        self,
        mark: str,
        *,
        history: Path | None,
        commands: Iterable[str],
        say: Callable[[str], None],
    ) -> None:
        self._say = say
        self._warned = False
        self._session: PromptSession[str] = PromptSession(
            mark,
            multiline=True,
            key_bindings=self._keys(),
            prompt_continuation=" " * len(mark),
            history=_open_history(history, say),
            completer=WordCompleter(sorted(commands), sentence=True),
            complete_while_typing=False,
            enable_suspend=True,
        )

    def ask(self) -> str:
        """The next question, stripped, perhaps empty. Raises `EOFError` when the user leaves."""
        while True:
            try:
                text = self._session.prompt()
            except KeyboardInterrupt:
                if self._warned:
                    raise EOFError from None
                self._warned = True
                self._say("Ctrl-C again leaves, as Ctrl-D and /quit do")
            else:
                self._warned = False
                return unquoted(text)

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()
        typing = has_focus(DEFAULT_BUFFER)

        @keys.add("enter", filter=typing)
        def enter(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            document = buffer.document
            if document.is_cursor_at_the_end and document.text.endswith("\\"):
                buffer.delete_before_cursor()
                buffer.newline(copy_margin=False)
            elif in_block(document.text):
                buffer.newline(copy_margin=False)
            else:
                buffer.validate_and_handle()

        # Text typed or pasted while an answer came has line feeds for Enter: it becomes one
        # question. Only a dumb terminal, such as Emacs' shell, ends every line so.
        @keys.add("c-j", filter=typing)
        def _(event: KeyPressEvent) -> None:
            if is_dumb_terminal():
                enter(event)
            else:
                event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c", filter=typing)
        @keys.add("<sigint>", filter=typing)
        def _(event: KeyPressEvent) -> None:
            buffer = event.current_buffer
            if buffer.text:
                buffer.save_to_undo_stack()
                buffer.text = ""
                self._warned = False
            else:
                event.app.exit(exception=KeyboardInterrupt)

        return keys


def in_block(text: str) -> bool:
    return text.lstrip().startswith(_QUOTES) and text.count(_QUOTES) % 2 == 1


def unquoted(text: str) -> str:
    r"""The question in `\"\"\"…\"\"\"`; quotes that do not go all around belong to the question."""
    text = text.strip()
    inner = text.removeprefix(_QUOTES).removesuffix(_QUOTES)
    around = len(text) - len(inner) == 2 * len(_QUOTES)
    return inner.strip() if around and _QUOTES not in inner else text


class _FileHistory(FileHistory):
    """A history that only its user can read; a full disk does not end the conversation."""

    def __init__(self, file: Path, say: Callable[[str], None]) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND, mode=0o600))
        self._say: Callable[[str], None] | None = say
        super().__init__(file)

    def store_string(self, string: str) -> None:
        try:
            super().store_string(string)
        except OSError as error:
            if self._say is not None:
                self._say(f"this chat's lines are not kept ({error})")
            self._say = None


def _open_history(file: Path | None, say: Callable[[str], None]) -> History:
    if file is None:
        return InMemoryHistory()
    try:
        return _FileHistory(file, say)
    except OSError as error:
        say(f"no lines are kept ({error}): --no-history leaves this out")
        return InMemoryHistory()
