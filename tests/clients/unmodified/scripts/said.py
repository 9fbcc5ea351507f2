"""What every script in Python shares: where the server is, what is asked, how a script is run.

It runs in its client's own environment, `python SCRIPT.py NAME`, and prints what the function of
that name saw as its last line, in JSON.
"""

import asyncio
import inspect
import json
import os
import sys

ROOT = os.environ["PONDER_URL"]
URL = f"{ROOT}/v1"
KEY = os.environ.get("PONDER_API_KEY", "none")
MODEL = "tiny"
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
    """Run the function that the command names, and print what it returns."""
    saw = module[sys.argv[1]]()
    if inspect.isawaitable(saw):
        saw = asyncio.run(saw)
    print(json.dumps(saw, default=str))
