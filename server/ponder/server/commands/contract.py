"""`ponder contract`: shows, writes and checks what Ponder learns from a model's files."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliPositionalArg

from ponder.checkpoint.calls import parser
from ponder.checkpoint.checkpoint import Checkpoint
from ponder.checkpoint.traits import HELLO, opening, tail
from ponder.engine.table import prepare_engine
from ponder.engine.tokenizer import HFTokenizer, ModelFiles
from ponder.errors import PonderError
from ponder.thought.budget import UNLIMITED
from ponder.thought.contract import FILE_NAME, Contract, ContractError, tokenizer_sha256

_LOOKS = re.compile(
    r"(<(?!\|?end)[\w|:]*(?:think|thought|reason|scratchpad)[\w:]*[|]?>)"
    r"|(\[(?:THINK|THOUGHT|REASON)\w*\])|(◁think▷)",
    re.I,
)
_ENDS = {
    **{"begin": "end", "start": "end", "BEGIN": "END", "START": "END"},
    **{"<|": None, "<": "</", "[": "[/", "◁": "◁/"},
}
"""How an end differs from a start that holds the text; None where no rule tells it."""


class Options(BaseModel):
    """Show what Ponder learns from a model's files: how it thinks, switches and is closed.

    With --write, a first ponder.json; with --check, a proof of what is there.
    """

    model: CliPositionalArg[str] = Field(description="a model directory, or a name on the hub")
    write: bool = Field(False, description=f"write a first {FILE_NAME} into the directory")
    check: bool = Field(False, description="prove that prompts open, switch and close as they say")
    serve: bool = Field(
        False, description="with --check: load the model and ask it twenty questions under budgets"
    )


def run(options: Options) -> int:
    """Returns 0 for success, 1 for a bad model or a failed check, 2 for options that conflict."""
    if options.serve and not options.check:
        print("ponder contract: --serve needs --check: add it", file=sys.stderr)
        return 2
    try:
        files = ModelFiles.find(options.model)
        if options.write:
            path = write(files)
            print(f"wrote {path}: read it, then prove it with ponder contract {files.name} --check")
        if options.serve:
            prepare_engine("vllm", files.directory)
        checkpoint = Checkpoint.load(files)
    except (PonderError, FileNotFoundError) as error:
        print(f"ponder contract: {error}", file=sys.stderr)
        return 1
    for name, value in facts(checkpoint):
        print(f"{name:>14}  {value}")
    if not options.check:
        return 0
    from ponder.server.commands.proof import proved
    from ponder.server.commands.trial import tried

    failures = [*proved(checkpoint)]
    if options.serve and not failures:
        try:
            failures = tried(checkpoint)
        except PonderError as error:
            print(f"ponder contract: {error}", file=sys.stderr)
            return 1
    for failure in failures:
        print(f"        failed  {failure}")
    print("all checks passed" if not failures else f"{len(failures)} checks failed")
    return 1 if failures else 0


def facts(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    """(name, value) rows about a model, for a person who is about to serve it."""
    yield from _of_thoughts(checkpoint)
    tokenizer = checkpoint.tokenizer
    if tokenizer.takes_tools:
        told = parser(tokenizer.chat_template)
        yield (
            "calls",
            told or "its template takes tools, and --tool-parser may say how it calls them",
        )


def _of_thoughts(checkpoint: Checkpoint) -> Iterator[tuple[str, str]]:
    form, traits = checkpoint.form, checkpoint.traits
    if form is None:
        if checkpoint.unread is None:
            yield "thinks", "no: its chat template writes no thought"
        else:
            yield "thinks", f"it seems so ({checkpoint.unread!r} in its chat template), but Ponder "
            yield "", "cannot read it: --write begins a contract"
        return
    yield "thinks", f"yes, as {form.name}"
    yield "markers", f"{form.start!r} … {form.end!r}"
    yield "close text", f"{form.close_text!r} ({form.source})"
    own = {
        "open": "opens the thought",
        "closed": "closes the thought unless it is switched on",
        "model": "leaves it to the model whether it thinks",
    }
    yield "its template", own[traits.own]
    yield "switched on", ", ".join(f"{k}={v!r}" for k, v in traits.on.items()) or "by nothing"
    if traits.off is None:
        yield "switched off", "by nothing: its thought is closed for it"
    else:
        yield "switched off", ", ".join(f"{k}={v!r}" for k, v in traits.off.items())
        _, end = tail(checkpoint.tokenizer, HELLO, traits.off)
        if opening(form, end) == "model":
            yield "", "which does not close its thought: the model is only told not to think"
    if traits.effort is not None:
        words = ", ".join(f"{ours} → {its}" for ours, its in traits.efforts.items())
        yield "efforts", f"{traits.effort}: {words}"
    if traits.tells is not None:
        yield "is told", f"its budget, by the template's {traits.tells}"
    if form.hint is not None:
        yield "is told", f"{form.hint!r} at {', '.join(map(str, form.trained_budgets))}"
    if form.tool_call is not None:
        yield "tool marker", repr(form.tool_call)
    if (curves := checkpoint.curves) is not None:
        auto = "no limit" if curves.pooled.auto == UNLIMITED else curves.pooled.auto
        yield "calibrated", f"auto is {auto}, on {', '.join(curves.tasks)}"


def write(files: ModelFiles) -> Path:
    """Write a first contract beside the weights: the recognised form, or a guess from the template.

    Returns its path. Raises `ContractError` where a contract exists, or the template shows no form.
    """
    path = files.directory / FILE_NAME
    if path.exists():
        raise ContractError(f"{path} exists: change it, or move it away first")
    checkpoint = Checkpoint.load(files)
    form = checkpoint.form
    if form is not None:
        opens = checkpoint.compiled is not None and checkpoint.compiled.opened_by == "template"
        contract = Contract(
            think_start=form.start,
            think_end=form.end,
            close_text=form.close_text,
            opened_by="template" if opens else "model",
            family=form.name,
            tokenizer_sha256=tokenizer_sha256(files.directory),
        )
    else:
        start, end = _guess(checkpoint.tokenizer, path)
        _, tail_text = tail(checkpoint.tokenizer, HELLO, {})
        contract = Contract(
            think_start=start,
            think_end=end,
            close_text=f"\n{end}\n\n",
            opened_by="template" if tail_text.rstrip().endswith(start) else "model",
            tokenizer_sha256=tokenizer_sha256(files.directory),
        )
    contract.save(files.directory)
    return path


def _guess(tokenizer: HFTokenizer, path: Path) -> tuple[str, str]:
    """The markers of thought in a template's text."""
    by_hand = (
        f"a {path.name} written by hand needs think_start, think_end and close_text "
        f"(docs/models.md)"
    )
    found = _LOOKS.search(tokenizer.chat_template)
    if found is None:
        raise ContractError(f"nothing in the chat template looks like a thought: {by_hand}")
    start = found.group()
    told, end = next((told, end) for told, end in _ENDS.items() if told in start)
    if end is None:
        raise ContractError(
            f"{start} in the chat template looks like a thought, and nothing tells its end: "
            f"{by_hand}"
        )
    return start, start.replace(told, end, 1)
