"""The engines that a server can be started on, by the name that `--engine` takes.

An engine is a module with a `load` (`ponder.engine.protocol.Loader`) and a row here. Modules are
imported when their engine is chosen, because some import heavy libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Literal

from ponder.engine.protocol import Engine, Load

EngineName = Literal["vllm", "scripted"]
ENGINES: Mapping[EngineName, str] = {
    "vllm": "ponder.engine.vllm",
    "scripted": "ponder.engine.scripted",
}


def load_engine(name: EngineName, load: Load) -> Engine:
    """Load an engine, in the main thread and inside a running event loop.

    Raises `EngineSetupError` for what the operator can mend, and anything else where the model
    does not load.
    """
    engine: Engine = import_module(ENGINES[name]).load(load)
    return engine
