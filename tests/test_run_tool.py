"""tools/run.py: which Python it takes, when it installs, what it says. No network and no real environment."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "run.py"
HERE = Path(sys.executable)

spec = importlib.util.spec_from_file_location("run_tool", TOOL)
assert spec is not None
assert spec.loader is not None
run: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(run)


def fake_python(folder: Path, name: str, version: str, *, venv: bool = True, pip: bool = True) -> Path:
    """Write a program that answers like an interpreter of a version."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    refuse = "" if venv else 'case "$*" in *ensurepip*) exit 1;; esac\n'
    refuse += "" if pip else "case \"$*\" in *'import pip'*) exit 1;; esac\n"
    file.write_text(f"#!/bin/sh\n{refuse}echo {version}\n")
    file.chmod(0o755)
    return file


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing but an old running Python; the folder that is its PATH."""
    path = tmp_path / "path"
    path.mkdir()
    old = fake_python(tmp_path / "old", "python3", "3.8.10")
    monkeypatch.setattr(sys, "_base_executable", str(old), raising=False)
    monkeypatch.setenv("PATH", f"{path}:/bin:/usr/bin")
    monkeypatch.setattr(os, "get_exec_path", lambda env=None: [str(path)])
    monkeypatch.setattr(run.shutil, "which", lambda name: None)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    return path


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose commands are written down (``run.calls``) instead of run."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "constraints.txt").write_text("torch==2.13.0\n")
    calls: list[list[str]] = []

    def call(command: list[object], cwd: Path) -> int:
        words = [str(word) for word in command]
        calls.append(words)
        if "venv" in words:
            fake_python(cwd / ".venv" / "bin", "python", "3.11.7")
        return 0

    monkeypatch.setattr(run, "call", call)
    monkeypatch.setattr(run, "calls", calls, raising=False)
    monkeypatch.setattr(run, "choose_python", lambda pythons: (HERE, (3, 11, 7), True))
    return root


def kinds() -> list[str]:
    """Return what was done to the environment, in order."""
    return ["make" if "venv" in words else "install" for words in run.calls]


def test_python_3_6_can_read_the_tool() -> None:
    tree = ast.parse(TOOL.read_text(), feature_version=(3, 6))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names} | {
        node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
    }
    assert imported <= sys.stdlib_module_names
    assert "__future__" not in imported  # its annotations came with 3.7


def test_running_python_is_taken_when_it_fits(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_python(bare, "python3.14", "3.14.1")
    monkeypatch.setattr(sys, "_base_executable", str(fake_python(bare / "own", "python", "3.12.4")))
    assert run.choose_python(run.candidates()) == (bare / "own" / "python", (3, 12, 4), True)


def test_tested_python_comes_first_on_the_path(bare: Path) -> None:
    for name, version in (("python3", "3.9.2"), ("python3.14", "3.14.1"), ("python3.11", "3.11.2")):
        fake_python(bare, name, version)
    assert run.choose_python(run.candidates()) == (bare / "python3.11", (3, 11, 2), True)


def test_switched_off_pyenv_stand_in_is_passed_over(bare: Path, tmp_path: Path) -> None:
    stand_in = fake_python(bare, "python3.13", "")
    stand_in.write_text("#!/bin/sh\necho 'pyenv: python3.13: command not found' >&2\nexit 127\n")
    real = fake_python(tmp_path / "pyenv" / "versions" / "3.13.0" / "bin", "python", "3.13.0")
    assert run.choose_python(run.candidates()) == (real, (3, 13, 0), True)


def test_too_old_pythons_are_named_in_one_line(bare: Path) -> None:
    fake_python(bare, "python3", "3.10.1")
    with pytest.raises(run.Stop) as stop:
        run.choose_python(run.candidates())
    line = str(stop.value)
    assert re.fullmatch(r"Python 3\.11 or newer is needed; found: 3\.8\.10 \(.+\), 3\.10\.1 \(.+\)", line)
    assert stop.value.code == 2


def test_python_without_venv_names_the_package(bare: Path) -> None:
    fake_python(bare, "python3.12", "3.12.1", venv=False)
    with pytest.raises(run.Stop, match=r"^Python 3\.12\.1 .* python3\.12-venv .* or uv$"):
        run.choose_python(run.candidates())


def test_python_without_venv_goes_to_another_or_to_uv(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = fake_python(bare, "python3.12", "3.12.1", venv=False)
    monkeypatch.setattr(run.shutil, "which", lambda name: "/usr/bin/" + name)
    assert run.choose_python(run.candidates()) == (lacking, (3, 12, 1), False)
    whole = fake_python(bare, "python3.13", "3.13.0")
    assert run.choose_python(run.candidates()) == (whole, (3, 13, 0), True)


def test_real_interpreter_says_its_version() -> None:
    assert run.version_of(HERE) == sys.version_info[:3]
    assert run.version_of(HERE, "no_such_module") is None
    assert run.version_of(ROOT / "no_such_python") is None


def test_fresh_checkout_is_made_and_installed_once(checkout: Path) -> None:
    python = run.prepare(checkout)
    assert python == checkout / ".venv" / "bin" / "python"
    assert kinds() == ["make", "install"]
    assert run.calls[1][1:] == ["-m", "pip", "install", "-e", ".[dev]", "-c", "constraints.txt"]
    assert run.prepare(checkout) == python
    assert kinds() == ["make", "install"]


def test_uv_makes_the_environment_where_venv_is_missing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "choose_python", lambda pythons: (HERE, (3, 11, 7), False))
    run.prepare(checkout)
    assert run.calls[0][:3] == ["uv", "venv", "--seed"]


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_file_is_installed_again(checkout: Path, name: str) -> None:
    run.prepare(checkout)
    (checkout / name).write_text("torch==2.13.1\n")
    run.prepare(checkout)
    assert kinds() == ["make", "install", "install"]


def test_environment_without_a_stamp_is_installed_again(checkout: Path) -> None:
    run.prepare(checkout)
    (checkout / ".venv" / run.STAMP).unlink()
    run.prepare(checkout)
    assert kinds() == ["make", "install", "install"]


def test_stamp_depends_on_python_and_place(checkout: Path, tmp_path: Path) -> None:
    one = run.stamp(checkout, (3, 11, 7))
    assert one == run.stamp(checkout, (3, 11, 7))
    assert one != run.stamp(checkout, (3, 11, 8))
    moved = checkout.rename(tmp_path / "moved")  # the editable installation still points to the old place
    assert one != run.stamp(moved, (3, 11, 7))


@pytest.mark.parametrize("interpreter", ["missing", "dangling", "old", "no pip"])
def test_half_made_environment_is_made_afresh(checkout: Path, interpreter: str) -> None:
    folder = checkout / ".venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "left_over").touch()
    if interpreter == "dangling":
        (folder / "python").symlink_to(checkout / "gone")
    elif interpreter != "missing":
        old = interpreter == "old"
        fake_python(folder, "python", "3.9.1" if old else "3.11.7", pip=old)
    run.prepare(checkout)
    assert kinds() == ["make", "install"]
    assert not (folder / "left_over").exists()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, None])
def test_installation_cut_off_is_made_afresh(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException] | None
) -> None:
    recorded = run.call

    def call(command: list[object], cwd: Path) -> int:
        if "pip" not in command:
            return int(recorded(command, cwd))
        if stop is not None:
            raise stop
        return 3

    with monkeypatch.context() as patch:
        patch.setattr(run, "call", call)
        with pytest.raises(stop or run.Stop) as stopped:
            run.prepare(checkout)
    if stop is None:
        assert stopped.value.code == 3
    run.prepare(checkout)
    assert kinds() == ["make", "make", "install"]


def test_two_runs_install_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order: list[str] = []

    def second() -> None:
        with run.locked(tmp_path / "lock"):
            order.append("second")

    thread = threading.Thread(target=second)
    with run.locked(tmp_path / "lock"):
        thread.start()
        time.sleep(0.1)
        order.append("first")
    thread.join(timeout=5)
    assert order == ["first", "second"]
    assert "waiting" in capsys.readouterr().out


def test_lock_of_a_killed_run_is_free(tmp_path: Path) -> None:
    code = "import runpy, sys, time, pathlib\nlocked = runpy.run_path(sys.argv[1])['locked']\n"
    code += "with locked(pathlib.Path(sys.argv[2])): print('held', flush=True); time.sleep(60)"
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", code, str(TOOL), str(lock)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with lock.open("a") as file:
            assert not run.try_lock(file)
        holder.kill()
        holder.wait()
        with lock.open("a") as file:
            assert run.try_lock(file)


def test_download_size_is_said_before_the_installation(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.prepare(checkout)
    assert re.search(r"to \d+(\.\d)? [MG]B|about \d+ MB to download", capsys.readouterr().out)


def test_download_size_knows_the_platform_and_a_local_torch(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run.sys, "platform", "linux")
    monkeypatch.setattr(run.platform, "machine", lambda: "x86_64")
    assert run.download_size(checkout, "", (3, 11, 7)).startswith("up to 2.9 GB, most of it torch's CUDA build")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    settings = f"global.find-links='{wheels} file://{wheels}/more'\n:env:.timeout='180'\n"
    for name in ("2.13.0-cp312-cp312-linux_x86_64", "2.12.0-cp311-cp311-linux_x86_64"):
        (wheels / f"torch-{name}.whl").touch()
    assert "GB" in run.download_size(checkout, settings, (3, 11, 7))
    (wheels / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    assert run.download_size(checkout, settings, (3, 11, 7)).startswith("about 185 MB to download; torch comes")
    monkeypatch.setattr(run.sys, "platform", "darwin")
    assert run.download_size(checkout, "", (3, 11, 7)).startswith("up to 296 MB;")


def test_every_step_runs_and_the_first_failure_is_returned(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run.prepare(checkout)
    steps: list[list[str]] = []

    def call(command: list[object], cwd: Path) -> int:
        steps.append([str(word) for word in command[1:]])
        return {"mypy": 4, "pytest": 5}.get(steps[-1][1], 0)

    monkeypatch.setattr(run, "call", call)
    assert run.main(["test", "-k", "tiles"], checkout) == 4
    assert [" ".join(step) for step in steps] == [
        "-m ruff check .",
        "-m ruff format --check .",
        "-m mypy",
        "-m pytest -k tiles",
    ]
    assert "failed (exit status 4): python -m mypy\n" in capsys.readouterr().out


def test_child_runs_in_the_checkout_with_the_environments_programs_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    code = "import os, sys; e = os.environ; sys.exit(7 * (os.getcwd() == sys.argv[1] and "
    code += "'PYTHONPATH' not in e and e['PATH'].startswith(e['VIRTUAL_ENV'] + os.sep)))"
    assert run.call([HERE, "-c", code, str(tmp_path.resolve())], tmp_path) == 7


@pytest.mark.parametrize(("given", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_run_leaves_no_child(tmp_path: Path, given: signal.Signals, code: int) -> None:
    """As Ctrl-C in a terminal does, SIGINT goes to the whole group; SIGTERM to the tool alone."""
    tools = tmp_path / "tools"
    tools.mkdir()
    work = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"
    source = TOOL.read_text().replace("python = prepare(root)", "python = sys.executable")
    (tools / "run.py").write_text(source.replace('("-m", "mypy"),', f'("-c", {work!r}),'))
    with subprocess.Popen(
        [sys.executable, str(tools / "run.py"), "test"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        # A shell's background job, as this suite may be, ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as tool:
        assert tool.stdout is not None
        child = next(int(line) for line in tool.stdout if line.strip().isdigit())
        if given is signal.SIGINT:
            os.killpg(tool.pid, given)
        else:
            tool.send_signal(given)
        assert tool.wait(timeout=10) == code
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)


@pytest.mark.parametrize("arguments", [[], ["tests"]])
def test_unknown_command_is_one_line(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, str(TOOL), *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    given = arguments[0] if arguments else "nothing"
    assert done.stderr == f"run.py: given: {given}; accepted: demo, test, evidence\n"


def test_makefile_targets_are_one_line_each() -> None:
    lines = (ROOT / "Makefile").read_text().splitlines()[1:]
    assert lines == [f"{name}: ; @python3 tools/run.py {name}" for name in run.COMMANDS]


def test_constraints_are_plain_pins_that_fit_the_requirements() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9a-z.]+", pin) for pin in pins)
    assert "torch==2.13.0" in pins
    pinned = {re.sub(r"[-_.]+", "-", pin.split("==")[0]).lower() for pin in pins}
    asked = re.findall(r'^  "([A-Za-z0-9_-]+)>=', (ROOT / "pyproject.toml").read_text(), re.M)
    assert {name.lower().replace("_", "-") for name in asked} <= pinned


def test_no_file_names_this_machine_or_a_registry() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    # In pieces, so that this file does not hold them.
    words = [["", "work", ""], ["", "tmp", "w", ""], ["", "root", ""], ["", "opt", "wheels"]]
    hosts = [["pypi", "org"], ["pythonhosted", "org"], ["download", "pytorch"]]
    parts = ["/".join(word) for word in words] + [".".join(host) for host in hosts]
    pattern = re.compile("|".join(map(re.escape, parts)).encode())
    files = [file for name in listed.stdout.decode().split("\0") if name and (file := ROOT / name).is_file()]
    found = [(file.name, match[0]) for file in files for match in pattern.finditer(file.read_bytes())]
    assert files
    assert found == []
