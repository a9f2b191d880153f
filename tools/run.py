#!/usr/bin/env python3
"""Set up .venv and run one of the repository's commands with it: ``python3 tools/run.py demo|test|evidence``.

Standard library only. Python 3.6 can read this file, so that an old Python is told that it is too old.
What follows the command goes to its last step: ``python3 tools/run.py test -k tiles``.
"""

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

MINIMUM = (3, 11)
# When the running Python does not fit, the one that the suite is run with comes first.
NAMES = ("python3.11", "python3.12", "python3.13", "python3.14", "python3", "python")

DEMO = ("-m", "deepcontrast", "demo")
COMMANDS = {
    "demo": ((*DEMO, "--out", "demo_output"),),
    "test": (
        ("-m", "ruff", "check", "."),
        ("-m", "ruff", "format", "--check", "."),
        ("-m", "mypy"),
        ("-m", "pytest"),
    ),
    "evidence": (
        ("-m", "pytest", "-m", "slow"),
        (*DEMO, "--seeds", "0,1,2", "--out", "demo_output/evidence"),
        ("benchmarks/speed/run.py", "--only", "size", "--out", "demo_output/size"),
    ),
}

# The stamp is what the installation was made from. While one is at work the stamp is UNFINISHED instead.
STAMP = "deepcontrast-stamp"
UNFINISHED = "unfinished"
LOCK = "deepcontrast-lock"

# Sizes in MB of what pip downloads for constraints.txt, as pip itself states them on Python 3.11. On Linux
# torch 2.13.0 (x86_64 527, aarch64 427) asks for CUDA's libraries (x86_64 2,204: cublas 423, cudnn 366,
# cufft 214, nccl 206, cusolver 201, triton 198, cusparselt 170, cusparse 146, nvrtc 90, nvshmem 60,
# curand 60, nvjitlink 47, others 23); elsewhere it asks for none. OTHERS_MB is everything that is not torch.
TORCH_MB = {"linux": 2730, "darwin": 111, "win32": 122}
OTHERS_MB = 185


class Stop(Exception):
    """One line for the user; ``code`` is the exit status (2: something outside must change)."""

    def __init__(self, message, code=2):
        super().__init__(message)
        self.code = code


def say(text):
    print("run.py: " + text, flush=True)


def dotted(version):
    return ".".join(map(str, version))


