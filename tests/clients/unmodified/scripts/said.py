"""What every script in Python shares: where the server is, what is asked, how a script is run.

It runs in its client's own environment, `python SCRIPT.py NAME …`, and prints what the functions of
these names saw, each on a marked line, in JSON.
"""

import asyncio
import inspect
import json
import os
import sys
import traceback

ROOT = os.environ["PONDER_URL"]
URL = f"{ROOT}/v1"
KEY = os.environ.get("PONDER_API_KEY", "none")
MODEL = "tiny"
MARK = "saw:"
QUESTION = "What is 17 + 25 - 9?"
MESSAGES = [{"role": "user", "content": QUESTION}]
BUDGET = {"thinking_token_budget": 64}
TOOL = {
    "type": "function",
    "function": {
        "name": "calculate",
        "description": "Computes an expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
    },
}


def run(module):
    """Run the functions that the command names, each after the other, and print what they saw."""
    with asyncio.Runner() as loop:
        for name in sys.argv[1:]:
            try:
                saw = module[name]()
                saw = loop.run(saw) if inspect.isawaitable(saw) else saw
            except Exception:  # noqa: BLE001 - what went wrong is what it saw
                saw = {"error": traceback.format_exc()[-2000:]}
            print(MARK, json.dumps({name: saw}, default=str), flush=True)
