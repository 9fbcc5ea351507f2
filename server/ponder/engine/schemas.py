"""Finds what a JSON schema asks that xgrammar would not enforce: it silently drops those rules.

xgrammar reads one keyword of a schema that says what the value is, in the order of `HEADS`, then
`type`, and none beside it. Rules for a type are read only where that type is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from ponder.engine.keywords import (
    APPLIES,
    BRANCHES,
    FORMATS,
    IMPLYING,
    LENGTHS,
    NAMES,
    NOTES,
    TESTS,
    TYPES,
    UNREAD,
    head_of,
    listed,
    named,
    overlap,
    rules_of,
    type_of,
    values_of,
)
from ponder.engine.patterns import fault_of

_MOST_BRANCHES = 256  # of one `oneOf`: all are compared with all others


def unenforced(schema: Any) -> str | None:
    """The first rule of a schema that an answer could break, its place and the remedy.

    None where a grammar enforces all of it. Annotations and unknown keywords are no rules.

    >>> unenforced({"type": "integer", "not": {"const": 5}})
    '`not` at # cannot be enforced: leave it out'
    >>> unenforced({"type": "integer", "title": "n", "minimum": 5}) is None
    True
    """
    return next(_Reader(schema).faults(schema, "#"), None)


class _Reader:
    """Reads a schema as xgrammar does."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._read: set[str] = set()  # references that were followed
        self._kinds: dict[int, frozenset[str]] = {}
        self._keyed: dict[int, frozenset[Any]] = {}
        self._spelt: dict[Any, int] = {}
        self._spellings: dict[tuple[int, str], int] = {}
        self._meanings: dict[int, tuple[int, str]] = {}
        self._kept: list[Any] = []

    def faults(self, schema: Any, place: str) -> Iterator[str]:
        if not isinstance(schema, dict):
            return
        yield from self._confused(schema, place)
        head, types = head_of(schema), self._types(schema)
        readable = "type" in schema or types != TYPES
        for keyword in rules_of(schema):
            if keyword == head or not (APPLIES[keyword] & types):
                continue
            if keyword in UNREAD:
                yield f"`{keyword}` at {place} cannot be enforced: leave it out"
            elif head is not None and not self._holds(schema, head, keyword):
                yield f"`{keyword}` at {place} cannot be enforced beside `{head}`: {_remedy(head)}"
            elif head is None and not readable:
                yield f"`{keyword}` at {place} cannot be enforced without `type`: add it"
        if head is not None:
            yield from self._headed(schema, head, place)
            return
        if schema.get("type") == []:
            yield f"`type` at {place} cannot be enforced where it is empty: name a type"
        for kind, read in (
            ("string", self._string),
            ("array", self._array),
            ("object", self._object),
        ):
            if readable and kind in types:
                yield from read(schema, place)

    def _headed(self, schema: dict[str, Any], head: str, place: str) -> Iterator[str]:
        value = schema[head]
        if head == "$ref":
            target = self._target(value)
            if target is None and value != "#":
                yield (
                    f"`$ref` at {place} cannot be enforced: name a schema in the same document, as "
                    f"in #/$defs/name"
                )
            elif value not in self._read:
                self._read.add(value)
                yield from self.faults(target, value)
        elif head in BRANCHES and isinstance(value, list):
            if not value or (head == "allOf" and len(value) > 1):
                yield (
                    f"`{head}` at {place} cannot be enforced with {len(value)} schemas: "
                    f"{'merge them into one' if value else 'leave it out'}"
                )
            for index, branch in enumerate(value):
                yield from self.faults(branch, f"{place}/{head}/{index}")
            if head == "oneOf":
                yield from self._overlapping(value, place)

    def _holds(self, schema: dict[str, Any], head: str, keyword: str) -> bool:
        """Whether all that the first keyword allows also keeps to the second."""
        if keyword == "type":
            allowed = listed(schema["type"])
            return all(named(kind, allowed) for kind in self._spelt_types(schema))
        if head not in ("const", "enum"):
            return False
        values = values_of(schema) or []
        concerned = [value for value in values if type_of(value) in APPLIES[keyword]]
        with suppress(TypeError):
            return all(keyword in TESTS for _ in concerned) and all(
                TESTS[keyword](value, schema[keyword]) for value in concerned
            )
        return False

    def _string(self, schema: dict[str, Any], place: str) -> Iterator[str]:
        shape = next((name for name in ("format", "pattern") if name in schema), None)
        lengths = [name for name in LENGTHS if name in rules_of(schema)]
        if isinstance(schema.get("format"), str) and schema["format"] not in FORMATS:
            yield (
                f"the `format` {schema['format']!r} at {place} cannot be enforced: leave it out, "
                f"or use one of {', '.join(sorted(FORMATS))}"
            )
        if shape is not None and lengths:
            yield (
                f"`{lengths[0]}` at {place} cannot be enforced beside `{shape}`: leave one of them "
                f"out, or spell the length in `pattern`, as in ^[a-z]{{2,5}}$"
            )
        if shape == "pattern":
            yield from _pattern(schema["pattern"], f"`pattern` at {place}")

    def _array(self, schema: dict[str, Any], place: str) -> Iterator[str]:
        for index, part in enumerate(_list(schema, "prefixItems")):
            yield from self.faults(part, f"{place}/prefixItems/{index}")
        if isinstance(schema.get("items"), list):
            yield f"a list in `items` at {place} cannot be enforced: name it `prefixItems`"
        rest = "items" if "items" in schema else "unevaluatedItems"
        yield from self.faults(schema.get(rest), f"{place}/{rest}")

    def _object(self, schema: dict[str, Any], place: str) -> Iterator[str]:
        rules = rules_of(schema)
        known = _dict(schema, "properties")
        for name in _list(schema, "required"):
            if isinstance(name, str) and name not in known:
                yield (
                    f"`required` at {place} cannot be enforced for {name!r}, which is not in "
                    f"`properties`: add it there"
                )
        yield from self._keys(schema, rules, place)
        for name, value in known.items():
            yield from self.faults(value, f"{place}/properties/{name}")
        rest = "additionalProperties"
        rest = rest if rest in schema else "unevaluatedProperties"
        yield from self.faults(schema.get(rest), f"{place}/{rest}")

    def _keys(self, schema: dict[str, Any], rules: Sequence[str], place: str) -> Iterator[str]:
        """The rules on the names of properties."""
        patterns, texts = _dict(schema, "patternProperties"), _dict(schema, "propertyNames")
        for pattern, value in patterns.items():
            yield from _pattern(pattern, f"the pattern {pattern!r} at {place}")
            yield from self.faults(value, f"{place}/patternProperties/{pattern}")
        if len(patterns) > 1:
            yield f"`patternProperties` at {place} can be enforced for one pattern only"
        if texts:
            if "type" not in texts and head_of(texts) is None:
                texts = {"type": "string", **texts}
                self._kept.append(texts)  # they are known by their addresses
            yield from self.faults(texts, f"{place}/propertyNames")
            if self._types(texts) - {"string"}:
                yield (
                    f"`propertyNames` at {place} cannot be enforced unless it allows strings only: "
                    f'add `"type": "string"` to each of its schemas'
                )
        others = {
            "patternProperties": ("properties", "propertyNames"),
            "propertyNames": ("properties", "unevaluatedProperties"),
        }
        for keyword, beside in others.items():
            for other in beside if keyword in rules else ():
                if other in rules:
                    yield (
                        f"`{keyword}` at {place} cannot be enforced beside `{other}`: leave one of "
                        f"them out"
                    )
        if "propertyNames" in rules and schema.get("additionalProperties") is False:
            yield (
                f"`additionalProperties` at {place} cannot be enforced beside `propertyNames`: "
                f"leave it out"
            )

    def _overlapping(self, branches: Sequence[Any], place: str) -> Iterator[str]:
        """`oneOf` is read as `anyOf`: the same where no value fits two branches."""
        if len(branches) > _MOST_BRANCHES or any(
            not self._apart(one, other, 2)
            for index, one in enumerate(branches)
            for other in branches[index + 1 :]
        ):
            yield (
                f"`oneOf` at {place} cannot be enforced where a value may fit two of its schemas: "
                f"write `anyOf`, or give each a required property with a `const` of its own"
            )

    def _apart(self, one: Any, other: Any, depth: int) -> bool:
        """Whether it is certain that no value fits both schemas."""
        one, other = self._followed(one), self._followed(other)
        if not overlap(self._types(one), self._types(other)):
            return True
        if not isinstance(one, dict) or not isinstance(other, dict) or depth == 0:
            return False
        for schema, against in ((one, other), (other, one)):
            branches = schema.get("anyOf", schema.get("oneOf"))
            if isinstance(branches, list):
                return all(self._apart(branch, against, depth - 1) for branch in branches)
        mine, theirs = values_of(one), values_of(other)
        if mine is not None and theirs is not None:
            return self._told_apart(one, mine).isdisjoint(self._told_apart(other, theirs))
        return self._forbids(one, other, depth) or self._forbids(other, one, depth)

    def _told_apart(self, schema: dict[str, Any], values: Sequence[Any]) -> frozenset[Any]:
        """A key for each value, the same for equal ones; all arrays and objects have one key."""
        known = self._keyed.get(id(schema))
        if known is None:
            known = self._keyed[id(schema)] = frozenset(
                "nested" if isinstance(value, dict | list) else (isinstance(value, bool), value)
                for value in values
            )
        return known

    def _forbids(self, one: dict[str, Any], other: dict[str, Any], depth: int) -> bool:
        """Whether one object needs a property that the other has with other values, or not."""
        if self._types(one) != {"object"} or self._types(other) != {"object"}:
            return False
        mine, theirs = _dict(one, "properties"), _dict(other, "properties")
        closed = False in (other.get("additionalProperties"), other.get("unevaluatedProperties"))
        for name in _list(one, "required"):
            if not isinstance(name, str):
                continue
            if name in mine and name in theirs and self._apart(mine[name], theirs[name], depth - 1):
                return True
            if name not in theirs and closed and "patternProperties" not in other:
                return True
        return False

    def _followed(self, schema: Any) -> Any:
        """The schema at the end of references and of lone schemas in `allOf`."""
        for _ in range(_MOST_BRANCHES):
            if not isinstance(schema, dict):
                break
            head = head_of(schema)
            if head == "$ref":
                schema = self._target(schema["$ref"])
            elif head == "allOf" and isinstance(schema[head], list) and len(schema[head]) == 1:
                schema = schema[head][0]
            else:
                break
        return schema

    def _target(self, reference: Any) -> Any:
        if reference == "#":
            return self._root
        if not isinstance(reference, str) or not reference.startswith("#/") or "~" in reference:
            return None
        found = self._root
        for part in reference[2:].split("/"):
            if not isinstance(found, dict) or part not in found:
                return None
            found = found[part]
        return found

    def _types(self, schema: Any) -> frozenset[str]:
        """The types of the values that xgrammar would spell."""
        if not isinstance(schema, dict):
            return TYPES
        known = self._kinds.get(id(schema))
        if known is None:
            self._kinds[id(schema)] = TYPES  # while a reference leads back to it
            known = self._kinds[id(schema)] = self._spelt_types(schema)
        return known

    def _spelt_types(self, schema: dict[str, Any]) -> frozenset[str]:
        head = head_of(schema)
        if head == "$ref":
            return self._types(self._target(schema["$ref"]))
        if (values := values_of(schema)) is not None:
            return frozenset(map(type_of, values))
        if head is not None:
            branches = _list(schema, head)
            lone = head != "allOf" or len(branches) == 1
            return frozenset().union(*map(self._types, branches)) if lone else TYPES
        if "type" in schema:
            return frozenset(listed(schema["type"])) or TYPES
        implied = (
            kind for kind, keywords in IMPLYING.items() if not schema.keys().isdisjoint(keywords)
        )
        kind = next(implied, None)
        return TYPES if kind is None else frozenset({kind})

    def _confused(self, schema: dict[str, Any], place: str) -> Iterator[str]:
        """xgrammar takes two schemas for one that differ only in a property named as a note."""
        key, meaning = self._spell(schema, "key"), self._spell(schema, "schema")
        first, there = self._meanings.setdefault(key, (meaning, place))
        if first != meaning:
            yield (
                f"the schema at {place} cannot be enforced beside the one at {there}: the two "
                f"differ only in properties named {', '.join(sorted(NOTES - {'$schema'}))}, so "
                f'rename one or add a key of its own to a schema, as in `"x-id": 2`'
            )

    def _spell(self, value: Any, how: str) -> int:
        """A number for all values that are the same, with or without notes."""
        if not isinstance(value, dict | list):
            return self._number((type(value), value))
        known = self._spellings.get((id(value), how))
        if known is None:
            if isinstance(value, dict):
                skipped = NOTES if how in ("key", "schema") else frozenset()
                names = sorted(value.keys() - skipped)
                parts = [(name, self._spell(value[name], _inner(how, name))) for name in names]
                known = self._number(("{", *parts))
            else:
                known = self._number(("[", *(self._spell(item, how) for item in value)))
            self._spellings[id(value), how] = known
        return known

    def _number(self, spelling: tuple[Any, ...]) -> int:
        return self._spelt.setdefault(spelling, len(self._spelt))


def _inner(how: str, name: str) -> str:
    """How the value of a key is spelt: a schema, a map of names to schemas, or as it is."""
    if how == "names":
        return "schema"
    if how == "schema":
        return "names" if name in NAMES else "value" if name in ("const", "enum") else "schema"
    return how


def _remedy(head: str) -> str:
    if head in ("const", "enum"):
        return "leave it out, and the values that it forbids"
    if head == "$ref":
        return "move it into the schema that `$ref` names"
    return f"move it into each schema of `{head}`"


def _pattern(pattern: Any, where: str) -> Iterator[str]:
    if isinstance(pattern, str) and (fault := fault_of(pattern)) is not None:
        yield f"{where} cannot be enforced because of {fault}: write it without"


def _dict(schema: dict[str, Any], keyword: str) -> dict[str, Any]:
    value = schema.get(keyword)
    return value if isinstance(value, dict) else {}


def _list(schema: dict[str, Any], keyword: str) -> list[Any]:
    value = schema.get(keyword)
    return value if isinstance(value, list) else []
