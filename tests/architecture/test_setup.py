"""`make` on a machine that lacks something says what, and the pins are pins."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import tomllib
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
BOOTSTRAP = ROOT / "deploy" / "bootstrap.py"


@pytest.fixture
def bootstrap() -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("bootstrap", BOOTSTRAP)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    os.close(module.LOCK)


@pytest.mark.parametrize(
    ("argument", "status", "said"),
    [("--help", 0, "python3 deploy/bootstrap.py EXTRA"), ("--dry-run", 2, "--dry-run is no extra")],
)
def test_an_option_installs_nothing(
    bootstrap: ModuleType,
    argument: str,
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vars(bootstrap)["set_up"] = None
    assert bootstrap.main(["engine", argument] if status else [argument]) == status
    assert said in capsys.readouterr().out


@pytest.fixture
def checkout(bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty checkout in which `install` makes a venv that does nothing."""
    for name in bootstrap.INPUTS:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    venv = tmp_path / ".venv"
    places = {
        "ROOT": tmp_path,
        "VENV": venv,
        "PYTHON": venv / "bin" / "python",
        "STAMP": venv / "ponder-ready.json",
        "UNFINISHED": venv / "ponder-unfinished",
    }
    for name, place in places.items():
        monkeypatch.setattr(bootstrap, name, place)

    def install(extras: set[str], build: str) -> None:
        installs = tmp_path / "installs"
        done = installs.read_text() if installs.exists() else ""
        installs.write_text(f"{done}{','.join(sorted(extras))}\n")
        (venv / "bin").mkdir(parents=True, exist_ok=True)
        (venv / "bin" / "python").touch()
        (venv / "pyvenv.cfg").write_text(f"version = {bootstrap.HERE}.0\n")
        (venv / "ponder-unfinished").touch()

    monkeypatch.setattr(bootstrap, "install", install)
    monkeypatch.setattr(bootstrap, "take_lock", lambda: None)
    monkeypatch.setattr(bootstrap, "missing", list)
    monkeypatch.setattr(bootstrap, "has_gpu", lambda: False)
    monkeypatch.delenv("BUILD", raising=False)
    return tmp_path


def installs(checkout: Path) -> list[str]:
    return (checkout / "installs").read_text().split()


def test_an_old_python_can_read_what_it_lacks() -> None:
    ast.parse(BOOTSTRAP.read_text(), feature_version=(3, 8))


def test_everything_that_is_missing_is_named_with_its_remedy(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(bootstrap.sys, "version_info", (3, 8, 1))
    monkeypatch.setattr(bootstrap.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(bootstrap, "find_spec", lambda name: None)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    monkeypatch.setattr(bootstrap.shutil, "disk_usage", lambda path: usage(bootstrap.GIB))
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    named = "\n".join(bootstrap.missing())
    for part in ("3.11 to 3.14", "aarch64", "python3-venv", "util-linux", "4 GiB"):
        assert part in named


def test_a_second_run_has_nothing_to_do(bootstrap: ModuleType, checkout: Path) -> None:
    bootstrap.set_up(["engine", "dev"])
    bootstrap.set_up(["engine", "dev"])
    bootstrap.set_up(["engine"])
    assert installs(checkout) == ["cpu,dev"]


def test_new_extras_join_those_installed(bootstrap: ModuleType, checkout: Path) -> None:
    bootstrap.set_up(["engine"])
    bootstrap.set_up(["dev"])
    assert installs(checkout) == ["cpu", "cpu,dev"]


def test_a_changed_pin_installs_again(bootstrap: ModuleType, checkout: Path) -> None:
    bootstrap.set_up(["engine"])
    (checkout / "constraints.txt").write_text("torch==0\n")
    bootstrap.set_up(["engine"])
    assert installs(checkout) == ["cpu", "cpu"]


def test_an_interrupted_set_up_starts_over(bootstrap: ModuleType, checkout: Path) -> None:
    bootstrap.install(set(), "cpu")
    (checkout / ".venv" / "half-a-package").touch()
    bootstrap.set_up(["engine"])
    assert not (checkout / ".venv" / "half-a-package").exists()
    assert not (checkout / ".venv.old").exists()
    assert bootstrap.read_stamp()["extras"] == ["cpu"]


def test_another_build_starts_over(
    bootstrap: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.set_up(["engine", "dev"])
    monkeypatch.setenv("BUILD", "gpu")
    bootstrap.set_up(["engine"])
    assert installs(checkout) == ["cpu,dev", "dev,gpu"]


def test_a_venv_made_elsewhere_is_not_deleted(bootstrap: ModuleType, checkout: Path) -> None:
    bootstrap.install(set(), "cpu")
    (checkout / ".venv" / "ponder-unfinished").unlink()
    (checkout / ".venv" / "pyvenv.cfg").write_text("version = 3.8.1\n")
    with pytest.raises(bootstrap.SetupError, match="delete it"):
        bootstrap.set_up(["engine"])
    assert (checkout / ".venv" / "bin" / "python").exists()


def test_a_failing_step_says_which_why_and_what_to_do(
    bootstrap: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["sh", "-c", "echo Downloading the moon; echo no space for it >&2; exit 3"]
    with pytest.raises(bootstrap.SetupError) as failed:
        bootstrap.run("fetching the moon", command, "Make room")
    assert "  Downloading the moon\n" in capsys.readouterr().out
    for part in ("fetching the moon", "| no space for it", "Make room"):
        assert part in str(failed.value)


@pytest.mark.parametrize("module", ["torch", "transformers", "vllm"])
def test_what_an_engine_imports_is_compiled(module: str) -> None:
    """Where Python writes no bytecode, each start of an engine would else compile all of it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    compiled = Path(spec.origin).parent.glob("__pycache__/__init__.*.pyc")
    assert any(compiled), f"{module} has no bytecode: delete .venv and run make test again"


@pytest.mark.parametrize(
    ("pinned", "installed"),
    [
        ("constraints.txt", ("server", "cpu", "dev", "train", "deploy", "test")),
        ("constraints-verl.txt", ("server", "train", "verl", "test")),
    ],
)
def test_constraints_pin_everything_by_version_alone(
    pinned: str, installed: tuple[str, ...]
) -> None:
    """No addresses and no local versions, so that they hold on every machine."""
    lines = (ROOT / pinned).read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert [pin for pin in pins.values() if not re.fullmatch(r"[\w.!]+", pin)] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(name for extra in installed for name in extras[extra])]
    names = [re.split(r"[\[<>=]", name)[0].lower() for name in asked]
    assert [name for name in names if name != "ponder" and name not in pins] == []
