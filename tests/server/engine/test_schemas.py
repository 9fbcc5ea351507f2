"""Rules that no grammar holds are refused by name; the grammars of all others hold them."""

from __future__ import annotations

import datetime
import json
from contextlib import suppress
from typing import Annotated, Any, Literal

import pytest
import xgrammar
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openai.lib._pydantic import to_strict_json_schema
from pydantic import BaseModel, Field

from ponder.engine import grammars, vllm_grammars
from ponder.engine.keywords import APPLIES
from ponder.engine.protocol import RequestRefusedError
from ponder.engine.schemas import unenforced
from ponder.protocol.grammars import json_format, json_schema

Schema = dict[str, Any]
COMPILER = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo([]))
STRING, INTEGER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}
OBJECT, ARRAY = {"type": "object"}, {"type": "array"}
A = {"a": INTEGER}


def spells(schema: Schema, value: Any) -> bool:
    """Whether the grammar of a schema's answers allows a value."""
    tag = {"type": "structural_tag", "format": json_format(schema)}
    compiled = COMPILER.compile_structural_tag(json.dumps(tag))
    matcher = xgrammar.GrammarMatcher(compiled, terminate_without_stop_token=True)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return bool(matcher.accept_string(text) and matcher.is_terminated())


def valid(schema: Schema, value: Any) -> bool:
    checker = Draft202012Validator.FORMAT_CHECKER
    return bool(Draft202012Validator(schema, format_checker=checker).is_valid(value))


def kinds(*names: str) -> Schema:
    return {"oneOf": [{"$ref": f"#/$defs/{name}"} for name in names]}


def kind(name: str) -> Schema:
    return {**OBJECT, "properties": {"kind": {"const": name}}, "required": ["kind"]}


