"""Set up `.venv` for `make`: check the machine, install what is missing, say each step.

    python3 deploy/bootstrap.py EXTRA...        `make serve`: engine; `make test`: engine dev

With `verl` as the first extra it sets up `.venv-verl` by `constraints-verl.txt`: verl needs other
versions than vLLM.

The extra `engine` becomes `gpu` if there is an NVIDIA GPU, else `cpu`; BUILD=cpu or BUILD=gpu in
the environment overrides that. A stamp in `.venv`, written last, records what is installed, so that
a second run takes no time. Standard library only; Python 3.8 can still run it and learn from it
what is missing.
"""

import fcntl
import hashlib
import json
import os
import platform
import re
import selectors
import shutil
import subprocess
import sys
import time
from collections import deque
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALONE = sys.argv[1:2] == ["verl"]
VENV = ROOT / (".venv-verl" if ALONE else ".venv")
PINS = "constraints-verl.txt" if ALONE else "constraints.txt"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "ponder-ready.json"
# Exists while an install runs. A killed installer leaves half a package that looks whole, so a run
# that finds this file starts over; that costs little, because the downloads are cached.
UNFINISHED = VENV / "ponder-unfinished"
INPUTS = ("pyproject.toml", PINS, "deploy/overrides.txt", "deploy/bootstrap.py")
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"
GIB = 1 << 30
DISK_GIB = 4
HEARTBEAT_S = 20
# The lock is on this very file, the only one that is sure to exist and to stay.
LOCK = os.open(__file__, os.O_RDONLY)
PROGRESS = ("Downloading", "Downloaded", "Building", "Built")


class SetupError(Exception):
    """A failed set-up; the message says what is wrong and how to mend it."""


def say(text):
    print("setup: " + text, flush=True)


def missing():
    """Yield what this machine lacks, each with its remedy."""
    if not (3, 11) <= sys.version_info[:2] <= (3, 14):
        names = [f"python3.{minor}" for minor in (13, 12, 11, 14)]
        here = [name for name in names if shutil.which(name)]
        remedy = f"add PYTHON={here[0]} to the command" if here else "install python3.12"
        yield f"Python 3.11 to 3.14 (this is {platform.python_version()}): {remedy}"
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        yield f"Linux on x86-64 (this is {machine}): use such a machine or container"
    elif not re.search(r"\bavx2\b", Path("/proc/cpuinfo").read_text()):
        yield "a processor with AVX2, which vLLM's CPU build calls: use a newer machine"
    if not (find_spec("venv") and find_spec("ensurepip")):
        yield "Python's venv module: apt-get install python3-venv"
    if shutil.which("lscpu") is None:
        yield "lscpu, which vLLM calls: apt-get install util-linux"
    free = shutil.disk_usage(str(ROOT)).free
    if not VENV.exists() and free < DISK_GIB * GIB:
        yield f"{DISK_GIB} GiB of free disk (here are {free / GIB:.1f}): free some"


def has_gpu():
    """Whether an NVIDIA GPU answers."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return False
    asked = subprocess.run([tool, "-L"], capture_output=True, check=False)
    return asked.returncode == 0 and b"GPU" in asked.stdout


def choose_build(stamp):
    """`cpu` or `gpu`: by BUILD, else as installed, else by what the machine has."""
    build = os.environ.get("BUILD") or stamp.get("build") or ("gpu" if has_gpu() else "cpu")
    if build not in ("cpu", "gpu"):
        raise SetupError(f"BUILD is cpu or gpu, not {build}")
    return build


def digest():
    """A hash of what decides the installation: files, and the path, which a venv's scripts hold."""
    found = hashlib.sha256(str(ROOT).encode())
    for name in INPUTS:
        found.update((ROOT / name).read_bytes())
    return found.hexdigest()


def read_stamp():
    """The stamp of the last finished set-up; empty without one."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def python_of_venv():
    """The venv's Python version, as `3.11`; None without a venv that works."""
    config = VENV / "pyvenv.cfg"
    if not PYTHON.exists() or not config.exists():
        return None
    version = re.search(r"^version *= *(\d+\.\d+)", config.read_text(), re.MULTILINE)
    return version and version.group(1)


def run(step, command, remedy):
    """Run one step. Show its downloads as they start, and its last lines if it fails."""
    say(step)
    started = time.monotonic()
    tail = deque(maxlen=15)
    child = subprocess.Popen(
        [str(part) for part in command],
        cwd=str(ROOT),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # The child inherits the lock: if this process is killed, the next one waits for the child.
        pass_fds=[LOCK],
    )
    with child, selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        rest = b""
        while True:
            if not selector.select(HEARTBEAT_S):
                print(f"  … {time.monotonic() - started:.0f} s", flush=True)
                continue
            read = os.read(child.stdout.fileno(), 1 << 16)
            *lines, rest = (rest + read).split(b"\n") if read else (rest, b"")
            for line in (line.decode(errors="replace").strip() for line in lines):
                tail.append(line)
                if line.startswith(PROGRESS):
                    print("  " + line, flush=True)
            if not read:
                break
    if child.returncode:
        shown = "\n".join("  | " + line for line in tail if line)
        raise SetupError(
            f"this step failed: {step}\n{shown}\n{remedy}, then run the same command again "
            f"(or delete {VENV.name} to start over)"
        )


