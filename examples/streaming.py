"""The thought, then the answer, as they come; the last chunk says what happened to the thought.

python examples/streaming.py
"""

import os

from openai import OpenAI

url = os.environ.get("PONDER_URL", "http://127.0.0.1:8000")
client = OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("PONDER_API_KEY", "none"))

stream = client.chat.completions.create(
    model="tiny",
    messages=[{"role": "user", "content": "What is 17 + 25 - 9?"}],
    temperature=0,
    stream=True,
    extra_body={"thinking_token_budget": 64},
)
for chunk in stream:
    choice = chunk.choices[0]
    print(getattr(choice.delta, "reasoning", None) or "", end="", flush=True)
    print(choice.delta.content or "", end="", flush=True)
    if choice.finish_reason:
        print(f"\n{choice.ponder['thinking_tokens']} of 64 tokens of thought were used")
