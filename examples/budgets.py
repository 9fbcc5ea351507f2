"""One question under three budgets, with OpenAI's own client: what each costs and gives.

python examples/budgets.py
"""

import os

from openai import OpenAI

url = os.environ.get("PONDER_URL", "http://127.0.0.1:8000")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("PONDER_API_KEY", "none"))

for budget in (0, 8, 64):
    reply = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "What is 17 + 25 - 9?"}],
        temperature=0,
        extra_body={"thinking_token_budget": budget},
    )
    choice = reply.choices[0]
    print(f"budget {budget}: {choice.message.content}")
    print(f"  {choice.ponder['thinking_tokens']} tokens of thought, {choice.ponder['end_cause']}")
