import re
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from ponder.training.coldstart.thoughts import CLOSE_TEXT, HINT
from ponder.training.coldstart.tokenizer import SPECIAL_TOKENS, THINK_END, TURN_END


@given(text=st.text())
@example(text="12+30\t naïve 漢字 🙂\r\n  \u200d done")
@example(text="</think> typed by a user")
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
