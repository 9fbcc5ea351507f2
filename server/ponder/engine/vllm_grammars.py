"""Converts grammars for vLLM, and refuses those that it would accept but not enforce."""

from __future__ import annotations

import json
import re
from typing import Any

from ponder.engine import grammars
from ponder.engine.protocol import Grammar, RequestRefusedError

_PLACE = re.compile(r"^\[[\d:]+\] \S+: ")  # of xgrammar's source
BACKEND = "xgrammar"
OPTIONS = ("--structured-outputs-config", json.dumps({"backend": BACKEND}))
"""One fixed backend: under "auto" the first request chooses it, and later requests are checked
against another."""


def parameters(grammar: Grammar) -> Any:
    """vLLM's parameters: new ones for each request, because its engine writes into them."""
    from vllm.sampling_params import StructuredOutputsParams

    rule: Any = json.loads(grammar.rule) if grammar.kind == "choice" else grammar.rule
    return StructuredOutputsParams(**{grammar.kind: rule})


def check(grammar: Grammar) -> None:
    """Raise `RequestRefusedError` for a grammar that xgrammar does not read or would not enforce.

    vLLM itself checks only when the answer begins, after the thought was paid for, and knows few of
    the rules that xgrammar drops. Takes milliseconds for a schema, up to five seconds for a regex.
    """
    grammars.check(grammar)
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import SamplingParams
    from vllm.v1.structured_output.backend_xgrammar import validate_xgrammar_grammar

    try:
        validate_xgrammar_grammar(SamplingParams(structured_outputs=parameters(grammar)))
    except (VLLMValidationError, ValueError, TypeError, RecursionError) as error:
        cause = error.__cause__ or error  # vLLM's own message does not say what is wrong
        said = _PLACE.sub("", str(cause)).strip()
        raise RequestRefusedError(
            f"this cannot be enforced, change it or leave it out: {said}"
        ) from error