DROPPED: list[tuple[str, Schema, Any]] = [
    # a keyword, a schema with it, and a value that breaks it though the grammar spells it
    ("not", {**INTEGER, "not": {"const": 5}}, 5),
    ("if", {**INTEGER, "if": {"minimum": 3}, "then": {"minimum": 5}}, 4),
    ("if", {**INTEGER, "if": {"minimum": 3}, "else": {"minimum": 2}}, 1),
    ("multipleOf", {"type": "number", "multipleOf": 0.5}, 0.3),
    ("multipleOf", {**INTEGER, "multipleOf": 3, "minimum": 0}, 4),
    ("contentEncoding", {**STRING, "contentEncoding": "base64"}, None),
    ("contentMediaType", {**STRING, "contentMediaType": "application/json"}, None),
    ("uniqueItems", {**ARRAY, "items": INTEGER, "uniqueItems": True}, [1, 1]),
    ("contains", {**ARRAY, "items": INTEGER, "contains": {"const": 3}}, [1]),
    ("items", {**ARRAY, "items": [INTEGER]}, None),
    (
        "dependentRequired",
        {**OBJECT, "properties": {**A, "b": {}}, "dependentRequired": {"a": ["b"]}},
        {"a": 1},
    ),
    (
        "dependentSchemas",
        {**OBJECT, "properties": A, "dependentSchemas": {"a": {"maxProperties": 0}}},
        {"a": 1},
    ),
    ("dependencies", {**OBJECT, "properties": A, "dependencies": {"a": ["b"]}}, None),
    ("$dynamicRef", {"$dynamicRef": "#/$defs/n", "$defs": {"n": INTEGER}}, "x"),
    ("$ref", {"$ref": "other.json"}, None),
    ("$ref", {"$ref": "#n", "$defs": {"n": {"$anchor": "n", **INTEGER}}}, "x"),
    ("minimum", {"$ref": "#/$defs/n", "minimum": 5, "$defs": {"n": INTEGER}}, 1),
    ("type", {"$ref": "#/$defs/n", **STRING, "$defs": {"n": INTEGER}}, 1),
    ("minLength", {"anyOf": [STRING, NULL], "minLength": 3}, "a"),
    ("minLength", {"oneOf": [STRING, NULL], "minLength": 3}, "a"),
    ("minLength", {"allOf": [STRING], "minLength": 3}, "a"),
    ("allOf", {"allOf": [STRING, {"enum": ["a"]}]}, "b"),
    ("oneOf", {"oneOf": [INTEGER, {"type": "number"}]}, 4),
    ("oneOf", {"oneOf": [{**OBJECT, "properties": A}, {**OBJECT, "properties": {"b": {}}}]}, {}),
    ("properties", {"allOf": [{"required": ["a"]}], "properties": A, **OBJECT}, {}),
    ("properties", {"anyOf": [{"required": ["a"]}], "properties": A, **OBJECT}, {}),
    ("maximum", {"const": 5, "maximum": 3}, 5),
    ("type", {"enum": ["a", None], **STRING}, None),
    ("enum", {"const": 1, "enum": [2]}, 1),
    ("pattern", {"enum": ["a"], "pattern": "^b$"}, "a"),
    ("minLength", {"minLength": 3}, "a"),
    ("minimum", {"minimum": 3}, 1),
    ("required", {"required": ["a"]}, {}),
    ("minItems", {"minItems": 1}, []),
    ("patternProperties", {"patternProperties": {"^a$": INTEGER}}, {"a": "x"}),
    ("format", {"format": "date"}, "x"),
    ("type", {"type": []}, None),
    ("required", {**OBJECT, "required": ["a"]}, {}),
    ("required", {**OBJECT, "properties": A, "required": ["b"]}, {"a": 1}),
    ("required", {**OBJECT, "patternProperties": {"^a$": INTEGER}, "required": ["a"]}, {}),
    ("format", {**STRING, "format": "klingon"}, None),
    ("minLength", {**STRING, "pattern": "^a*$", "minLength": 3}, "a"),
    ("maxLength", {**STRING, "format": "email", "maxLength": 3}, "b@c.de"),
    ("pattern", {**STRING, "pattern": "(?=a)b"}, "b"),
    ("pattern", {**STRING, "pattern": "^(?!a).*$"}, "ab"),
    ("pattern", {**STRING, "pattern": "a^b"}, "ab"),
    (
        "patternProperties",
        {**OBJECT, "patternProperties": {"^a": INTEGER, "a$": STRING}},
        {"a": 1},
    ),
    (
        "patternProperties",
        {
            **OBJECT,
            "properties": {"b": {}},
            "patternProperties": {"^a$": INTEGER},
            "additionalProperties": True,
        },
        {"b": 1, "a": "x"},
    ),
    ("propertyNames", {**OBJECT, "properties": A, "propertyNames": {"const": "b"}}, {"a": 1}),
    ("propertyNames", {**OBJECT, "propertyNames": {"anyOf": [INTEGER]}}, None),
    (
        "additionalProperties",
        {**OBJECT, "propertyNames": {"const": "b"}, "additionalProperties": False},
        {"b": 1},
    ),
    ("pattern", {**OBJECT, "patternProperties": {"(?!a)b": INTEGER}}, None),
]
HELD: list[tuple[Schema, Any, Any]] = [
    # a schema, a value that fits, and one that does not
    (INTEGER, 5, "5"),
    ({**INTEGER, "minimum": 3, "maximum": 12}, 12, 13),
    ({**INTEGER, "exclusiveMinimum": 3, "exclusiveMaximum": 12}, 11, 12),
    ({"type": "number", "minimum": -0.5, "exclusiveMaximum": 2.5}, 2.25, 2.5),
    ({**STRING, "minLength": 2, "maxLength": 3}, "aé", "a"),
    ({**STRING, "maxLength": 3}, "abc", "abcd"),
    ({**STRING, "pattern": "^[a-c]{2}$"}, "ab", "ad"),
    ({**STRING, "format": "date"}, "2024-01-31", "soon"),
    ({"type": ["string", "null"], "minLength": 2}, None, "a"),
    ({"type": "boolean"}, True, 1),
    ({"enum": ["a", 1, None]}, None, "b"),
    ({**STRING, "const": "a"}, "a", "b"),
    ({"type": ["string", "null"], "enum": ["a", None]}, None, "b"),
    ({"const": 5, "minimum": 3, "type": "number"}, 5, 6),
    ({"anyOf": [{**INTEGER, "minimum": 3}, NULL]}, None, 2),
    ({"anyOf": [INTEGER, NULL], "minLength": 3, "type": ["integer", "null"]}, 1, "abc"),
    ({"oneOf": [STRING, NULL]}, None, 1),
    (
        {
            **kinds("x", "y"),
            "discriminator": {"propertyName": "kind"},
            **OBJECT,
            "$defs": {"x": kind("x"), "y": kind("y")},
        },
        {"kind": "y"},
        {"kind": "z"},
    ),
    ({"allOf": [{"$ref": "#/$defs/n"}], "title": "n", "$defs": {"n": INTEGER}}, 1, "1"),
    (
        {"$ref": "#/$defs/n", "description": "n", "$defs": {"n": INTEGER, "odd": {"not": {}}}},
        1,
        "1",
    ),
    ({**ARRAY, "items": INTEGER, "minItems": 1, "maxItems": 2}, [1, 2], [1, 2, 3]),
    ({**ARRAY, "items": INTEGER, "uniqueItems": False}, [1, 1], ["1"]),
    ({**ARRAY, "prefixItems": [INTEGER, STRING], "items": False}, [1, "a"], ["a", 1]),
    ({**ARRAY, "prefixItems": [INTEGER], "unevaluatedItems": STRING}, [1, "a"], [1, 1]),
    ({**OBJECT, "properties": A, "required": ["a"]}, {"a": 1}, {}),
    ({"properties": A, "required": ["a"]}, {"a": 1}, {}),
    (
        {**OBJECT, "properties": {**A, "b": {}}, "minProperties": 1, "maxProperties": 1},
        {"b": 1},
        {"a": 1, "b": 2},
    ),
    ({**OBJECT, "additionalProperties": INTEGER}, {"x": 1}, {"x": "1"}),
    ({**OBJECT, "properties": A, "additionalProperties": False}, {"a": 1}, {"a": 1, "b": 2}),
    ({**OBJECT, "unevaluatedProperties": INTEGER}, {"x": 1}, {"x": "1"}),
    ({**OBJECT, "patternProperties": {"^x+$": INTEGER}}, {"xx": 1}, {"xx": "1"}),
    (
        {**OBJECT, "propertyNames": {"enum": ["x"]}, "additionalProperties": INTEGER},
        {"x": 1},
        {"y": 1},
    ),
    (
        {**OBJECT, "propertyNames": {"minLength": 2}, "additionalProperties": INTEGER},
        {"xx": 1},
        {"x": 1},
    ),
    ({**INTEGER, "minLength": 3, "contains": {}, "format": "int32"}, 1, "1"),
    (
        {
            **INTEGER,
            "title": "n",
            "description": "n",
            "default": 1,
            "examples": [1],
            "$comment": "n",
        },
        1,
        "1",
    ),
    (
        {
            **INTEGER,
            "$schema": "x",
            "$id": "x",
            "deprecated": True,
            "readOnly": True,
            "nullable": True,
            "x-n": 1,
        },
        1,
        "1",
    ),
]


