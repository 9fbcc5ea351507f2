import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from ponder.engine import vllm
from ponder.engine.scripted import ScriptedEngine
from ponder.engine.tokenizer import HFTokenizer
from ponder.evaluation.protocol import Ask, Hint, Reply, ResponderError, opening
from ponder.evaluation.responders.local import LocalResponder
from ponder.thought.contract import Contract
from ponder.training.coldstart.sft import SftResult
from ponder.training.run.export import cold_start_contract, export
from ponder.training.run.recipe import SftRecipe

QUESTION = "What is 3 + 4?"
THOUGHT = "We need 3 + 4.\nFirst 3 + 4 = 7.\nSo it is 7."


@pytest.fixture
def checkpoint(recipe: SftRecipe, trained: SftResult, tmp_path: Path) -> Path:
    export(tmp_path, trained.model, trained.tokenizer, cold_start_contract(recipe))
    return tmp_path


class Scripted:
    """A responder whose model thinks `THOUGHT` and answers 7, or 5 when the thought was closed."""

    def __init__(self, checkpoint: Path, max_tokens: int | None = None) -> None:
        self.tokenizer = HFTokenizer(checkpoint)
        self.whole = len(self.tokenizer.encode(THOUGHT + "\n"))
        self.engine = ScriptedEngine(self.script, self.tokenizer, max_model_len=512)
        self.responder = LocalResponder(checkpoint, lambda: self.engine, max_tokens)

    def script(self, prompt: Sequence[int], _number: int) -> Iterator[int]:
        closed = self.tokenizer.decode(prompt).endswith("</think>\n\n")
        text = "It is 5." if closed else f"{THOUGHT}\n</think>\n\nIt is 7."
        return iter([*self.tokenizer.encode(text), *self.tokenizer.eos_token_ids])

    def ask(self, budgets: tuple[int, ...] = (-1,), hint: Hint = None) -> list[Reply]:
        ask = Ask(QUESTION, 11, budgets, hint)
        (replies,) = asyncio.run(self.responder.answer([ask], lambda _: None))
        return replies

    def prompts(self) -> list[str]:
        return [self.tokenizer.decode(prompt) for prompt, _ in self.engine.requests]


def test_one_thought_serves_every_budget(checkpoint: Path) -> None:
    model = Scripted(checkpoint)
    whole = model.whole
    assert model.ask((0, 8, whole + 9, whole + 20, -1)) == [
        Reply("It is 5.", 0, "disabled"),
        Reply("It is 5.", 8, "budget"),
        Reply("It is 7.", whole, "natural"),
        Reply("It is 7.", whole, "natural"),
        Reply("It is 7.", whole, "natural"),
    ]
    thought, cut, closed = model.engine.requests
    assert (thought[1].temperature, thought[1].seed) == (1.0, 11)
    sampled = model.engine.outputs[0]
    close = model.tokenizer.encode("\n</think>\n\n")
    assert cut[0] == [*thought[0], *sampled[:8], *close]
    assert closed[0] == [*thought[0], *close]


def test_a_cut_is_the_one_that_serving_makes(checkpoint: Path) -> None:
    """Through the record of a larger budget and without it."""
    for budget in range(1, Scripted(checkpoint).whole + 2):
        together, alone = Scripted(checkpoint), Scripted(checkpoint)
        assert together.ask((budget, -1))[0] == alone.ask((budget,))[0]
        assert together.engine.requests[-1][0] == alone.engine.requests[-1][0]


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (80, "<think>\nI will answer the question within 80 tokens\n"),
        ("minimal", "<think>\nI will answer the question with minimal tokens\n"),
    ],
)
def test_a_hint_opens_the_thought_and_is_not_counted(
    checkpoint: Path, hint: Hint, text: str
) -> None:
    model = Scripted(checkpoint)
    assert model.ask(hint=hint) == [Reply("It is 7.", model.whole, "natural")]
    assert model.prompts()[0].endswith(text)


def test_a_model_that_opens_its_own_thought_is_hinted_inside_one(checkpoint: Path) -> None:
    contract = Contract.load(checkpoint)
    assert contract is not None
    replace(contract, opened_by="model").save(checkpoint)
    template = checkpoint / "chat_template.jinja"
    template.write_text(template.read_text("utf-8").replace("<think>\\n", ""), "utf-8")
    model = Scripted(checkpoint)
    assert model.ask(hint=40) == [Reply("It is 7.", model.whole, "natural")]
    assert model.ask((0,)) == [Reply("It is 5.", 0, "disabled")]
    hinted, closed = model.prompts()
    assert hinted.endswith("assistant\n<think>I will answer the question within 40 tokens\n")
    assert closed.endswith("assistant\n<think>\n</think>\n\n")


