"""Checks that a command's modules are installed, before anything slow is loaded."""

from __future__ import annotations

from importlib.util import find_spec


def require(*modules: str) -> None:
    """Raise `ModuleNotFoundError` for a missing module; the command line names its package."""
    for module in modules:
        if find_spec(module) is None:
            raise ModuleNotFoundError(f"{module} is missing", name=module)
