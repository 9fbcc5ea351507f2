"""Ponder's own client: every field is typed, every failure is one exception.

python examples/typed_client.py
"""

from ponder.client import Ponder, PonderAPIError

with Ponder() as client:  # asks PONDER_URL, else http://127.0.0.1:8000
    reply = client.chat("What is 17 + 25 - 9?", budget=64, temperature=0)
    choice = reply.choices[0]
    print(choice.message.content)
    print(f"{choice.ponder.thinking_tokens} tokens of thought, {choice.ponder.end_cause}")

    client.feedback(reply.id, 1.0 if "33" in choice.message.content else 0.0)
    print(f"savings: {client.savings().status}")

    try:
        client.chat("What is 17 + 25 - 9?", budget=-5)
    except PonderAPIError as error:
        print(f"{error.code}: {error}")
