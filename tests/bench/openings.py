"""`python -m tests.bench.openings`: how often the bundled checkpoint is right about what people
type first, at the server's own sampling.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import openai

from ponder.tasks.verify import same_number
from ponder.training.coldstart.smalltalk import words

from .errors import ended
from .scenario import BUNDLED, MODEL_NAME
from .server import running

SAMPLES = 40
FEWEST = 38
"""Right answers of those that an opening must have."""

EXAMPLE_ROUNDS = 10
EXAMPLE_BUDGETS = (16, 64, -1)
BUDGET = 64
"""A plain budget, beside none."""


@dataclass(frozen=True, slots=True)
class Opening:
    """A question and its answer: a number, or what is said of a kind of talk."""

    question: str
    answer: str

    def right(self, text: str) -> bool:
        talk = {kind: said["reply"] for kind, said in words()["talk"].items()}
        talk["outside"] = words()["outside"]["reply"]
        if self.answer in talk:
            return text == talk[self.answer]
        return same_number(self.answer, text)


EXAMPLE = Opening("What is 38 + 45 - 17 + 26?", "92")
"""The README's."""

OPENINGS = tuple(
    Opening(question, answer)
    for question, answer in (
        ("2+2", "4"),
        ("What is 1 + 1?", "2"),
        ("What is 2 + 3?", "5"),
        ("What is five plus three?", "8"),
        ("17 + 25 - 9 = ?", "33"),
        ("What is 100 - 1?", "99"),
        ("What is 17 + 25?", "42"),
        ("What is 7 * 8?", "56"),
        ("what's 9 x 6", "54"),
        ("What is 3 times 14 equal to?", "42"),
        ("What is 12 / 4?", "3"),
        ("Which is bigger, 7 or 12?", "12"),
        ("Which is the largest of 3, 14, 9?", "14"),
        ("hello", "greeting"),
        ("Who are you?", "about"),
        ("What can you do?", "about"),
        ("thanks", "thanks"),
        ("Explain quantum computing", "outside"),
        ("Write a poem", "outside"),
        ("What is the capital of France?", "outside"),
    )
)

# Of these questions no topic was trained.
UNSEEN = tuple(
    Opening(question, "outside")
    for question in (
        "What is the tallest mountain in the world?",
        "How do I bake sourdough?",
        "Who wrote Hamlet?",
        "Can you write me a cover letter?",
        "Is coffee healthy?",
        "What's your favorite color?",
        "How many planets are there?",
        "Give me three tips for saving money",
        "What does HTTP stand for?",
        "Who is the CEO of Apple?",
        "Write a regex that matches emails",
        "Summarise the plot of Titanic",
        "How many r's are in strawberry?",
        "What is the speed of light?",
        "Should I learn Go or Rust?",
        "Where can I buy cheap tickets?",
        "My cat is ill, what should I do?",
        "Please proofread my email",
        "Which laptop do you recommend?",
        "Do aliens exist?",
    )
)


@dataclass(frozen=True, slots=True)
class Asked:
    """Many answers to one question: how many, how many right, mean tokens of thought, and the
    end cause of most thoughts with its share.
    """

    answers: int
    right: int
    tokens: float
    end_cause: str
    ended_so: float


def ask(url: str, model: str, opening: Opening, budget: int | None, seed: int = 1) -> Asked:
    """`SAMPLES` answers, the same ones for the same seed."""
    body = {} if budget is None else {"thinking_token_budget": budget}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        reply = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": opening.question}],
            n=SAMPLES,
            seed=seed,
            extra_body=body,
        )
    reports = [choice.ponder for choice in reply.choices]  # type: ignore[attr-defined]
    ((cause, often),) = Counter(report["end_cause"] for report in reports).most_common(1)
    return Asked(
        SAMPLES,
        sum(opening.right(choice.message.content or "") for choice in reply.choices),
        fmean(report["thinking_tokens"] for report in reports),
        cause,
        often / SAMPLES,
    )


def fewest_right(url: str, model: str, openings: Sequence[Opening]) -> int:
    """Print a line per opening; the fewest right answers of any."""
    fewest = SAMPLES
    for opening in openings:
        free, budgeted = (ask(url, model, opening, budget).right for budget in (None, BUDGET))
        fewest = min(fewest, free, budgeted)
        print(f"{free:4d} {budgeted:4d}  {opening.question}", flush=True)
    return fewest


def price_of_a_thought(url: str, model: str) -> None:
    """Print the README's table."""
    for budget in EXAMPLE_BUDGETS:
        asked = [ask(url, model, EXAMPLE, budget, seed) for seed in range(EXAMPLE_ROUNDS)]
        causes = Counter(it.end_cause for it in asked)
        cause = causes.most_common(1)[0][0]
        share = fmean(it.ended_so if it.end_cause == cause else 1 - it.ended_so for it in asked)
        print(
            f"| {budget} | {fmean(it.right / it.answers for it in asked):.0%} "
            f"| {fmean(it.tokens for it in asked):.0f} | {cause} {share:.0%} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.openings", description=__doc__)
    parser.add_argument("--model", type=Path, default=BUNDLED, help="model directory")
    options = parser.parse_args()

    def measure() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            running("ponder", options.model, "", Path(folder) / "log") as server,
        ):
            url = f"http://127.0.0.1:{server.port}"
            print(f"right of {SAMPLES}: without a budget, with {BUDGET} tokens")
            print(f"fewest: {fewest_right(url, MODEL_NAME, OPENINGS)}\n\nunseen:")
            print(f"fewest: {fewest_right(url, MODEL_NAME, UNSEEN)}\n\n{EXAMPLE.question}")
            price_of_a_thought(url, MODEL_NAME)

    return ended(measure)


if __name__ == "__main__":
    sys.exit(main())
