"""Many questions at once: the server batches them, so they take little longer than one.

python examples/asynchronous.py
"""

import asyncio
import os

from openai import AsyncOpenAI

QUESTIONS = ["What is 17 + 25 - 9?", "What is 40 + 12 - 20?", "What is 31 + 18 + 24?"]


async def ask(client: AsyncOpenAI, question: str) -> str:
    reply = await client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        extra_body={"thinking_token_budget": 64},
    )
    return f"{question} {reply.choices[0].message.content}"


async def main() -> None:
    url = os.environ.get("PONDER_URL", "http://127.0.0.1:8000")
    key = os.environ.get("PONDER_API_KEY", "none")
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key=key) as client:
        for answer in await asyncio.gather(*(ask(client, question) for question in QUESTIONS)):
            print(answer)


asyncio.run(main())
