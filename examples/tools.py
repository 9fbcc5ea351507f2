"""A question that the model answers by calling a calculator, under two budgets.

python examples/tools.py
"""

import ast
import json
import operator
import os

from openai import OpenAI

url = os.environ.get("PONDER_URL", "http://127.0.0.1:8000")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("PONDER_API_KEY", "none"))

CALCULATE = {
    "type": "function",
    "function": {
        "name": "calculate",
        "description": "Evaluate an arithmetic expression.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string"}},
            "required": ["expression"],
        },
    },
}
SIGNS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def calculate(node):
    """The value of a tree of numbers and operators; raises `ValueError` for anything else."""
    match node:
        case ast.Expression():
            return calculate(node.body)
        case ast.Constant(value=int() | float()):
            return node.value
        case ast.BinOp() if type(node.op) in SIGNS:
            return SIGNS[type(node.op)](calculate(node.left), calculate(node.right))
    raise ValueError("not an expression")


for budget in (0, 64):
    messages = [{"role": "user", "content": "What is 4821 * 377?"}]
    while True:
        reply = client.chat.completions.create(
            model="tiny",
            messages=messages,
            tools=[CALCULATE],
            temperature=0,
            extra_body={"thinking_token_budget": budget},
        )
        choice = reply.choices[0]
        thought = choice.ponder["thinking_tokens"]
        if not choice.message.tool_calls:
            print(f"budget {budget}: {choice.message.content} ({thought} tokens of thought)")
            break
        messages.append(choice.message)
        for call in choice.message.tool_calls:
            expression = json.loads(call.function.arguments)["expression"]
            value = calculate(ast.parse(expression, mode="eval"))
            print(f"budget {budget}: calculate({expression}) ({thought} tokens of thought)")
            messages.append({"role": "tool", "tool_call_id": call.id, "content": str(value)})
