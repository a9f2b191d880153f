"""The folder a run works in: a lock, a job description, results that appear under their name only when done.

Work lies in ``<out>.partial/``; ``<out>`` itself appears by one rename at the end. A killed run leaves the
partial folder, which a resumed run goes on from.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deepcontrast.errors import InputError, ModelFileError, OutputError, OutputExistsError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; two runs on one folder are then not told apart
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True, eq=False)
class Workdir:
    """An open run.

    Attributes:
        out: where the result will be.
        path: ``<out>.partial``, for what a resumed run needs.
        result: ``<out>.partial/result``, which becomes ``out``.
        resumed: whether an earlier run's work was found.
    """

    out: Path
    path: Path
    result: Path
    resumed: bool


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all: beside it, flushed, fsynced, then renamed.

    Raises:
        OutputError: disk full, no permission, no such folder; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"cannot write '{path}': {error.strerror or error}") from None


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as JSON with sorted keys, atomically. NaN and infinity are refused."""
    text = json.dumps(table, sort_keys=True, indent=1, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def is_complete(out: Path) -> bool:
    """Return whether ``out`` holds a finished run: its run.json, written last, says so."""
    try:
        state = json.loads((out / "run.json").read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(state == "complete")


def check_out(out: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before anything is read or written, an output that cannot be worked on.

    Raises:
        OutputExistsError: something is there and neither flag says what to do.
        InputError: both flags.
        OutputError: no permission to write there.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one")
    partial = _partial(out)
    if out.exists() and not overwrite:
        if not out.is_dir():
            raise OutputExistsError(f"output '{out}' exists and is a file; choose another --out or --overwrite")
        if any(out.iterdir()) and not (resume and is_complete(out)):
            raise OutputExistsError(f"output '{out}' exists; choose another --out, or --overwrite it")
    if partial.exists() and not (resume or overwrite):
        raise OutputExistsError(
            f"an unfinished run lies in '{partial}'; --resume goes on with it, --overwrite starts again"
        )
    if resume and partial.exists() and not partial.is_dir():
        raise OutputExistsError(f"'{partial}' is in the way: it is a file")
    parent = next(p for p in [out.parent, *out.parent.parents] if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"no permission to write in '{parent}'")
    # Root passes every permission test; only trying tells of a read-only file system.
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write in '{parent}': {error.strerror or error}") from None


def check_same_job(out: Path, job: Mapping[str, Any]) -> None:
    """Refuse to take a complete result for that of another job.

    Raises:
        InputError: names the difference.
    """
    run = json.loads((out / "run.json").read_text(encoding="utf-8"))
    difference = _difference({key: run.get(key) for key in job}, json.loads(json.dumps(job)))
    if difference:
        raise InputError(f"'{out}' is complete, but of another run ({difference})")


def check_space(out: Path, needed: int) -> None:
    """Refuse to start where fewer than ``needed`` bytes are free.

    Raises:
        OutputError: says how much is needed and how much there is.
    """
    parent = next(p for p in [out.parent, *out.parent.parents] if p.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OutputError(
            f"disk full: '{parent}' has {free / 1e9:.2f} GB free, the run needs about {needed / 1e9:.2f} GB"
        )


@contextlib.contextmanager
def working(out: Path, job: Mapping[str, Any], *, resume: bool = False, overwrite: bool = False) -> Iterator[Workdir]:
    """Open ``<out>.partial`` under a lock; what is in its ``result`` becomes ``out`` by :func:`finish`.

    Args:
        out: where the result will be.
        job: what identifies the run: settings, seed, fingerprints of the input.
        resume: go on with an earlier run of the same job.
        overwrite: start again, whatever is there; ``out`` is kept until the new result is complete.

    Raises:
        OutputExistsError: another process is at work there.
        InputError: the earlier run was another job; the message names the difference.
    """
    check_out(out, resume=resume, overwrite=overwrite)
    path = _partial(out)
    fresh = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make '{path}': {error.strerror or error}") from None
    with open(path / "lock", "w") as lock:
        _lock(lock, path)
        if overwrite:
            _clear(path)
        wanted = json.loads(json.dumps(job, sort_keys=True))
        found = path / "job.json"
        resumed = resume and not fresh and found.exists()
        if resumed:
            difference = _difference(json.loads(found.read_text(encoding="utf-8")), wanted)
            if difference:
                raise InputError(f"cannot resume '{path}': it was another run ({difference})")
        else:
            write_json(found, wanted)
        result = path / "result"
        # What a resumed run finds here was written after all else; it is quick to write again.
        shutil.rmtree(result, ignore_errors=True)
        result.mkdir()
        try:
            yield Workdir(out, path, result, resumed)
        except (InputError, ModelFileError):
            # Nothing that could be resumed came of a wrong input.
            if not resumed:
                shutil.rmtree(path, ignore_errors=True)
            raise


def finish(work: Workdir, run: Mapping[str, Any]) -> None:
    """Write run.json as complete and let the result appear under its name."""
    write_json(work.result / "run.json", {**run, "state": "complete"})
    old = work.out.with_name(work.out.name + ".old")
    if work.out.exists():
        if work.out.is_dir() and not any(work.out.iterdir()):
            work.out.rmdir()
        else:
            _remove(old)
            os.replace(work.out, old)
    os.replace(work.result, work.out)
    _remove(old)
    shutil.rmtree(work.path, ignore_errors=True)


def _partial(out: Path) -> Path:
    return out.with_name(out.name + ".partial")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    for entry in path.iterdir():
        if entry.name != "lock":
            _remove(entry)


def _lock(lock: IO[str], path: Path) -> None:
    """Take the lock; the system gives it back when the process ends, however it ends."""
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise OutputExistsError(f"another run is at work in '{path}'") from None


def _difference(old: Any, new: Any, key: str = "") -> str:
    """Return the first difference of two JSON values in words, or an empty string."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            found = _difference(old.get(name), new.get(name), f"{key}.{name}" if key else name)
            if found:
                return found
        return ""
    return "" if old == new else f"{key}: then {json.dumps(old)}, now {json.dumps(new)}"
