"""A budget in a LangChain chain: `extra_body` carries it, `usage_metadata` counts the thought.

pip install langchain-openai
python examples/langchain_chat.py
"""

import os

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI

url = os.environ.get("PONDER_URL", "http://127.0.0.1:8000")
model = ChatOpenAI(
    base_url=f"{url}/v1",
    api_key=os.environ.get("PONDER_API_KEY", "none"),
    model="tiny",
    temperature=0,
    extra_body={"thinking_token_budget": 64},
)
chain = ChatPromptTemplate.from_template("What is {sum}?") | model

reply = chain.invoke({"sum": "17 + 25 - 9"})
print(reply.content)
print(reply.usage_metadata["output_token_details"]["reasoning"], "tokens of thought")
