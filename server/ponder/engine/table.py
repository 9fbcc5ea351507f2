"""The engines that a server can start, by the name that `--engine` takes.

An engine is a module with a `load` (`ponder.engine.protocol.Loader`) and a row here; an engine from
another package goes by its module's name. Modules are imported when their engine is chosen, because
some import heavy libraries. A module may have a `prepare`, which sets what those libraries read
when they are imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ponder.engine.protocol import Engine, EngineSetupError, Load

ENGINES: Mapping[str, str] = {
    "vllm": "ponder.engine.vllm",
    "http": "ponder.engine.http",
    "scripted": "ponder.engine.scripted",
}


def prepare_engine(name: str, directory: Path) -> None:
    """Prepare this process for an engine, before it loads a tokenizer, which imports torch.

    `name` is one of `ENGINES`, or a module. Raises `EngineSetupError`.
    """
    prepare = getattr(_module(name), "prepare", None)
    if prepare is not None:
        prepare(directory)


def load_engine(name: str, load: Load) -> Engine:
    """Load an engine, in the main thread and inside a running event loop.

    Raises `EngineSetupError` for a fault that the operator can mend, and any other exception where
    the model does not load.
    """
    engine: Engine = _module(name).load(load)
    return engine


def _module(name: str) -> ModuleType:
    path = ENGINES.get(name, name)
    try:
        module = import_module(path)
        module.load  # noqa: B018 - any module may be named
    except (ModuleNotFoundError, AttributeError) as error:
        if path != name:  # one of ours that lacks a library
            raise
        raise EngineSetupError(
            f"--engine {name}: {error}; it takes {', '.join(ENGINES)}, or a module of your own "
            "with a `load` that can be imported from here"
        ) from error
    return module