@pytest.mark.parametrize(("keyword", "schema", "value"), DROPPED)
@pytest.mark.parametrize("inside", [False, True])
def test_a_keyword_that_a_grammar_drops_is_refused_by_name(
    keyword: str, schema: Schema, value: Any, inside: bool
) -> None:
    place = "#"
    if inside:
        defs = schema.get("$defs", {})
        schema = {**OBJECT, "properties": {"it": schema}, "required": ["it"], "$defs": defs}
        value, place = {"it": value}, "#/properties/it"
    for check in (grammars.check, vllm_grammars.check):
        with pytest.raises(RequestRefusedError, match="enforced") as refused:
            check(json_schema(schema))
        assert f"`{keyword}`" in str(refused.value) or f"the {keyword} " in str(refused.value)
        assert place in str(refused.value)
    if value is not None and value != {"it": None}:
        assert spells(schema, value), "the grammar holds it by now: do not refuse it"
        assert not valid(schema, value)


@pytest.mark.parametrize(("schema", "fits", "breaks"), HELD)
@pytest.mark.parametrize("inside", [False, True])
def test_a_keyword_that_a_grammar_holds_is_accepted(
    schema: Schema, fits: Any, breaks: Any, inside: bool
) -> None:
    if inside:
        defs = schema.get("$defs", {})
        schema = {**OBJECT, "properties": {"it": schema}, "required": ["it"], "$defs": defs}
        fits, breaks = {"it": fits}, {"it": breaks}
    vllm_grammars.check(json_schema(schema))
    assert spells(schema, fits) and valid(schema, fits)
    assert not spells(schema, breaks)


def test_two_schemas_that_a_grammar_takes_for_one_are_refused() -> None:
    """xgrammar leaves properties that are named as annotations out when it compares schemas."""
    pages = {
        name: {**OBJECT, "properties": {"title": title}, "required": ["title"]}
        for name, title in (("one", STRING), ("two", INTEGER))
    }
    schema: Schema = {**OBJECT, "properties": pages, "required": ["one", "two"]}
    assert spells(schema, {"one": {"title": "a"}, "two": {"title": "b"}})
    with pytest.raises(RequestRefusedError, match=r"#/properties/two .* #/properties/one.*x-id"):
        vllm_grammars.check(json_schema(schema))
    pages["two"]["x-id"] = 2
    vllm_grammars.check(json_schema(schema))
    assert not spells(schema, {"one": {"title": "a"}, "two": {"title": "b"}})
    assert spells(schema, {"one": {"title": "a"}, "two": {"title": 2}})


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    weight: Annotated[float, Field(gt=0)] = 1.0


class Page(BaseModel):
    title: str = Field(description="its title", examples=["Home"])
    description: str | None = Field(default=None, title="Description")
    code: Annotated[str, Field(min_length=1, max_length=5)]
    lang: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = "en"
    tags: Annotated[list[str], Field(max_length=3)] = []
    counts: dict[str, int] = {}
    by_kind: dict[Literal["cat", "dog"], int] = {}
    place: tuple[int, str] | None = None
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    pets: list[Cat | Dog] = []
    best: Cat | None = Field(default=None, description="the best of them")
    written: datetime.date
    state: Literal["draft", "done"] = "draft"
    rest: Any = None
    below: list[Page] = []