def discard_venv():
    """Rename the venv before deleting it, so that a kill in between leaves no half of it."""
    old = VENV.with_name(VENV.name + ".old")
    shutil.rmtree(str(old), ignore_errors=True)
    VENV.rename(old)
    shutil.rmtree(str(old), ignore_errors=True)


def start_over_if_needed(stamp, build):
    """Remove a venv that cannot be continued; raise `SetupError` for one that make did not make."""
    if not VENV.exists():
        return
    if UNFINISHED.exists():
        say("the last set-up was interrupted: starting over")
    elif stamp.get("build", build) != build:
        say(f"{VENV.name} holds the {stamp['build']} build: starting over")
    elif python_of_venv() == HERE:
        return
    elif stamp:
        say(f"{VENV.name} is not for Python {HERE}: starting over")
    else:
        raise SetupError(f"{VENV.name} is not for Python {HERE} and not made by make: delete it")
    discard_venv()


def install_torch(uv):
    """Install torch's CPU build by pip and its settings, else from PyTorch's own index.

    The `+cpu` matters: any other torch brings gigabytes of CUDA. uv does not read pip's settings.
    """
    pins = (ROOT / PINS).read_text()
    pin = re.search(r"^torch==\S+", pins, re.MULTILINE).group(0)
    pip = [PYTHON, "-m", "pip", "install", "--no-deps", pin + "+cpu"]
    try:
        run(f"installing {pin} (CPU build)", pip, "")
    except SetupError:
        step = "pip has no CPU build of torch at hand: asking PyTorch's own index"
        run(step, [*uv, "--no-deps", "--torch-backend=cpu", pin], "Check the network")


def install(extras, build):
    """Create `.venv` where there is none, and install the project with its extras."""
    pins = ["--constraint", PINS]
    if not VENV.exists():
        VENV.mkdir()
        UNFINISHED.touch()
        remedy = "Mend what it says"
        run(f"creating {VENV.name}", [sys.executable, "-m", "venv", VENV], remedy)
    UNFINISHED.touch()
    if STAMP.exists():
        STAMP.unlink()
    try:
        remedy = "Check the network and pip's settings"
        run("installing uv", [PYTHON, "-m", "pip", "install", *pins, "uv"], remedy)
        # vLLM imports thousands of modules in each of its processes. Where PYTHONDONTWRITEBYTECODE
        # is set, as in many containers, each start would compile them again.
        uv = [PYTHON, "-m", "uv", "pip", "install", "--compile-bytecode", "--python", PYTHON]
        project = ["--editable", f".[{','.join(sorted(extras))}]"]
        if ALONE and build == "gpu":
            how = [*pins, "--torch-backend=auto"]
            remedy = "Mend what it says, or take the CPU build with BUILD=cpu"
        elif build == "gpu":
            # vLLM's GPU build pins its own versions, which are not those of constraints.txt.
            say("taking vLLM's GPU build: an UNTESTED path (BUILD=cpu takes the other)")
            how = ["--torch-backend=auto"]
            remedy = "Mend what it says, or take the CPU build with BUILD=cpu"
        else:
            install_torch(uv)
            how = [*pins, "--overrides", "deploy/overrides.txt"]
            remedy = "Check the network and the disk (behind a mirror, set UV_DEFAULT_INDEX)"
        run(
            f"installing {'verl' if ALONE else 'vLLM'}, Ponder and what they need",
            [*uv, *how, *project],
            remedy,
        )
    except SetupError:
        # The installer ended by itself: its files are whole, and the next run can continue.
        UNFINISHED.unlink()
        raise


def set_up(arguments):
    """Install the extras that the arguments name; most often they are already there."""
    for alone in (False, True):
        stamp = read_stamp()
        build = choose_build(stamp)
        extras = {build if name == "engine" else name for name in arguments}
        ready = {"build": build, "digest": digest(), "python": HERE}
        have = set(stamp.get("extras", ()))
        if extras <= have and {**stamp, **ready} == stamp and python_of_venv() == ready["python"]:
            return
        if not alone:
            take_lock()
    lacks = list(missing())
    if lacks:
        raise SetupError("this machine lacks\n" + "\n".join("  - " + what for what in lacks))
    start_over_if_needed(stamp, build)
    extras |= {build if name in ("cpu", "gpu") else name for name in have}
    install(extras, build)
    half = STAMP.with_suffix(".new")
    half.write_text(json.dumps({**ready, "extras": sorted(extras)}))
    UNFINISHED.unlink()
    half.replace(STAMP)
    say("done")


def take_lock():
    """Lock this checkout for one set-up, until the process and its children end."""
    try:
        fcntl.flock(LOCK, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"waiting for another set-up of {VENV.name}")
        fcntl.flock(LOCK, fcntl.LOCK_EX)


def main(arguments):
    options = [name for name in arguments if name.startswith("-")]
    if options:
        asked = options in (["-h"], ["--help"])
        print(__doc__ if asked else f"setup: {options[0]} is no extra: see --help")
        return 0 if asked else 2
    try:
        set_up(arguments)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run the same command again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
