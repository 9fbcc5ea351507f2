"""An engine for servers of their own process: what it says takes as long as a test likes.

ponder serve --engine paced -- 0.01 "Thinking and thinking.</think>42"
"""

from __future__ import annotations

from dataclasses import replace

from ponder.engine import scripted
from ponder.engine.protocol import Load
from ponder.engine.scripted import ScriptedEngine


def load(load: Load) -> ScriptedEngine:
    """The first option are the seconds before each token, the others what is said."""
    seconds, *texts = load.options
    engine = scripted.load(replace(load, options=texts))
    engine.delay = float(seconds)
    return engine
