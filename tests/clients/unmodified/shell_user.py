"""A scripted model that uses a shell as coding assistants offer it: one call, then a last word.

What it says follows from the prompt alone, so that an assistant may ask for a title in between.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from ponder.engine.protocol import Load, Vocabulary
from ponder.engine.scripted import Script, ScriptedEngine

CONTEXT = 1 << 18  # tokens; an assistant's instructions alone take tens of thousands
COMMAND = "echo ponder > ran.txt"
THOUGHT = "I use the shell."
LAST = "All done."
SHELLS = {
    "Bash": {"command": COMMAND, "description": "Writes a file"},
    "exec_command": {"cmd": COMMAND},
    "shell_command": {"command": COMMAND},
    "shell": {"command": ["bash", "-c", COMMAND]},
    "run_shell_command": {"command": COMMAND, "is_background": False, "description": "Writes"},
    "bash": {"command": COMMAND, "description": "Writes a file"},
}
"""What coding assistants call their shell, and its arguments."""


def load(load: Load) -> ScriptedEngine:
    return ScriptedEngine(script(load.vocabulary), load.vocabulary, max_model_len=CONTEXT)


def script(vocabulary: Vocabulary) -> Script:
    closes = vocabulary.encode("</think>")

    def says(prompt: Sequence[int], _number: int) -> Iterator[int]:
        text = b"".join(map(vocabulary.token_bytes, prompt)).decode(errors="replace")
        tail = list(prompt[-2 * len(closes) :])  # a blank may follow
        closed = any(tail[at : at + len(closes)] == closes for at in range(len(tail)))
        if not closed:
            yield from [*vocabulary.encode(THOUGHT), *closes]
        yield from vocabulary.encode(reply(text))
        yield min(vocabulary.eos_token_ids)

    return says


def reply(prompt: str) -> str:
    """What is said after the thought.

    >>> reply('{"name": "bash"}')[:27]
    '<tool_call>\\n{"name": "bash"'
    >>> reply('{"name": "bash"} <tool_response>')
    'All done.'
    """
    shell = next((name for name in SHELLS if f'"name": "{name}"' in prompt), None)
    if shell is None or "<tool_response>" in prompt.rpartition("</tools>")[2]:
        return LAST
    call = json.dumps({"name": shell, "arguments": SHELLS[shell]})
    return f"<tool_call>\n{call}\n</tool_call>"
