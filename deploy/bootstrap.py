"""Set up `.venv` for `make`: check the machine, install what is missing, say each step.

    python3 deploy/bootstrap.py EXTRA...        e.g. `serve`'s `engine`, `test`'s `engine dev`

The extra `engine` becomes `cpu`, or `gpu` where an NVIDIA GPU is found. A second run with nothing
to do takes a fraction of a second: a stamp in `.venv`, written last, names what was installed.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ponder-setup"
PYTHON = VENV / "bin" / "python"
TORCH = "torch==2.13.0"
GIB = 1 << 30
DISK_GIB = 4


class SetupError(Exception):
    """What is wrong and how to mend it."""


def check_machine():
    """Everything that is missing, each with its remedy, before anything is installed."""
    missing = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        missing.append(
            "Python 3.11 to 3.14, this is %s: make PYTHON=python3.12 …" % platform.python_version()
        )
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        missing.append("Linux on x86-64, this is %s %s" % (platform.system(), platform.machine()))
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        missing.append("Python's venv module: apt-get install python3-venv")
    if shutil.which("lscpu") is None:
        missing.append("lscpu, which vLLM calls: apt-get install util-linux")
    free = shutil.disk_usage(str(ROOT)).free
    if not VENV.exists() and free < DISK_GIB * GIB:
        missing.append("%d GiB of free disk, here are %.1f" % (DISK_GIB, free / GIB))
    if missing:
        raise SetupError("this machine lacks:\n  - " + "\n  - ".join(missing))


def has_gpu():
    """An NVIDIA GPU answers."""
    tool = shutil.which("nvidia-smi")
    return bool(tool) and subprocess.run([tool, "-L"], stdout=subprocess.DEVNULL).returncode == 0


def step(text, *command):
    """Run one command, its output shown as it comes; a failure names the step."""
    print("setup: " + text, flush=True)
    done = subprocess.run([str(part) for part in command], cwd=str(ROOT))
    if done.returncode:
        raise SetupError(
            "the step above failed (%s): mend what it says and run the same command again; "
            "it goes on from there" % text
        )


def cpu_torch_at_hand():
    """Whether pip, as it is configured here, would install a CPU build of torch."""
    command = [str(PYTHON), "-m", "pip", "install", "--dry-run", "--no-deps", "--ignore-installed"]
    asked = subprocess.run(
        [*command, "--quiet", "--report", "-", TORCH],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=str(ROOT),
    )
    if asked.returncode:
        return False
    found = json.loads(asked.stdout.decode())["install"][0]
    return found["metadata"]["version"].endswith("+cpu")


def wanted(extras):
    """What the stamp says when these extras are installed as the files now ask for."""
    digest = hashlib.sha256(" ".join([*extras, sys.version]).encode())
    for name in ("pyproject.toml", "constraints.txt", "deploy/bootstrap.py"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def install(extras):
    """Create `.venv` and install the project with `extras`, CPU torch first."""
    if not PYTHON.exists():
        step("creating .venv", sys.executable, "-m", "venv", "--clear", VENV)
    if not (VENV / "bin" / "uv").exists():
        step("installing uv", PYTHON, "-m", "pip", "install", "--quiet", "uv")
    uv = [VENV / "bin" / "uv", "pip", "install", "--python", PYTHON]
    if "gpu" in extras:
        print("setup: an NVIDIA GPU is here: installing vLLM's GPU build (an untested path)")
        step("installing ponder[%s]" % ",".join(extras), *uv, "-e", ".[%s]" % ",".join(extras))
        return
    if "cpu" in extras:
        if cpu_torch_at_hand():
            pip = [PYTHON, "-m", "pip", "install", "--quiet", "--no-deps"]
            step("installing %s (CPU build at hand)" % TORCH, *pip, TORCH)
        else:
            step("installing %s (CPU build)" % TORCH, *uv, "--torch-backend=cpu", TORCH)
    pinned = [*uv, "--constraints", "constraints.txt", "--overrides", "deploy/overrides.txt"]
    name = ".[%s]" % ",".join(extras)
    step("installing ponder[%s]" % ",".join(extras), *pinned, "-e", name)


def main(arguments):
    extras = [("gpu" if has_gpu() else "cpu") if a == "engine" else a for a in arguments]
    stamp = wanted(extras)
    stamps = STAMP.read_text().split() if STAMP.exists() else []
    if stamp in stamps:
        return 0
    try:
        check_machine()
        install(extras)
    except SetupError as error:
        print("setup: " + str(error), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    half = STAMP.with_suffix(".new")
    half.write_text("\n".join([*stamps[-3:], stamp]))
    os.replace(str(half), str(STAMP))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
