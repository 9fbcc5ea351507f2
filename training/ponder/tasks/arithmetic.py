"""Evaluates a model's arithmetic node by node: the text is parsed and never run."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

LONGEST = 1000  # characters
_HIGHEST_POWER = 100
_LONGEST_NUMBER = 4096  # bits

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_SIGNS: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
_FUNCTIONS = (
    "sin", "cos", "tan", "sec", "csc", "cot", "asin", "acos", "atan", "sinh", "cosh", "tanh",
    "exp", "log", "ln", "sqrt", "Abs",
)  # fmt: skip


def calculate(text: str) -> tuple[Fraction, list[int]]:
    """The exact value of whole numbers, + - * / and parentheses, and the numbers in it.

    `ValueError` for anything else, `ZeroDivisionError` where it has no value.
    """
    numbers: list[int] = []

    def number(value: float) -> Fraction:
        if not isinstance(value, int):
            raise ValueError(f"{value} is no whole number")
        numbers.append(value)
        return Fraction(value)

    return _read(text, number), numbers


def symbolic(text: str, variable: str = "") -> Any:
    """A sympy expression of numbers and + - * / **, as far as its powers stay small.

    With a variable, it also reads elementary functions, and other symbols as constants.
    `ValueError` for anything else.
    """
    import sympy

    constants = {"pi": sympy.pi, "E": sympy.E}
    functions = {name: getattr(sympy, name) for name in _FUNCTIONS} if variable else {}

    def name(word: str) -> Any:
        if not variable or word in functions:
            raise ValueError(f"no number: {word}")
        return constants.get(word) or sympy.Symbol(word)

    def power(base: Any, exponent: Any) -> Any:
        if exponent.is_number and not abs(exponent) <= _HIGHEST_POWER:
            raise ValueError("a power that high is not looked at")
        if base.is_Rational and exponent.is_Rational:
            bits = max(int(base.p).bit_length(), int(base.q).bit_length())
            if bits * abs(exponent) > _LONGEST_NUMBER:
                raise ValueError("a number that long is not looked at")
        return base**exponent

    def number(value: float) -> Any:
        return sympy.Integer(value) if isinstance(value, int) else sympy.Float(str(value))

    return _read(text, number, power, name, functions)


def _read(
    text: str,
    number: Callable[[float], Any],
    power: Callable[[Any, Any], Any] | None = None,
    name: Callable[[str], Any] | None = None,
    functions: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Any:
    operators = dict(_OPERATORS)
    if power is not None:
        operators[ast.Pow] = power
    functions = functions or {}

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(int() | float() as constant) if _is_number(constant):
                return number(constant)
            case ast.BinOp(left, sign, right) if type(sign) in operators:
                return operators[type(sign)](value(left), value(right))
            case ast.UnaryOp(sign, operand) if type(sign) in _SIGNS:
                return _SIGNS[type(sign)](value(operand))
            case ast.Name(word) if name is not None:
                return name(word)
            case ast.Call(ast.Name(word), [argument], []) if word in functions:
                return functions[word](value(argument))
        raise ValueError(f"no arithmetic: {type(node).__name__}")

    if len(text) > LONGEST:
        raise ValueError(f"longer than {LONGEST} characters")
    try:
        return value(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, MemoryError, RecursionError) as error:  # of deep nesting
        raise ValueError("no arithmetic") from error


def _is_number(constant: float) -> bool:
    """Integers are not asked whether they are finite: they may have more digits than a float."""
    if isinstance(constant, bool):
        return False
    return isinstance(constant, int) or math.isfinite(constant)
