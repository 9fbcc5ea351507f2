import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from ponder.training.coldstart.thoughts import CLOSE_TEXT, HINT
from ponder.training.coldstart.tokenizer import (
    SPECIAL_TOKENS,
    THINK_END,
    TURN_END,
    VISIBLE_MARKERS,
)


@given(text=st.text())
@example(text="12+30\t naïve 漢字 🙂\r\n  \u200d done")
@example(text="</think> typed by a user")
@example(text='<tool_call>\n{"name": "calculate"}\n</tool_call>')
def test_any_text_round_trips(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_no_token_holds_two_digits(tokenizer: Any) -> None:
    assert not [t for t in tokenizer.get_vocab() if len(re.findall(r"\d", t)) > 1]


def test_markers_are_single_tokens(tokenizer: Any) -> None:
    for token in SPECIAL_TOKENS:
        assert tokenizer.encode(token, add_special_tokens=False) == [
            tokenizer.convert_tokens_to_ids(token)
        ]
    assert tokenizer.eos_token == TURN_END
    for token in VISIBLE_MARKERS:
        assert tokenizer.decode(tokenizer.encode(token), skip_special_tokens=True) == token
    end = tokenizer.convert_tokens_to_ids(THINK_END)
    assert tokenizer.encode(CLOSE_TEXT, add_special_tokens=False).count(end) == 1


def test_a_hint_is_short(tokenizer: Any) -> None:
    assert len(tokenizer.encode(HINT.format(budget=160))) < 16


def test_the_template_opens_the_thought_and_forgets_earlier_ones(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is 3 + 4?"},
        {"role": "assistant", "content": "7", "reasoning": "3 + 4 = 7"},
        {"role": "user", "content": "And 5 + 6?"},
    ]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nWhat is 3 + 4?<|im_end|>\n"
        "<|im_start|>assistant\n7<|im_end|>\n"
        "<|im_start|>user\nAnd 5 + 6?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )


QUESTION = {"role": "user", "content": "What is 12 * 34?"}
TOOL = {"type": "function", "function": {"name": "calculate", "description": "Größe & <more>"}}
LISTED = (
    "You may call tools:\n<tools>\n"
    '{"type": "function", "function": {"name": "calculate", "description": "Größe & <more>"}}\n'
    "</tools>\nA call is written as\n"
    '<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call><|im_end|>\n'
)
ASKED = "<|im_start|>user\nWhat is 12 * 34?<|im_end|>\n"
OPENED = "<|im_start|>assistant\n<think>\n"


def called(*arguments: object, content: str | None = None) -> dict[str, Any]:
    """A turn of the assistant with a call of `calculate` for each of the arguments."""
    functions = [{"name": "calculate", "arguments": it} for it in arguments]
    calls = [{"id": "call_1", "type": "function", "function": it} for it in functions]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def rendered(tokenizer: Any, *turns: dict[str, Any], tools: list[Any] | None = None) -> str:
    text: str = tokenizer.apply_chat_template(
        list(turns), tools=tools, add_generation_prompt=True, tokenize=False
    )
    return text


def test_tools_are_listed_in_the_turn_of_the_system(tokenizer: Any) -> None:
    system = {"role": "system", "content": "Be brief."}
    alone = f"<|im_start|>system\n{LISTED}{ASKED}{OPENED}"
    beside = f"<|im_start|>system\nBe brief.\n\n{LISTED}{ASKED}{OPENED}"
    assert rendered(tokenizer, QUESTION, tools=[TOOL]) == alone
    assert rendered(tokenizer, system, QUESTION, tools=[TOOL]) == beside
    assert rendered(tokenizer, QUESTION, tools=[]) == rendered(tokenizer, QUESTION)


def test_calls_are_written_as_the_model_writes_them(tokenizer: Any) -> None:
    written = (
        '<tool_call>\n{"name": "calculate", "arguments": {"expression": "12 * 34"}}\n</tool_call>'
    )
    arguments = {"expression": "12 * 34"}
    for turn, text in (
        (called(arguments), written),
        (called('{"expression": "12 * 34"}'), written),
        (called(arguments, content="Let me see."), f"Let me see.\n{written}"),
        (called(arguments, arguments, content=""), f"{written}\n{written}"),
    ):
        assert rendered(tokenizer, QUESTION, turn) == (
            f"{ASKED}<|im_start|>assistant\n{text}<|im_end|>\n{OPENED}"
        )


def test_results_in_a_row_are_one_turn_of_the_user(tokenizer: Any) -> None:
    results = [{"role": "tool", "content": it, "tool_call_id": "call_1"} for it in ("408", "409")]
    text = rendered(tokenizer, *results, QUESTION, results[0])
    assert text == (
        "<|im_start|>user\n<tool_response>\n408\n</tool_response>\n"
        "<tool_response>\n409\n</tool_response><|im_end|>\n"
        f"{ASKED}<|im_start|>user\n<tool_response>\n408\n</tool_response><|im_end|>\n{OPENED}"
    )
