"""Sources of a package: as installed, and as a wheel in the registry has them, read in part."""

from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urljoin

import httpx

Source = Callable[[str], str | None]
"""The text of a file by its path, such as `vllm/envs.py`; None where there is none."""

_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_31_x86_64", "manylinux_2_35_x86_64")
_READ_AHEAD = 1 << 16


class Unreachable(Exception):
    """The registry does not give the wheel; the message says why."""


def installed(package: str) -> Source:
    """Nothing of it is imported."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(next(iter(spec.submodule_search_locations))).parent

    def source(path: str) -> str | None:
        file = root / path
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return source


def published(requirement: str) -> Source:
    """Of a pinned requirement's wheel for Linux. Only what is read is fetched."""
    wheel = published_wheel(requirement)
    names = set(wheel.namelist())
    return lambda path: wheel.read(path).decode() if path in names else None


def published_wheel(requirement: str) -> zipfile.ZipFile:
    """The wheel of a pinned requirement, read in part. Raises `Unreachable`."""
    return zipfile.ZipFile(io.BufferedReader(_Remote(_wheel_url(requirement)), _READ_AHEAD))


def published_sdist(project: str, version: str) -> tarfile.TarFile:
    """The source distribution of a release, fetched whole; nothing of it is built.

    Raises `Unreachable`.
    """
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)
    index = asked.stdout.strip() or "https://pypi.org/simple"
    try:
        page = httpx.get(f"{index.rstrip('/')}/{project}/", follow_redirects=True)
        name = rf"{project.replace('-', '[-_]')}-{re.escape(version)}\.tar\.gz"
        links = re.findall(rf'href="([^"]*{name}[^"]*)"', page.raise_for_status().text)
        if not links:
            raise Unreachable(f"the index has no source of {project} {version}")
        found = httpx.get(urljoin(str(page.url), links[0]), follow_redirects=True, timeout=120)
        content = found.raise_for_status().content
    except httpx.HTTPError as error:
        raise Unreachable(str(error)) from error
    return tarfile.open(fileobj=io.BytesIO(content))


def defines(source: Source, module: str, name: str) -> bool:
    """Whether `from module import name` would find something."""
    path = module.replace(".", "/")
    if source(f"{path}/{name}.py") is not None or source(f"{path}/{name}/__init__.py") is not None:
        return True
    text = source(f"{path}.py") or source(f"{path}/__init__.py")
    return text is not None and name in _names(ast.parse(text).body)


def members(source: Source, module: str, name: str) -> set[str]:
    """What the body of a class in a module defines."""
    text = source(module.replace(".", "/") + ".py")
    assert text is not None, module
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _names(node.body)
    return set()


def _names(body: list[ast.stmt]) -> set[str]:
    found: set[str] = set()
    for node in body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            case ast.Assign():
                found |= {t.id for t in node.targets if isinstance(t, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
            case ast.If() | ast.Try():
                found |= _names(node.body) | _names(node.orelse)
    return found


def _wheel_url(requirement: str) -> str:
    command = [sys.executable, "-m", "pip", "install", requirement, "--dry-run", "--report", "-"]
    command += ["--quiet", "--ignore-installed", "--no-deps", "--only-binary", ":all:"]
    command += ["--python-version", "3.12", "--target", "unused"]
    for platform in _PLATFORMS:
        command += ["--platform", platform]
    asked = subprocess.run(command, check=False, capture_output=True, text=True)
    if asked.returncode != 0:
        raise Unreachable(asked.stderr.strip())
    url: str = json.loads(asked.stdout)["install"][0]["download_info"]["url"]
    return url


class _Remote(io.RawIOBase):
    """A file on a server that gives parts of it."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(follow_redirects=True)
        self._url = url
        self._at = 0
        try:
            whole = self._client.head(url).raise_for_status()
        except httpx.HTTPError as error:
            raise Unreachable(str(error)) from error
        self._size = int(whole.headers["content-length"])

    def close(self) -> None:
        self._client.close()
        super().close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = base + offset
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        last = min(self._at + len(buffer), self._size) - 1
        if last < self._at:
            return 0
        part = self._client.get(self._url, headers={"range": f"bytes={self._at}-{last}"})
        if part.status_code != httpx.codes.PARTIAL_CONTENT:
            raise Unreachable(f"{part.status_code} for a part of the wheel")
        buffer[: len(part.content)] = part.content
        self._at += len(part.content)
        return len(part.content)
