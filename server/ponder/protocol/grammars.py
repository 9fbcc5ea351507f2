"""The formats of an answer that requests ask for, as grammars.

The tag for JSON admits the blank that models write behind a thought, and at most one blank in any
other place: with free whitespace, a model may fill its answer with blank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ponder.engine.protocol import Grammar

BLANK: Mapping[str, Any] = {"type": "regex", "pattern": "[\\n ]{0,4}"}
"""The blank that may stand between a thought and the answer."""


def json_format(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a structural tag that spells a value of this schema."""
    return {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": 1}


def tag(form: Mapping[str, Any], *, blank: bool = True) -> Grammar:
    """The grammar of a structural tag's format, behind a thought and, unless told, some blank."""
    if blank:
        form = {"type": "sequence", "elements": [BLANK, form]}
    return Grammar("structural_tag", json.dumps({"type": "structural_tag", "format": form}))


def json_schema(schema: Mapping[str, Any]) -> Grammar:
    """The grammar of an answer that is JSON of this schema."""
    return tag(json_format(schema))


def json_object() -> Grammar:
    """The grammar of an answer that is any JSON object."""
    return json_schema({"type": "object"})
