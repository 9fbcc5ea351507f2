"""`chat_template_kwargs`: the variables of the model's template, and nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.protocol.dialects.chat import ChatCompletionRequest, ChatCompletions
from ponder.protocol.errors import ApiError
from ponder.server.model import ServedModel
from ponder.server.planning import in_words_of
from ponder.server.settings import BUNDLED_MODEL, Settings
from ponder.thought.budget import Limits
from ponder.thought.format import Hint

TEMPLATE = """\
{%- if not tone is defined -%}{%- set tone = 'plain' -%}{%- endif -%}
{%- set style = style if style is defined else 'short' -%}
{%- if messages | length > 99 -%}{{ raise_exception(strftime_now('too long, %Y')) }}{%- endif -%}
{{- bos_token }}{{ tools }}{{ documents }}[{{ tone }}, {{ style }}, {{ date_string }}]
{%- for message in messages -%}
{%- if message.role == 'nobody' -%}{%- continue -%}{%- endif -%}
{%- if message.content -%}{%- set content = message.content -%}{%- endif -%}
<|im_start|>{{ message.role }}:{% generation %}{{ content }}{% endgeneration %}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{%- if SWITCH is defined and SWITCH is false %}<think></think>{% else %}<think>{% endif -%}
{%- endif -%}"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The bundled tokenizer, with no contract: the template says what the family is."""
    shutil.copytree(BUNDLED_MODEL, tmp_path, dirs_exist_ok=True)
    (tmp_path / "ponder.json").unlink()
    return tmp_path


def load(directory: Path, switch: str = "enable_thinking") -> ServedModel:
    """A model of the family Qwen3, whose template has a switch of this name."""
    template = TEMPLATE.replace("SWITCH", switch)
    (directory / "chat_template.jinja").write_text(template)
    model = ServedModel.load(ModelFiles.find(str(directory)), Settings())
    form = model.checkpoint.form
    assert form is not None and form.name == "Qwen3"
    return model


def prompt(model: ServedModel, given: Mapping[str, Any], **fields: Any) -> str:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"messages": messages, "chat_template_kwargs": given, **fields}
    request = ChatCompletionRequest.model_validate_json(json.dumps(body)).neutral({})
    with in_words_of(ChatCompletions, request):
        (prompt,) = model.prompts(request, Limits(max_model_len=4096))
    return model.tokenizer.decode(prompt.token_ids)


def test_the_variables_are_what_the_template_reads(directory: Path) -> None:
    variables = load(directory).tokenizer.template_variables
    assert variables == {"tone", "style", "date_string", "enable_thinking"}
    assert HFTokenizer(Path(BUNDLED_MODEL)).template_variables == set()