def version_of(python, modules="sys"):
    """Return an interpreter's (major, minor, micro); None if it does not start or lacks a module."""
    code = f"import {modules}, sys; print('.'.join(map(str, sys.version_info[:3])))"
    command = [str(python), "-I", "-c", code]  # -I: no PYTHONPATH, no file beside us lends it a module
    try:
        answer = subprocess.check_output(command, stderr=subprocess.DEVNULL, timeout=60)
        return tuple(int(number) for number in answer.decode().strip().split("."))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def candidates():
    """Yield the interpreters to try: the running one (not the .venv it may be of), PATH's, then pyenv's."""
    yield Path(getattr(sys, "_base_executable", None) or sys.executable)
    for name in NAMES:
        for folder in os.get_exec_path():
            file = Path(folder) / (name + (".exe" if os.name == "nt" else ""))
            if os.access(str(file), os.X_OK) and file.is_file():
                yield file
    pyenv = Path(os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv"))
    yield from sorted(pyenv.glob("versions/*/bin/python"))


def choose_python(pythons):
    """Return (python, its version, whether it has venv): the first that fits and can make an environment."""
    found = {}
    fitting = []
    for python in pythons:
        version = version_of(python)
        if version is None:  # such as pyenv's stand-in for a version that is switched off
            continue
        found.setdefault(version, python)
        if version >= MINIMUM:
            if version_of(python, "ensurepip, venv"):
                return python, version, True
            fitting.append((python, version))
    if fitting and shutil.which("uv"):
        return (*fitting[0], False)
    if fitting:
        python, version = fitting[0]
        package = f"python{dotted(version[:2])}-venv (Debian, Ubuntu)"
        raise Stop(f"Python {dotted(version)} ({python}) has no venv; install the package {package} or uv")
    listed = ", ".join(f"{dotted(version)} ({python})" for version, python in found.items())
    raise Stop(f"Python {dotted(MINIMUM)} or newer is needed; found: {listed or 'none that starts'}")


def environment(venv):
    """Return the variables for the .venv's programs: it comes first on PATH, and no other Python's paths."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONHOME", "PYTHONPATH")}
    env["VIRTUAL_ENV"] = str(venv)
    env["PATH"] = str(python_of(venv).parent) + os.pathsep + env.get("PATH", "")
    return env


def call(command, root):
    """Run a command in ``root`` and return its exit status; a stopped run leaves no child behind."""
    print("$ " + " ".join(map(str, command)), flush=True)
    child = subprocess.Popen([str(word) for word in command], cwd=str(root), env=environment(root / ".venv"))
    try:
        code = child.wait()
    except BaseException as stopped:
        # Ctrl-C in a terminal has reached the child as well, which may be closing its files.
        if not isinstance(stopped, KeyboardInterrupt):
            child.terminate()
        for end, seconds in ((child.terminate, 20), (child.kill, 5)):
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                child.wait(seconds)
                break
            end()
        raise
    return 128 - code if code < 0 else code  # ended by a signal: as a shell says it


def python_of(venv):
    return venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def try_lock(file):
    """Take the lock of an open file unless another process has it; the system frees it when that one ends."""
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        pass
    return True


@contextmanager
def locked(path):
    """Hold the lock at ``path``: two runs at once install one after the other."""
    with path.open("a") as file:
        if not try_lock(file):
            say("waiting for another run that is installing")
            while not try_lock(file):
                time.sleep(0.2)
        yield


def stamp(root, version):
    """Return the hash of all that an installation depends on, the checkout's own place included."""
    digest = hashlib.sha256()
    for part in (
        (root / "pyproject.toml").read_bytes(),
        (root / "constraints.txt").read_bytes(),
        dotted(version).encode(),
        os.fsencode(str(root)),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


def local_torch(settings, pin, version):
    """Return the torch wheel that pip's settings (``pip config list``) find in a local folder, or None."""
    tag = "-cp{}{}-".format(*version[:2])
    for word in re.findall(r"[^\s'\"=]+", settings):
        folder = Path(re.sub("^file://", "", word))
        if folder.is_absolute() and folder.is_dir():
            for wheel in sorted((*folder.glob(f"torch-{pin}*.whl"), *folder.glob(f"torch/torch-{pin}*.whl"))):
                if tag in wheel.name and platform.machine() in wheel.name:
                    return wheel
    return None


def download_size(root, settings, version):
    """Return the line that says how much an installation into an empty .venv downloads."""
    pin = re.search(r"^torch==(\S+)", (root / "constraints.txt").read_text(encoding="utf-8"), re.M)
    wheel = local_torch(settings, pin.group(1), version) if pin else None
    if wheel:
        return f"about {OTHERS_MB} MB to download; torch comes from {wheel}"
    torch = TORCH_MB.get(sys.platform, max(TORCH_MB.values()))
    size = torch + OTHERS_MB
    text = f"up to {size / 1000:.1f} GB" if size >= 1000 else f"up to {size} MB"
    if torch >= 1000:
        text += ", most of it torch's CUDA build; a pip configured for PyTorch's CPU builds downloads 0.4 GB"
    return text + "; what pip has in its cache is not downloaded again"


def make(venv):
    """Make the environment afresh; the lock inside stays."""
    python, version, has_venv = choose_python(candidates())
    say(f"making .venv with Python {dotted(version)} ({python})")
    for entry in venv.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(str(entry))
        elif entry.name != LOCK:
            entry.unlink()
    if has_venv:
        command = [python, "-m", "venv", venv]
    else:
        command = ["uv", "venv", "--seed", "--allow-existing", "--python", python, venv]
    code = call(command, venv.parent)
    if code:
        raise Stop(f"Python {dotted(version)} ({python}) could not make .venv, see above", code)


def prepare(root):
    """Return the .venv's Python with everything installed; make, repair or refresh the .venv where needed."""
    venv, python = root / ".venv", python_of(root / ".venv")
    try:
        venv.mkdir(exist_ok=True)
    except OSError as error:
        raise Stop(f"cannot make the folder {venv}: {error.strerror}") from None
    with locked(venv / LOCK):
        file = venv / STAMP
        last = file.read_text() if file.is_file() else ""
        version = version_of(python, "pip")
        # An installation that was cut off may hold torn packages that pip takes for whole ones.
        if version is None or version < MINIMUM or last == UNFINISHED:
            make(venv)
            last, version = "", version_of(python, "pip")
            if version is None:
                raise Stop(f"the new {venv} has no working pip")
        wanted = stamp(root, version)
        if last != wanted:
            install(root, python, version, file)
            file.write_text(wanted)
    return python


def install(root, python, version, file):
    """Install the checkout and its tools as constraints.txt pins them, with pip as it is configured."""
    file.write_text(UNFINISHED)
    asked = [str(python), "-m", "pip", "config", "list"]
    settings = subprocess.run(asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode()
    say("installing into .venv: " + download_size(root, settings, version))
    code = call([python, "-m", "pip", "install", "-e", ".[dev]", "-c", "constraints.txt"], root)
    if code:
        raise Stop("pip could not install, see above; the same command tries again", code)


def main(arguments, root):
    """Run a command in the .venv and return the first exit status that is not 0."""
    if not arguments or arguments[0] not in COMMANDS:
        given = arguments[0] if arguments else "nothing"
        raise Stop(f"given: {given}; accepted: {', '.join(COMMANDS)}")
    python = prepare(root)
    steps = [[python, *step] for step in COMMANDS[arguments[0]]]
    steps[-1] += arguments[1:]
    failed = []
    for step in steps:  # all of them, so that one run shows everything
        code = call(step, root)
        if code:
            failed.append((code, " ".join(step[1:])))
    for code, step in failed:
        say(f"failed (exit status {code}): python {step}")
    return failed[0][0] if failed else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent.parent))
    except Stop as stop:
        print(f"run.py: {stop}", file=sys.stderr, flush=True)
        sys.exit(stop.code)
    except KeyboardInterrupt:
        sys.exit(130)
