"""The keywords of JSON schemas: to which types they apply, and what they say of plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

HEADS = ("$ref", "const", "enum", "anyOf", "oneOf", "allOf")
BRANCHES = ("anyOf", "oneOf", "allOf")
TYPES = frozenset({"string", "integer", "number", "boolean", "null", "array", "object"})
NUMBERS = frozenset({"integer", "number"})
LENGTHS = ("minLength", "maxLength")
_NEVER = {
    "string": ("contentEncoding", "contentMediaType", "contentSchema"),
    "number": ("multipleOf",),
    "array": ("uniqueItems", "contains"),
    "object": ("dependentRequired", "dependentSchemas", "dependencies"),
    "any": ("not", "if", "$dynamicRef", "$recursiveRef"),
}
_READ = {
    "string": (*LENGTHS, "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    "array": ("items", "prefixItems", "unevaluatedItems", "minItems", "maxItems"),
    "object": (
        *("properties", "required", "additionalProperties", "unevaluatedProperties"),
        *("patternProperties", "propertyNames", "minProperties", "maxProperties"),
    ),
    "any": (*HEADS, "type"),
}
_KINDS = {"string": {"string"}, "number": NUMBERS, "array": {"array"}, "object": {"object"}}
APPLIES = {
    keyword: frozenset(_KINDS.get(kind, TYPES))
    for table in (_READ, _NEVER)
    for kind, keywords in table.items()
    for keyword in keywords
}
UNREAD = frozenset(keyword for keywords in _NEVER.values() for keyword in keywords)
_IDLE: Mapping[str, Sequence[Any]] = {
    **dict.fromkeys(("minLength", "minItems", "minProperties"), (0,)),
    **dict.fromkeys(("additionalProperties", "items", "propertyNames"), (True, {})),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), (True, {})),
    **dict.fromkeys(("properties", "patternProperties", "dependencies"), ({},)),
    **dict.fromkeys(("dependentRequired", "dependentSchemas"), ({},)),
    **dict.fromkeys(("required", "prefixItems"), ([],)),
    "uniqueItems": (False,),
}
IMPLYING = {
    "object": ("properties", "additionalProperties", "unevaluatedProperties"),
    "array": ("items", "prefixItems", "unevaluatedItems"),
}
FORMATS = frozenset(
    (
        *("email", "date", "time", "date-time", "duration", "ipv4", "ipv6", "hostname", "uuid"),
        *("uri", "uri-reference", "uri-template", "json-pointer", "relative-json-pointer"),
    )
)
TESTS: Mapping[str, Callable[[Any, Any], bool]] = {
    "type": lambda value, types: named(type_of(value), listed(types)),
    "enum": lambda value, values: any(equal(value, other) for other in values),
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "minLength": lambda value, bound: len(value) >= bound,
    "maxLength": lambda value, bound: len(value) <= bound,
}
NOTES = frozenset(
    (
        *("title", "default", "description", "examples", "deprecated"),
        *("readOnly", "writeOnly", "$comment", "$schema"),
    )
)
NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def head_of(schema: dict[str, Any]) -> str | None:
    """The keyword that says what a value is, before `type`."""
    return next((name for name in HEADS if name in schema), None)


def rules_of(schema: dict[str, Any]) -> list[str]:
    """The keywords that forbid something."""
    return [
        keyword
        for keyword, value in schema.items()
        if keyword in APPLIES
        and not any(value is idle or value == idle for idle in _IDLE.get(keyword, ()))
        and (keyword != "if" or "then" in schema or "else" in schema)
    ]


def values_of(schema: dict[str, Any]) -> list[Any] | None:
    """The values that xgrammar spells; None for a schema of no such list."""
    if "$ref" in schema:
        return None
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def listed(types: Any) -> list[str]:
    given = types if isinstance(types, list) else [types]
    return [kind for kind in given if isinstance(kind, str) and kind in TYPES]


def type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, float) and value.is_integer():
        return "integer"
    names = {int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def named(kind: str, allowed: Sequence[str]) -> bool:
    return kind in allowed or (kind == "integer" and "number" in allowed)


def overlap(one: frozenset[str], other: frozenset[str]) -> bool:
    return bool(one & other) or bool(one & NUMBERS and other & NUMBERS)


def equal(one: Any, other: Any) -> bool:
    """As JSON has it: true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)
