"""What a command needs is looked for before anything slow is loaded."""

from __future__ import annotations

from importlib.util import find_spec


def require(*modules: str) -> None:
    """Raises `ModuleNotFoundError`, which the command line turns into what to install."""
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"{module} is missing", name=module)
