"""The variables of a chat template: what it reads before it sets it, as jinja2 would look it up."""

from __future__ import annotations

import jinja2
import pytest

from ponder.engine.template import inputs

READS = {
    "a name": ("{{ tone }}", {"tone"}),
    "functions and filters": ("{{ range(3) | list }}{{ raise_exception(strftime_now('%Y')) }}", ()),
    "an attribute": ("{{ a.b }}{{ a['c'] }}", {"a"}),
    "set before": ("{% set a = 1 %}{{ a }}", ()),
    "set behind": ("{{ a }}{% set a = 1 %}", {"a"}),
    "its own default": ("{% set a = a if a is defined else 1 %}{{ a }}", {"a"}),
    "a default in a branch": ("{% if not a is defined %}{% set a = 1 %}{% endif %}{{ a }}", {"a"}),
    "set in a branch": ("{% if b %}{% set a = 1 %}{% endif %}{{ a }}", {"b"}),
    "set in another branch": ("{% if 1 %}{% set a = 1 %}{% elif a %}{% endif %}", {"a"}),
    "set in a branch between": ("{% if 1 %}{% elif 2 %}{% set a = 1 %}{% endif %}{{ a }}", ()),
    "a block": ("{% set a %}{{ b }}{% endset %}{{ a }}", {"b"}),
    "a set in a block": ("{% set a %}{% set b = 1 %}{% endset %}{{ b }}", {"b"}),
    "a loop": ("{% for a, b in c %}{{ a }}{{ b }}{{ loop.index }}{% endfor %}", {"c"}),
    "a loop's test": ("{% for a in c if a.b and d %}{% endfor %}", {"c", "d"}),
    "a loop over its name": ("{% for a in a %}{% endfor %}", {"a"}),
    "behind a loop": ("{% for a in [1] %}{% set b = 1 %}{% endfor %}{{ a }}{{ b }}", {"a", "b"}),
    "a round of a loop": ("{% for a in [1] %}{{ b }}{% set b = 1 %}{% endfor %}", {"b"}),
    "a namespace": ("{% set ns = namespace(a=b) %}{% set ns.a = 1 %}{{ ns.a }}", {"b"}),
    "a macro": ("{% macro f(a, b=c) %}{{ a }}{{ b }}{{ varargs }}{% endmacro %}{{ f(1) }}", {"c"}),
    "a macro's own": ("{% macro f() %}{% set a = 1 %}{{ a }}{% endmacro %}{{ a }}{{ f() }}", {"a"}),
    "a macro before a set": ("{% macro f() %}{{ a }}{% endmacro %}{% set a = 1 %}{{ f() }}", ()),
    "a macro of a macro": (
        "{% macro f() %}{% macro g(a) %}{{ a }}{{ b }}{% endmacro %}{{ g(1) }}{% endmacro %}",
        {"b"},
    ),
    "a call": (
        "{% macro f() %}{{ caller(1) }}{% endmacro %}{% call(a) f() %}{{ a }}{{ b }}{% endcall %}",
        {"b"},
    ),
    "with": ("{% with a = b %}{{ a }}{% endwith %}{{ a }}", {"a", "b"}),
    "a filtered block": ("{% filter upper %}{% set a = b %}{% endfilter %}{{ a }}", {"a", "b"}),
    "imports": ("{% import c as a %}{% from c import d, e as f %}{{ a }}{{ d }}{{ f }}", {"c"}),
    "what transformers adds": ("{% generation %}{{ a }}{% endgeneration %}", {"a"}),
}


@pytest.mark.parametrize(("template", "reads"), READS.values(), ids=READS)
def test_it_reads_what_it_does_not_set(template: str, reads: set[str] | tuple[()]) -> None:
    assert inputs(template) == set(reads)


def test_a_template_that_does_not_parse_is_an_error() -> None:
    with pytest.raises(jinja2.TemplateSyntaxError):
        inputs("{% if a %}")