def test_a_template_that_does_not_parse_has_none(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("{% if tone %}")
    assert HFTokenizer(directory).template_variables == set()


def test_a_request_sets_variables(directory: Path) -> None:
    model = load(directory)
    assert "[plain, short, ]" in prompt(model, {})
    given = {"tone": "warm", "style": "long", "date_string": "today"}
    assert "[warm, long, today]" in prompt(model, given)


@pytest.mark.parametrize(
    "name",
    [
        "chat_template",
        "tools",
        "documents",
        "messages",
        "conversation",
        "tokenize",
        "add_generation_prompt",
        "continue_final_message",
        "max_length",
        "bos_token",
        "pad_token",
        "raise_exception",
        "namespace",
        "content",
        "no_such_variable",
    ],
)
def test_everything_else_is_refused_by_name(directory: Path, name: str) -> None:
    with pytest.raises(ApiError) as caught:
        prompt(load(directory), {"tone": "warm", name: "{{ range(9) }}"})
    error = caught.value
    assert (error.status, error.code) == (400, "invalid_request")
    assert error.param == f"chat_template_kwargs.{name}"
    assert name in str(error)
    assert "takes date_string, enable_thinking, style, tone; leave it out" in str(error)


def test_a_template_of_the_clients_own_is_not_rendered() -> None:
    model = ServedModel.load(ModelFiles.find(BUNDLED_MODEL), Settings())
    with pytest.raises(ApiError, match="takes enable_thinking; leave it out"):
        prompt(model, {"chat_template": "{% for a in range(99999) %}{% endfor %}"})


@pytest.mark.parametrize("switch", ["enable_thinking", "thinking"])
def test_the_switch_of_thought_is_the_servers(directory: Path, switch: str) -> None:
    model = load(directory, switch)
    assert prompt(model, {}).endswith("<think>")
    assert prompt(model, {}, budget=0).endswith("<think></think>")
    assert prompt(model, {"enable_thinking": True}).endswith("<think>")
    assert prompt(model, {"enable_thinking": False}).endswith("<think></think>")
    assert prompt(model, {switch: False}).endswith("<think></think>")
    with pytest.raises(ApiError, match="disagree"):
        prompt(model, {switch: False}, budget=8)


MODES = """\
{%- for message in messages -%}{{ message.content }}{%- endfor -%}
{%- if add_generation_prompt -%}<|im_start|>
{%- if thinking_mode == 'enabled' %}<think>{% elif thinking_mode == 'disabled' %}</think>
{%- elif thinking_mode == 'adaptive' %}?{% endif -%}
{%- endif -%}"""


def test_a_switch_may_leave_it_to_the_model(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(MODES)
    model = ServedModel.load(ModelFiles.find(str(directory)), Settings())
    for mode, end in (("enabled", "<think>"), ("disabled", "</think>"), ("adaptive", "?")):
        assert prompt(model, {"thinking_mode": mode}).endswith(end)
    assert prompt(model, {"thinking_mode": "adaptive"}, budget=8).endswith("?")
    assert prompt(model, {"thinking_mode": "adaptive"}, budget=0).endswith("</think>")
    with pytest.raises(ApiError, match='must be "enabled" or "disabled" or "adaptive"'):
        prompt(model, {"thinking_mode": "auto"})


def test_a_switch_that_the_template_refuses_closes_the_thought(directory: Path) -> None:
    refusing = TEMPLATE.replace("<think></think>", "{{ raise_exception('always') }}")
    (directory / "chat_template.jinja").write_text(refusing.replace("SWITCH", "thinking"))
    model = ServedModel.load(ModelFiles.find(str(directory)), Settings())
    assert prompt(model, {"thinking": True}).endswith("<think>")
    form = model.checkpoint.form
    assert form is not None
    assert prompt(model, {"thinking": False}).endswith(f"<think>{form.close_text}")


@pytest.mark.parametrize("marker", ["", "<thought>"])
@pytest.mark.parametrize(
    ("name", "value"), [("thinking", True), ("thinking_budget", 9), ("thinking_budget", "auto")]
)
def test_a_model_that_cannot_think_as_asked_names_the_argument(
    directory: Path, marker: str, name: str, value: object
) -> None:
    (directory / "chat_template.jinja").write_text(f"{{{{ messages[0].content }}}}{marker}")
    model = ServedModel.load(ModelFiles.find(str(directory)), Settings())
    with pytest.raises(ApiError, match=f"leave chat_template_kwargs.{name} out") as caught:
        prompt(model, {name: value})
    assert caught.value.code == "reasoning_unsupported"
    assert caught.value.param == f"chat_template_kwargs.{name}"
    if value != "auto":
        with pytest.raises(ApiError, match="leave budget out"):
            prompt(model, {name: value}, budget=9)


def test_a_budget_in_an_argument_is_called_by_its_name(directory: Path) -> None:
    limits = {"max_completion_tokens": 10, "ponder": {"min_answer_tokens": 9}}
    with pytest.raises(ApiError, match=r"^chat_template_kwargs.thinking_budget 70 \+ ") as caught:
        prompt(told(directory), {"thinking_budget": 70}, **limits)
    assert caught.value.param == "max_completion_tokens"


TOLD = """\
{%- if thinking_budget is defined %}{{ thinking_budget }} tokens, {% endif -%}
{{ reasoning_effort if reasoning_effort is defined }}
{%- for message in messages -%}<|im_start|>{{ message.content }}{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant<think>{% endif -%}"""


def told(directory: Path) -> ServedModel:
    (directory / "chat_template.jinja").write_text(TOLD)
    return ServedModel.load(ModelFiles.find(str(directory)), Settings())


def test_an_effort_of_the_templates_own_words_reaches_it(directory: Path) -> None:
    """Beside a budget it wins over the effort's word: it is the more exact one."""
    model = told(directory)
    assert prompt(model, {"reasoning_effort": "low"}).startswith("lowHi")
    assert prompt(model, {}, reasoning_effort="low").startswith("1024 tokens, lowHi")
    both = prompt(model, {"reasoning_effort": "high"}, reasoning_effort="low")
    assert both.startswith("1024 tokens, highHi")


def test_a_template_tells_no_more_than_the_context_leaves(directory: Path) -> None:
    model = told(directory)
    said = prompt(model, {}, reasoning_effort="high")
    number, _, rest = said.partition(" tokens, ")
    assert rest.startswith("highHi")
    assert 3000 < int(number) < 4096


def test_a_budget_that_the_template_is_told_is_kept_too(directory: Path) -> None:
    model = told(directory)
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    asked = body | {"chat_template_kwargs": {"thinking_budget": 70}}
    request = ChatCompletionRequest.model_validate_json(json.dumps(asked)).neutral({})
    (planned,) = model.prompts(request, Limits(max_model_len=4096))
    assert planned.plan.budget == 70
    assert planned.hint == Hint(70)
    assert model.tokenizer.decode(planned.token_ids).startswith("70 tokens, Hi")
    for wrong in ("70", True, -2):
        with pytest.raises(ApiError, match="must be a number of tokens"):
            prompt(model, {"thinking_budget": wrong})
    with pytest.raises(ApiError, match="disagree on its thought"):
        prompt(model, {"thinking_budget": 70}, budget=8)
    assert prompt(model, {"thinking_budget": 70}, budget=70).startswith("70 tokens, ")
