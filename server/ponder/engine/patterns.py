"""Finds what xgrammar drops from a regular expression, or what breaks the string that it spells."""

from __future__ import annotations

import re
from dataclasses import dataclass

_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|u\{([0-9A-Fa-f]{1,6})\}|(.))", re.S)
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
_SETS = "dDwWsS"
_GROUP = re.compile(r"\((?!\?)|\(\?:|\(\?P?<[A-Za-z_]\w*>")
_QUANTIFIER = re.compile(r"(?:[*+?]|\{\d+(?:,\d*)?\})\??(?P<more>[*+?]|\{\d)?")
_REPEATS = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_MOST_REPEATS = 128
_BESIDE = (
    f"beside a repetition above {_MOST_REPEATS} or a character outside ASCII (`\\u00e9` spells one)"
)
_TEXT = "a quotation mark, a backslash or a control character"


def fault_of(pattern: str, *, quoted: bool = True) -> str | None:
    """The part of a pattern that would not be enforced; None where all of it would be.

    `quoted` says that the matched text stands inside a JSON string. xgrammar writes the text as it
    is, without escapes. Beside characters outside ASCII and repetitions above 128, open sets of
    characters include the quotation mark that ends the string.

    >>> fault_of("^(?!a)b$"), fault_of("a^b"), fault_of("^[a-z]{2,5}$")
    ('`(?!`', 'an anchor in the middle', None)
    """
    return _Reading(pattern, quoted).fault()


@dataclass(slots=True)
class _Group:
    """Where a group began: `fresh` if nothing stood before it."""

    fresh: bool
    ended: bool = False
    anchored: bool = False


class _Reading:
    def __init__(self, pattern: str, quoted: bool) -> None:
        self._pattern = pattern
        self._quoted = quoted
        self._open = quoted and _escapes_nothing(pattern)
        self._at = 0
        self._groups = [_Group(True)]
        self._fresh = True  # nothing stands before this place
        self._ended = False  # an end anchor stands before this place
        self._anchored = False  # the part before this place has an anchor

    def fault(self) -> str | None:
        while self._at < len(self._pattern):
            if (fault := self._step(self._pattern[self._at])) is not None:
                return fault
        return None

    def _step(self, sign: str) -> str | None:
        group = self._groups[-1]
        if sign == "|":
            group.ended |= self._ended
            self._fresh, self._ended = group.fresh, False
        elif sign == ")":
            if len(self._groups) == 1:
                return "a parenthesis that closes nothing"
            self._groups.pop()
            self._groups[-1].anchored |= group.anchored
            self._fresh, self._ended = False, self._ended or group.ended
            self._anchored = group.anchored
        elif found := _QUANTIFIER.match(self._pattern, self._at):
            self._at = found.end()
            return "a repeated repetition" if found["more"] else self._repeated()
        elif sign in "^$":
            group.anchored = self._anchored = True
            self._ended |= sign == "$"
            if sign == "^" and not self._fresh:
                return "an anchor in the middle"
        else:
            return self._atom(sign)
        self._at += 1
        return None

    def _repeated(self) -> str | None:
        return "a repeated anchor" if self._anchored else None

    def _atom(self, sign: str) -> str | None:
        if self._ended:
            return "an anchor in the middle"
        if sign == "(":
            return self._group()
        self._fresh = self._anchored = False
        if sign == "[":
            return self._set()
        if sign == "\\":
            named, literal = self._escape()
            return self._class(named) if literal is None else self._literal(literal)
        self._at += 1
        if sign == ".":
            return f"`.` {_BESIDE}" if self._open else None
        return self._literal(sign)

    def _group(self) -> str | None:
        found = _GROUP.match(self._pattern, self._at)
        if found is None:
            return f"`{self._pattern[self._at : self._at + 3]}`"
        self._groups.append(_Group(self._fresh))
        self._at = found.end()
        return None

    def _escape(self) -> tuple[str, str | None]:
        """An escape and the character that it stands for; None for a set of characters."""
        found = _ESCAPE.match(self._pattern, self._at)
        if found is None:
            self._at = len(self._pattern)
            return "\\", None
        self._at = found.end()
        if code := found[1] or found[2] or found[3]:
            value = int(code, 16)
            return found[0], chr(value) if value < 0x110000 else None
        letter = found[4]
        if letter in _CONTROLS:
            return found[0], _CONTROLS[letter]
        return found[0], None if letter.isalnum() else letter

    def _class(self, named: str) -> str | None:
        known = len(named) == 2 and (named[1] in _SETS if self._quoted else named[1] not in "AGQZz")
        if not known:
            return f"`{named}`"
        if self._open and named[1] in "DWSs":
            return f"`{named}` {_BESIDE}"
        return None

    def _literal(self, character: str) -> str | None:
        return _TEXT if self._quoted and _breaks(character) else None

    def _member(self) -> tuple[str | None, str | None]:
        """A fault, and one character of a set; None for a class of characters."""
        if self._pattern[self._at] != "\\":
            self._at += 1
            return None, self._pattern[self._at - 1]
        named, literal = self._escape()
        return (self._class(named) if literal is None else None), literal

    def _set(self) -> str | None:
        begin, self._at = self._at, self._at + 1
        negated = self._pattern.startswith("^", self._at)
        self._at += negated
        members, breaking, sets = 0, 0, False
        while self._at < len(self._pattern) and self._pattern[self._at] != "]":
            fault, literal = self._member()
            if fault is not None:
                return fault
            last = literal
            if literal is not None and re.match(r"-[^]]", self._pattern[self._at :]):
                self._at += 1
                fault, last = self._member()
                if fault is not None:
                    return fault
            sets |= literal is None or last is None
            members += 1
            if literal is not None and last is not None:
                whole = literal == last and _breaks(literal)
                breaking += whole or (self._open and _spans(literal, last))
        if self._at == len(self._pattern):
            return "a set of characters without an end"
        self._at += 1
        written = self._pattern[begin : self._at]
        if self._open and (negated or breaking):
            return f"`{written}` {_BESIDE}"
        only = self._quoted and not negated and members == breaking
        return _TEXT if only else None


def _escapes_nothing(pattern: str) -> bool:
    """Whether xgrammar takes the pattern as it is, and not as that of a JSON string."""
    bounds = (int(bound[:9]) for pair in _REPEATS.findall(pattern) for bound in pair if bound)
    return (
        not (pattern.isascii() and pattern.isprintable()) or max(bounds, default=0) > _MOST_REPEATS
    )


def _spans(first: str, last: str) -> bool:
    """Whether a range holds a character that a JSON string cannot hold as it is."""
    return first < " " or any(first <= sign <= last for sign in '"\\')


def _breaks(character: str) -> bool:
    """Whether a JSON string cannot hold this character as it is."""
    return character in '"\\' or character < " "
