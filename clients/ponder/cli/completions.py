"""`ponder completions`: the script that completes commands and options in a shell."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from ponder.cli.arguments import parser_of, shape
from ponder.cli.main import COMMANDS

_TAKE_FILES = ("model", "recipe")
"""Positionals that may be a path."""


class Options(BaseModel):
    """Print the script that completes ponder's commands and options in a shell.

    bash:  ponder completions bash > ~/.local/share/bash-completion/completions/ponder
    zsh:   ponder completions zsh > ~/.zfunc/_ponder    (with ~/.zfunc in fpath, before compinit)
    fish:  ponder completions fish > ~/.config/fish/completions/ponder.fish
    """

    shell: CliPositionalArg[Literal["bash", "zsh", "fish"]] = Field(description="bash, zsh or fish")


def run(options: Options) -> int:
    import shtab

    print(shtab.complete(_whole_parser(), options.shell))
    return 0


def _whole_parser() -> argparse.ArgumentParser:
    """Every command in one parser, for shtab alone."""
    whole = argparse.ArgumentParser("ponder")
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        try:
            options = import_module(command.module).Options
        except ModuleNotFoundError as error:
            print(
                f"ponder completions: the options of {name} need {error.name}, which is missing: "
                f"pip install {command.install}",
                file=sys.stderr,
            )
            commands.add_parser(name, help=command.help)
            continue
        parser = parser_of(options, f"ponder {name}")
        _say_what_values_are(parser, options)
        commands.add_parser(name, help=command.help, parents=[parser], add_help=False)
    return whole


def _say_what_values_are(parser: argparse.ArgumentParser, options: type[BaseModel]) -> None:
    """Give choices and paths to the completion; a command that runs checks values by pydantic."""
    import shtab

    fields = {field.alias or name: field for name, field in options.model_fields.items()}
    for action in parser._actions:
        if action.dest not in fields:
            continue
        kind, _ = shape(fields[action.dest].annotation)
        if get_origin(kind) is Literal:
            action.choices = get_args(kind)
        elif kind is Path or (not action.option_strings and action.dest in _TAKE_FILES):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
