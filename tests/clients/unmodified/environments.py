"""An environment for each client, as its users install it: made once, kept in `.clients`."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
KEPT = ROOT / ".clients"
STAMP = "ponder-ready.json"


class NotHere(Exception):
    """What this machine lacks for a client, and the remedy."""


@dataclass(frozen=True)
class Environment:
    """What is installed for a client, by `uv` or `npm`; the first package is the client."""

    name: str
    packages: tuple[str, ...]
    node: bool = False

    @property
    def folder(self) -> Path:
        return KEPT / self.name

    @property
    def client(self) -> tuple[str, str]:
        """Its name and version."""
        package = self.packages[0]
        name, _, version = package.rpartition("@" if self.node else "==")
        return name.partition("[")[0], version

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def programs(self) -> Path:
        return self.folder / "node_modules" / ".bin" if self.node else self.folder / "bin"

    def make(self) -> None:
        """Install it, unless that was done. Raises `NotHere`.

        Half an environment has no stamp, and is made anew.
        """
        KEPT.mkdir(exist_ok=True)
        with (KEPT / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stamp, wanted = self.folder / STAMP, json.dumps(self.packages)
            if stamp.is_file() and stamp.read_text() == wanted:
                return
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            if self.node:
                self._npm()
            else:
                self._uv()
            stamp.write_text(wanted)

    def _uv(self) -> None:
        uv = Path(sys.executable).with_name("uv")
        _run(uv, "venv", "--quiet", "--clear", "--python", sys.executable, self.folder)
        _run(uv, "pip", "install", "--quiet", "--python", self.python, *self.packages)

    def _npm(self) -> None:
        npm = shutil.which("npm")
        if npm is None:
            raise NotHere("npm is missing: apt-get install npm")
        _run(npm, "install", "--no-audit", "--no-fund", "--prefix", self.folder, *self.packages)


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command,
        cwd=KEPT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "UV_NO_PROGRESS": "1"},
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it did not say why"]
        raise NotHere(f"{Path(command[0]).name} could not install ({said[-1]}): mend its registry")


def _python(name: str, *packages: str) -> Environment:
    return Environment(name, packages)


def _node(name: str, *packages: str) -> Environment:
    return Environment(name, packages, node=True)


ENVIRONMENTS = {
    environment.name: environment
    for environment in (
        _python("openai", "openai==3.57.0"),
        _python("anthropic", "anthropic==2.14.0"),
        _python("litellm", "litellm[proxy]==1.108.7"),
        _python("langchain", "langchain-openai==1.7.4"),
        _python("pydantic-ai", "pydantic-ai-slim[openai]==2.68.0"),
        _python("instructor", "instructor==1.17.0"),
        _python("openai-agents", "openai-agents==0.24.0"),
        _python("llama-index", "llama-index-llms-openai-like==0.8.1"),
        _python("llm", "llm==0.36"),
        _python("lm-eval", "lm-eval[api]==0.4.13", "transformers==5.24.0"),
        _python("inspect-ai", "inspect-ai==0.3.285", "openai==3.57.0"),
        _python("guidellm", "guidellm==0.8.1"),
        _node("openai-node", "openai@6.49.0"),
        _node(
            "ai-sdk",
            "ai@6.0.326",
            "@ai-sdk/openai@3.0.141",
            "@ai-sdk/openai-compatible@2.0.92",
            "zod@4.6.7",
        ),
        _node("codex", "@openai/codex@0.171.0"),
        _node("claude-code", "@anthropic-ai/claude-code@2.1.197"),
        _node("qwen-code", "@qwen-code/qwen-code@0.15.10"),
        _node("opencode", "opencode-ai@1.18.33"),
    )
}
"""The clients and their versions."""
