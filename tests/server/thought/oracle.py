"""What a thought should come to, worked out with hindsight from the whole of what was sampled.

The reader decides token by token what may still become a marker or a character; the oracle sees
everything at once and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ponder.engine.scripted import ByteVocabulary
from ponder.thought.budget import Plan
from ponder.thought.text import TextDecoder, clean_cut
from server.thought.helpers import EOS, compiled

MARKERS = ("</think>", "<tool_call>")


@dataclass(frozen=True)
class Expected:
    """`thinking` follows `overhead` tokens; `text` is what is shown of it.

    `marker` is what ended it after `read` tokens, None where the close text did; `natural` where
    the model wanted so.
    """

    overhead: int
    thinking: list[int]
    text: str
    marker: str | None
    natural: bool
    read: int


def expect(
    sampled: Sequence[int],
    vocabulary: ByteVocabulary,
    opened_by: Literal["template", "model"],
    plan: Plan,
) -> Expected | None:
    """The thought in all that a model would sample; None where it opens none."""
    room = plan.allowance - plan.reserve - len(compiled(vocabulary).close.ids)
    overhead = _opening(sampled, vocabulary, room) if opened_by == "model" else 0
    if overhead is None:
        return None
    limit = max(0, min(plan.budget, room - overhead))
    stream = list(sampled[overhead:])
    at_eos = EOS in stream
    if at_eos:
        stream = stream[: stream.index(EOS)]
    end, marker = _end(stream, vocabulary)
    pieces = _pieces(stream[:end], vocabulary)
    if not marker and pieces and pieces[-1][2]:
        pieces.pop()  # a marker ends a character, too; a cut drops what is half of one

    thinking: list[int] = []
    text, tail = "", ""
    for ids, piece, _ in pieces:
        if (tail and clean_cut(tail, piece)) or len(thinking) + len(ids) > limit:
            return Expected(overhead, thinking, text.lstrip("\n"), None, False, 0)
        thinking += ids
        text += piece
        tail = piece if len(thinking) > limit - plan.grace else ""
    natural = marker is not None or (at_eos and len(thinking) < limit)
    read = overhead + end + (len(vocabulary.encode(marker)) if marker else 0)
    return Expected(overhead, thinking, text.lstrip("\n"), marker, natural, read)


def _opening(sampled: Sequence[int], vocabulary: ByteVocabulary, room: int) -> int | None:
    """Tokens up to the start marker, where only blanks come before it."""
    decoder, text = TextDecoder(vocabulary), ""
    for count, token_id in enumerate(sampled, start=1):
        if token_id == EOS:
            return None
        text = (text + decoder.feed(token_id)).lstrip()
        if text == "<think>":
            return count
        if count >= room or not "<think>".startswith(text):
            return None
    return None


def _end(stream: list[int], vocabulary: ByteVocabulary) -> tuple[int, str | None]:
    """Where the first marker begins, and which one it is."""
    found: list[tuple[int, str]] = []
    for marker in MARKERS:
        ids = vocabulary.encode(marker)
        starts = range(len(stream) - len(ids) + 1)
        found += [(at, marker) for at in starts if stream[at : at + len(ids)] == ids][:1]
    return min(found, default=(len(stream), None))


def _pieces(ids: Sequence[int], vocabulary: ByteVocabulary) -> list[tuple[list[int], str, bool]]:
    """Tokens gathered into whole characters: ids, text, and whether the last one is unfinished."""
    decoder, pieces = TextDecoder(vocabulary), []
    part: list[int] = []
    text = ""
    for token_id in ids:
        part.append(token_id)
        text += decoder.feed(token_id)
        if not decoder.pending:
            pieces.append((part, text, False))
            part, text = [], ""
    if part:
        pieces.append((part, text + decoder.flush(), True))
    return pieces


HIDDEN = "\ue000"
"""Where an end marker was in an answer: it is not shown, and no stop string reaches across it."""


def answer_text(text: str, stop: Sequence[str]) -> str:
    """The answer as shown: without its leading blank, up to the first stop string to complete."""
    shown = ""
    for piece in text.split(HIDDEN):
        part = piece if shown else piece.lstrip()
        for size in range(1, len(part) + 1):
            starts = [at for string in stop if (at := part.find(string, 0, size)) >= 0]
            if starts:
                return shown + part[: min(starts)]
        shown += part
    return shown
