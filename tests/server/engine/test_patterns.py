"""Regular expressions: what a grammar drops of them is refused by name."""

from __future__ import annotations

import json

import pytest

from ponder.engine import grammars, vllm_grammars
from ponder.engine.patterns import fault_of
from ponder.engine.protocol import Grammar, RequestRefusedError
from ponder.protocol.grammars import json_schema
from server.engine.test_schemas import spells, valid


@pytest.mark.parametrize(
    ("pattern", "fault"),
    [
        ("(?=a)b", "`(?=`"),
        ("^(?!a).*$", "`(?!`"),
        ("(?<!a)b", "`(?<`"),
        ("(?i)ab", "`(?i`"),
        ("a^b", "an anchor in the middle"),
        ("a$b", "an anchor in the middle"),
        ("(a|b$)c", "an anchor in the middle"),
        ("(^a)*", "a repeated anchor"),
        ("^[^a]*+b$", "a repeated repetition"),
        (r"\Aab\Z", r"`\A`"),
        (r"(a)\1", r"`\1`"),
        (r"\p{L}", r"`\p`"),
        ('^"$', "a quotation mark"),
        ('^["]$', "a quotation mark"),
        (r"^a\\b$", "a backslash"),
        (r"^a\nb$", "a control character"),
        (r"^\x22$", "a quotation mark"),
        ("^.{0,129}$", "`.` beside a repetition above 128"),
        ("^é[^x]$", "`[^x]` beside"),
        (r"^é\W$", r"`\W` beside"),
        ("^[ -~]{1,200}$", "`[ -~]` beside"),
        (r"^[\x20-\x7e]{0,255}$", "beside a repetition above 128"),
        ("^[ -é]+$", "`[ -é]` beside"),
        (r"^[a-zà-ÿ\s]+$", r"`\s` beside"),
        (r"^\s{0,200}$", r"`\s` beside"),
    ],
)
def test_what_a_grammar_drops_of_a_pattern_is_named(pattern: str, fault: str) -> None:
    assert fault in str(fault_of(pattern))
    with pytest.raises(RequestRefusedError, match="`pattern` at # cannot be enforced because of"):
        vllm_grammars.check(json_schema({"type": "string", "pattern": pattern}))


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("^[a-z]{2,3}$", "abc"),
        ("^a$|^b$", "b"),
        ("^(?:ab|c)+$", "abc"),
        ("(^a|^b)c", "bc"),
        ("^.{1,128}$", "aé"),
        ('^[^"]*$', "abc"),
        (r"^\d{4}-\d\d$", "2024-01"),
        (r"^[\w.+-]+@\w+\.\w+$", "a.b@c.de"),
        ("^[А-я]+$", "Да"),
        (r"^\u00e9.$", "éa"),
        ("^[a-z]{1,500}$", "abc"),
        ("^[a-zà-ÿ]+$", "où"),
        ("^[ -~]{1,100}$", "a-b"),
        ("^[a-]{1,200}$", "a-"),
        ("^a+?b{2}?$", "abb"),
        ("(?<year>[0-9])", "1"),
    ],
)
def test_plain_patterns_are_held(pattern: str, fits: str) -> None:
    schema = {"type": "string", "pattern": pattern}
    vllm_grammars.check(json_schema(schema))
    assert spells(schema, fits)
    for breaks in ("#", ""):
        assert not spells(schema, breaks) or valid(schema, breaks)


@pytest.mark.parametrize("pattern", ["a^b", "a$b", r"\Aab", "(?=a)b"])
def test_patterns_outside_json_are_read_too(pattern: str) -> None:
    part = {"type": "regex", "pattern": pattern}
    tag = json.dumps({"type": "structural_tag", "format": part})
    for grammar in (Grammar("regex", pattern), Grammar("structural_tag", tag)):
        with pytest.raises(RequestRefusedError, match="enforced"):
            grammars.check(grammar)
    vllm_grammars.check(Grammar("regex", '^"[^"]*"$'))
