"""Parses argv into a command's `Options`: flags from pydantic fields, problems as sentences.

Not pydantic-settings' own parser: it splits list items at commas, reads JSON and `null` inside
strings, and lets the plain variable MODEL or SEED set the field of that name. Here a value reaches
pydantic exactly as it was typed, and only a BaseSettings reads the environment, below the flags.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined
from pydantic_settings import BaseSettings, CliPositionalArg, SettingsError

from ponder.errors import SetupError

PASSED_ON = "engine_options"
"""The field that takes all arguments after `--`."""

_POSITIONAL = get_args(CliPositionalArg[str])[1]
_METAVARS = {int: "N", float: "X", Path: "PATH"}

OptionsT = TypeVar("OptionsT", bound=BaseModel)


class UsageError(SetupError):
    """A mistake in the arguments; each of the `problems` names the input and the remedy."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse(options: type[OptionsT], argv: Sequence[str], *, prog: str) -> OptionsT:
    """Parse `argv` into `options`. Raises `UsageError`; --help prints and raises `SystemExit`."""
    own, passed_on = _split(argv)
    parser = parser_of(options, prog)
    found, unknown = parser.parse_known_args(own)
    if unknown:
        raise UsageError(_unknown(unknown[0], options, prog))
    given = vars(found)
    if passed_on is not None:
        if PASSED_ON not in options.model_fields:
            raise UsageError("nothing can follow -- here: leave it out")
        given[PASSED_ON] = passed_on
    try:
        return options(**given)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise UsageError(*(_sentence(problem, options, given) for problem in problems)) from None
    except SettingsError as error:
        raise UsageError(f"in the environment, {error}: write a list as JSON") from None


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class _Parser(argparse.ArgumentParser):
    def __init__(self, prog: str, usage: str, description: str, epilog: str | None) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
        )
        # Before Python 3.14 argparse takes the value in `--budgets -1,8` for an option.
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "))


def parser_of(options: type[BaseModel], prog: str) -> argparse.ArgumentParser:
    """A parser that reads each flag into its field, with each value as it was typed."""
    usage = f"{prog} [options]"
    for name, field in options.model_fields.items():
        if _is_positional(field):
            usage += f" {name.upper()}" if field.is_required() else f" [{name.upper()}]"
    if PASSED_ON in options.model_fields:
        usage += " [-- options of the engine]"
    prefix = _env_prefix(options)
    epilog = f"Every option also reads the environment: --some-option is {prefix}SOME_OPTION."
    parser = _Parser(prog, usage, inspect.getdoc(options) or "", epilog if prefix else None)
    for name, field in options.model_fields.items():
        if name == PASSED_ON:
            continue
        kind, many = shape(field.annotation)
        settings: dict[str, Any] = {"help": _help(field)}
        if kind is bool and field.default is False and not prefix:
            settings |= {"action": "store_true", "default": argparse.SUPPRESS}
        elif kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        else:
            settings["metavar"] = _metavar(name, field)
            if kind in (int, float) and many:
                settings["type"] = lambda text: text.split(",")
        if _is_positional(field):
            parser.add_argument(name, nargs="*" if many else "?", **settings)
        else:
            if many:
                settings["action"] = "extend" if "type" in settings else "append"
            key = field.alias or name
            parser.add_argument(_flag(key), dest=key, **settings)
    return parser


def _split(argv: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """The arguments before `--`, and those after it; None without `--`."""
    own = list(argv)
    if "--" not in own:
        return own, None
    at = own.index("--")
    return own[:at], own[at + 1 :]


def shape(annotation: Any) -> tuple[Any, bool]:
    """The type of one value, and whether there may be several."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape(args[0])
    if origin in (Union, UnionType):
        members = [member for member in args if member is not type(None)]
        return shape(members[0]) if len(members) == 1 else (str, False)
    if origin in (list, tuple):
        return shape(args[0])[0], True
    return annotation, False


def _is_positional(field: FieldInfo) -> bool:
    return _POSITIONAL in field.metadata


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(name: str, field: FieldInfo) -> str:
    if _is_positional(field):
        return name.upper()
    if name == "url":
        return "URL"
    kind, many = shape(field.annotation)
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    for known, metavar in _METAVARS.items():
        if isinstance(kind, type) and issubclass(kind, known):
            return f"{metavar},…" if many and known in (int, float) else metavar
    return "TEXT"


def _help(field: FieldInfo) -> str:
    text = field.description or ""
    if field.is_required():
        text += "" if _is_positional(field) else " (required)"
    elif "(default" not in text and (default := _default(field.default)):
        text += f" (default: {default})"
    return text.replace("%", "%%")


def _default(value: Any) -> str:
    """A default as text; empty for None and the like. Only numbers can be typed with commas."""
    if isinstance(value, list | tuple):
        return (", " if any(isinstance(item, str) for item in value) else ",").join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else ""
    return "" if value is None or value is PydanticUndefined else str(value)


def _env_prefix(options: type[BaseModel]) -> str:
    return str(options.model_config.get("env_prefix", "")) if _reads_env(options) else ""


def _reads_env(options: type[BaseModel]) -> bool:
    return issubclass(options, BaseSettings)


def _unknown(word: str, options: type[BaseModel], prog: str) -> str:
    if not word.startswith("-"):
        return f"unexpected argument {shlex.quote(word)}: put quotes around a text with spaces"
    flag = word.partition("=")[0]
    fields = options.model_fields.items()
    flags = [_flag(field.alias or name) for name, field in fields if name != PASSED_ON]
    close = difflib.get_close_matches(flag, flags, n=1)
    if close:
        return f"{flag} is not an option: did you mean {close[0]}?"
    if PASSED_ON in options.model_fields:
        return f"{flag} is not an option: options of the engine go after --"
    return f"{flag} is not an option: see {prog} --help"


def _sentence(problem: ErrorDetails, options: type[BaseModel], given: dict[str, Any]) -> str:
    """From `Input should be greater than or equal to 0` to `--port must be …, not -4`."""
    message = problem["msg"].removeprefix("Value error, ").replace(" after validation", "")
    if problem["type"] in ("too_short", "too_long") and isinstance(problem["input"], str):
        message = message.replace(" item", " character")  # pydantic's word for a part of a secret
    name = str(problem["loc"][0]) if problem["loc"] else ""
    by_key = {field.alias or key: field for key, field in options.model_fields.items()}
    field = by_key.get(name)
    if field is None:
        return message
    label = _metavar(name, field) if _is_positional(field) else _flag(name)
    if problem["type"] == "missing":
        return f"{label} is required: {field.description}"
    if name not in given and _reads_env(options):
        label = f"{_env_prefix(options)}{name}".upper()
    # What follows a comma says how pydantic reads the type; the words of a choice are the message.
    said = r"(.+)" if problem["type"] == "literal_error" else r"([^,]+)"
    found = re.match(rf"(?:Input|String|Value|List) should {said}", message)
    if found is None:
        return f"{label} {message}" if message.startswith("must ") else f"{label}: {message}"
    return "".join([f"{label} must {found[1]}", *_not(problem["input"], field)])


def _not(value: Any, field: FieldInfo) -> Iterator[str]:
    """`, not VALUE`, unless the value is a secret."""
    kind, _ = shape(field.annotation)
    secret = isinstance(kind, type) and issubclass(kind, SecretStr | SecretBytes)
    if isinstance(value, str) and not secret:
        yield f", not {shlex.quote(value)}"