@pytest.mark.parametrize(("hint", "cause"), [("served", "loop"), (None, "length")])
def test_a_loop_is_closed_where_serving_closes_it(
    checkpoint: Path, hint: Hint, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{__name__}.THOUGHT", "So 3 + 4 = 7. " * 99)
    model = Scripted(checkpoint)
    (reply,) = model.ask(hint=hint)
    assert (reply.text, reply.end_cause) == ("It is 5.", cause)
    assert (256 < reply.thinking_tokens < 300) is (cause == "loop")


def test_the_longest_completion_bounds_thought_and_answer(checkpoint: Path) -> None:
    model = Scripted(checkpoint, max_tokens=16)
    (reply,) = model.ask()
    assert reply.end_cause == "length"
    assert reply.thinking_tokens is not None and reply.thinking_tokens < 16
    assert model.engine.requests[0][1].max_tokens == 16


def test_a_question_that_does_not_fit_is_named(checkpoint: Path) -> None:
    model = Scripted(checkpoint)
    with pytest.raises(ResponderError, match="shorten the `prompt`"):
        asyncio.run(model.responder.answer([Ask("sum " * 600, 1)], lambda _: None))


def test_answers_are_counted_as_they_come(checkpoint: Path) -> None:
    model, counted = Scripted(checkpoint), list[int]()
    asks = [Ask(QUESTION, seed, (0, 4)) for seed in range(3)]
    asyncio.run(model.responder.answer(asks, counted.append))
    assert sum(counted) == 6


def test_the_subject_is_known_before_any_engine_starts(checkpoint: Path) -> None:
    def start() -> ScriptedEngine:
        raise AssertionError("an engine was started")

    responder = LocalResponder(checkpoint, start)
    subject = asyncio.run(responder.subject())
    asyncio.run(responder.close())
    assert subject.trained_budgets == (40, 80, 160, 200)
    assert subject.contract_sha256 is not None and len(subject.contract_sha256) == 64
    assert not subject.lacks


def test_a_contract_without_hints_lacks_the_hinted_mode(checkpoint: Path) -> None:
    contract = Contract.load(checkpoint)
    assert contract is not None
    replace(contract, budget_hint=None).save(checkpoint)
    model = Scripted(checkpoint)
    assert list(asyncio.run(model.responder.subject()).lacks) == ["hinted"]
    with pytest.raises(ResponderError, match="no budget_hint"):
        opening(40, None)


def test_a_hint_may_hold_other_braces() -> None:
    """As serving reads it."""
    assert opening(40, "{{budget}} of {0} tokens\n") == "{40} of {0} tokens\n"


def test_a_family_needs_no_contract(checkpoint: Path) -> None:
    """Recognised and switched as the server does it."""
    (checkpoint / "ponder.json").unlink()
    template = checkpoint / "chat_template.jinja"
    switched = "{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}"
    template.write_text("<|im_start|>user {{ messages[0].content }}\n" + switched, "utf-8")
    model = Scripted(checkpoint)
    subject = asyncio.run(model.responder.subject())
    assert (list(subject.lacks), subject.contract_sha256) == (["hinted"], None)
    model.ask((0, 8, -1))
    whole, cut, closed = model.prompts()
    assert whole.endswith("<think>")
    assert cut.endswith(
        "by the user, I have to give the solution based on the thinking directly now.\n</think>\n\n"
    )
    assert closed.endswith("<think></think>")


def test_a_model_that_does_not_think_is_asked_in_natural_mode_alone(checkpoint: Path) -> None:
    (checkpoint / "ponder.json").unlink()
    (checkpoint / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    model = Scripted(checkpoint)
    lacks = asyncio.run(model.responder.subject()).lacks
    assert set(lacks) == {"efficient", "hinted", "truncated", "served"}
    (reply,) = model.ask()
    assert (reply.thinking_tokens, reply.end_cause) == (0, "disabled")


def test_files_that_do_not_hold_are_named(checkpoint: Path) -> None:
    (checkpoint / "ponder.json").write_text("{}")
    with pytest.raises(ResponderError, match=r"ponder\.json lacks close_text"):
        LocalResponder.on_vllm(checkpoint)


def test_the_mode_served_is_told_and_cut(checkpoint: Path) -> None:
    """Each budget has a thought of its own, told the largest trained budget within it."""
    model = Scripted(checkpoint)
    replies = model.ask((0, 8, 40, -1), hint="served")
    assert [reply.thinking_tokens for reply in replies] == [0, 8, model.whole, model.whole]
    hints = [prompt.rpartition("<think>\n")[2] for prompt in model.prompts()]
    told = "I will answer the question within 40 tokens\n"
    assert ["", told] == [hint for hint in hints if "</think>" not in hint]


def test_ctrl_c_ends_the_start_of_an_engine(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = []

    def start(*_: object) -> None:
        with suppress(KeyboardInterrupt):  # as vLLM does while it waits for its processes
            signal.raise_signal(signal.SIGINT)
        finished.append(True)

    monkeypatch.setattr(vllm, "prepare", lambda _: [])
    monkeypatch.setattr(vllm.VLLMEngine, "start", start)
    responder = LocalResponder.on_vllm(checkpoint)
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(responder.answer([Ask(QUESTION, 1)], lambda _: None))
    assert not finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