ZOD = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    **OBJECT,
    "properties": {
        "n": {**INTEGER, "minimum": -9007199254740991, "maximum": 9007199254740991},
        "e": {**STRING, "enum": ["a", "b"]},
        "u": {"oneOf": [kind("a") | {"additionalProperties": False}, kind("b")]},
        "o": {"anyOf": [STRING, NULL]},
        "id": {**STRING, "format": "uuid", "pattern": "^[0-9a-f]{8}-[0-9a-f-]{27}$"},
        "mail": {**STRING, "format": "email", "pattern": r"^(?!\.)[a-z.]+@[a-z.]+$"},
        "r": {**OBJECT, "propertyNames": STRING, "additionalProperties": {"type": "number"}},
    },
    "required": ["n", "e", "u", "o", "r"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "schema", [Page.model_json_schema(), ZOD, to_strict_json_schema(Cat), {}, OBJECT]
)
def test_what_clients_make_of_their_models_is_accepted(schema: Schema) -> None:
    vllm_grammars.check(json_schema(schema))


_NUMBERS = st.sampled_from([0, 1, 2, 3])
_VALUES = st.sampled_from(["a", "ab", "2024-01-01", 0, 1, 2, 1.5, True, None])
_NAMES = st.sampled_from(["a", "b", "title"])


def _schemas(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    several = st.lists(inner, min_size=1, max_size=2)
    closed = inner | st.booleans()
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "number", "array", "object", "null"]),
            **dict.fromkeys(("minLength", "minItems", "minProperties", "minimum"), _NUMBERS),
            **dict.fromkeys(("maxLength", "maxItems", "maxProperties", "maximum"), _NUMBERS),
            **dict.fromkeys(("anyOf", "oneOf", "allOf", "prefixItems"), several),
            **dict.fromkeys(("items", "additionalProperties", "unevaluatedProperties"), closed),
            **dict.fromkeys(("not", "contains", "propertyNames"), inner),
            "properties": st.dictionaries(_NAMES, inner, max_size=2),
            "required": st.lists(_NAMES, unique=True, max_size=2),
            "patternProperties": st.dictionaries(st.just("^a$"), inner, max_size=1),
            "const": _VALUES,
            "enum": st.lists(_VALUES, min_size=1, max_size=3),
            "pattern": st.sampled_from(["^a", "^[ab]{2}$", "(?=a)b"]),
            "format": st.sampled_from(["date", "klingon"]),
            "uniqueItems": st.booleans(),
            "$ref": st.just("#/$defs/n"),
        },
    ).flatmap(lambda schema: st.sampled_from([*_parted(schema), schema]).map(_formatted))


def _formatted(schema: Schema) -> Schema:
    """A pattern beside a format is left out, and not refused."""
    return {k: v for k, v in schema.items() if k != "pattern" or "format" not in schema}


def _parted(schema: Schema) -> list[Schema]:
    """The schema with few of its keywords: with all of them, it is always refused."""
    pairs = list(schema.items())
    return [dict(pairs[at : at + 3]) for at in range(0, len(pairs), 2)]


_LEAVES = st.sampled_from([STRING, INTEGER, NULL, {"const": 1}, {"$ref": "#/$defs/n"}])
_JSON = st.recursive(
    _VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
@given(st.recursive(_LEAVES, _schemas, max_leaves=4), st.lists(_JSON, min_size=20, max_size=30))
def test_no_accepted_schema_lets_a_value_through_that_breaks_it(
    schema: Schema, values: list[Any]
) -> None:
    schema = {**schema, "$defs": {"n": {**INTEGER, "maximum": 1}}}
    if unenforced(schema) is None:
        with suppress(RequestRefusedError):  # also by xgrammar, for what contradicts itself
            vllm_grammars.check(json_schema(schema))
            assert all(valid(schema, value) for value in values if spells(schema, value))


def test_long_lists_of_values_are_compared_at_once() -> None:
    of = [{"enum": [f"{name}{at}" for at in range(20_000)]} for name in "ab"]
    assert unenforced({"oneOf": of}) is None
    assert "may fit two" in str(unenforced({"oneOf": [*of, {"enum": ["c", "b7"]}]}))


@given(st.dictionaries(st.sampled_from(sorted(APPLIES)), _JSON, max_size=4))
def test_a_malformed_schema_is_no_failure(schema: Schema) -> None:
    for check in (grammars.check, vllm_grammars.check):
        with suppress(RequestRefusedError):
            check(json_schema({**schema, "$defs": {"n": schema}}))
