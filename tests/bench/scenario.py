"""What is measured: points, and the request bodies that make both servers do the same work."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BenchError

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "server" / "ponder" / "models" / "tiny"
RESULTS = ROOT / "bench-results"
"""Where figures go that nobody asked for elsewhere."""
ANSWER_TOKENS = 64
PLAIN_TOKENS = 256
"""Tokens of a request without a budget: thought, end marker and answer together."""
MODEL_NAME = "bench"
_QUESTIONS = 4096


@dataclass(frozen=True, slots=True)
class Point:
    """One load: closed loop of `concurrency` requests; `budget` in thinking tokens, or none."""

    concurrency: int
    stream: bool
    budget: int | None = None

    @property
    def name(self) -> str:
        what = "plain" if self.budget is None else f"budget-{self.budget}"
        return f"{what}-{'stream' if self.stream else 'whole'}-c{self.concurrency}"


POINTS = (
    *(Point(c, stream) for stream in (False, True) for c in (1, 8, 32, 128, 256)),
    *(Point(32, stream, n) for n in (64, 512) for stream in (False, True)),
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """What a server adds around a thought, found by asking it (`probe`). Tokens.

    `closing` is generated or inserted between thought and answer when the budget is spent.
    `offset` is what the server counts toward the budget before the first sampled token.
    """

    closing: int
    offset: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Makes the bodies. `end_id` is the token that ends a thought.

    Without a budget a thought ends by itself; `end_bias` is a logit bias for models whose
    thoughts do not. With a budget a bias of -100 keeps the model from ending it, so that the
    budget fires on every request; a forced end marker is not sampled and does not see the bias.
    """

    end_id: int
    temperature: float = 0.0
    end_bias: float = 0.0

    def body(self, server: str, point: Point, question: str, lengths: Lengths) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": MODEL_NAME,
            "messages": [{"role": "user", "content": question}],
            "temperature": self.temperature,
            "ignore_eos": True,
            "max_tokens": self.completion_tokens(point, lengths),
        }
        if point.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        if point.budget is None:
            if self.end_bias:
                body["logit_bias"] = {str(self.end_id): self.end_bias}
            if server != "vllm":
                body["ponder"] = {"min_answer_tokens": 1}
            return body
        body["logit_bias"] = {str(self.end_id): -100}
        body["thinking_token_budget"] = point.budget + lengths.offset
        if server != "vllm":
            off = {"hint": False, "loop_exit": False}  # the baseline has neither
            body["ponder"] = {"grace_tokens": 0, "min_answer_tokens": ANSWER_TOKENS} | off
        return body

    @staticmethod
    def completion_tokens(point: Point, lengths: Lengths) -> int:
        """What `usage.completion_tokens` must say."""
        if point.budget is None:
            return PLAIN_TOKENS
        return point.budget + lengths.closing + ANSWER_TOKENS

    @staticmethod
    def useful_tokens(point: Point) -> int:
        """Tokens that count: the closing of a thought, which differs between servers, does not."""
        return PLAIN_TOKENS if point.budget is None else point.budget + ANSWER_TOKENS

    def payloads(self, server: str, point: Point, lengths: Lengths) -> list[bytes]:
        """Encoded HTTP requests, the same questions in the same order for every server."""
        return [
            encode(self.body(server, point, question, lengths)) for question in questions(point)
        ]


def end_id(model: Path) -> int:
    """The token that ends a thought, by the checkpoint's contract."""
    from tokenizers import Tokenizer

    contract = json.loads((model / "ponder.json").read_text(encoding="utf-8"))
    token_id = Tokenizer.from_file(str(model / "tokenizer.json")).token_to_id(contract["think_end"])
    if not isinstance(token_id, int):
        raise BenchError(f"{contract['think_end']} is not a single token of {model}")
    return token_id


def questions(point: Point) -> list[str]:
    """Sums that differ, so that only the template is found in the prefix cache."""
    dice = random.Random(point.name)
    return [
        f"What is {dice.randint(2, 49)} + {dice.randint(2, 49)} - {dice.randint(2, 49)}?"
        for _ in range(_QUESTIONS)
    ]


def encode(body: dict[str, Any]) -> bytes:
    raw = json.dumps(body).encode()
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(raw), raw)
    )
