"""The engines that a server can start, by the name that `--engine` takes.

An engine is a module with a `load` (`ponder.engine.protocol.Loader`) and a row here; an engine from
another package goes by its module's name. Modules are imported when their engine is chosen, because
some import heavy libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module

from ponder.engine.protocol import Engine, EngineSetupError, Load

ENGINES: Mapping[str, str] = {
    "vllm": "ponder.engine.vllm",
    "http": "ponder.engine.http",
    "scripted": "ponder.engine.scripted",
}


def load_engine(name: str, load: Load) -> Engine:
    """Load an engine, in the main thread and inside a running event loop.

    `name` is one of `ENGINES`, or a module. Raises `EngineSetupError` for a fault that the operator
    can mend, and any other exception where the model does not load.
    """
    module = ENGINES.get(name, name)
    try:
        loader = import_module(module).load
    except (ModuleNotFoundError, AttributeError) as error:
        if module != name:  # one of ours that lacks a library
            raise
        raise EngineSetupError(
            f"--engine {name}: {error}; it takes {', '.join(ENGINES)}, or a module of your own "
            "with a `load` that can be imported from here"
        ) from error
    engine: Engine = loader(load)
    return engine
