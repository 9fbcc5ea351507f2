"""A family of models: its row for `FAMILIES` in `ponder.thought.families`.

The chat template of such a model ends its prompt with `<muse>`, and the model continues:

    …<assistant><muse>I look at the units first.</muse>
    The answer is 42.
"""

from __future__ import annotations

from ponder.thought.families import Family
from ponder.thought.format import ThoughtFormat

MUSE = Family(
    needles=("<muse>", "</muse>"),  # in all chat templates of this family and in no other's
    format=ThoughtFormat(
        name="Muse",
        start="<muse>",
        end="</muse>",
        close_text="\nI answer now.</muse>\n",  # appended where a budget ends the thought
        think={"muse": True},  # its switch has a name of its own
        no_think={"muse": False},
    ),
)
