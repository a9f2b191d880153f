"""The folder a run works in: a lock, a job description, results that appear under their name only when done.

Work lies in ``<out>.partial/``; ``<out>`` itself appears by one rename at the end. A killed run leaves the
partial folder, which a resumed run goes on from.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from deepcontrast.atomic import write_json
from deepcontrast.errors import InputError, ModelFileError, OutputError, OutputExistsError
from deepcontrast.output_checks import check_out, is_complete, partial_folder, path_of

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; two runs on one folder are then not told apart
    fcntl = None  # type: ignore[assignment]


TAKEN_OVER = ("threads", "plan", "looks_at", "bank_mb")
"""What a resumed run does as the first one did, whatever it would do by itself."""


@dataclass(frozen=True, eq=False)
class Workdir:
    """An open run.

    Attributes:
        out: where the result will be.
        path: ``<out>.partial``, for what a resumed run needs.
        result: ``<out>.partial/result``, which becomes ``out``.
        resumed: whether an earlier run's work was found.
        replace: whether an older result may stand at ``out``.
        machine: what the run began on; a resumed run is to use the same.
    """

    out: Path
    path: Path
    result: Path
    resumed: bool
    replace: bool
    machine: Mapping[str, Any]


def is_done(out: Path, job: Mapping[str, Any], complete: Mapping[str, Any] | None = None) -> bool:
    """Return, for ``--resume``, whether ``out`` is the complete result of a job; what is left of it is removed.

    Args:
        out: the result.
        job: what identifies the run.
        complete: the job that ``out`` is the result of; by default what its run.json says.

    Raises:
        InputError: it is complete, but of another run, and no unfinished run lies beside it; names the difference.
    """
    if complete is None:
        if not is_complete(out):
            return False
        complete = json.loads((out / "run.json").read_text(encoding="utf-8"))
    path, wanted = partial_folder(out), json.loads(json.dumps(job))
    unfinished = _read_job(path)
    difference = _difference({key: complete.get(key) for key in wanted}, wanted)
    if difference:
        # An interrupted --overwrite lies beside the old result and is looked at by the run itself.
        if unfinished is None:
            raise InputError(f"'{out}' is complete, but of another run ({difference})")
        return False
    # Killed between the rename and the tidying, or while it tidied, which begins with the job and ends with the lock.
    half_tidied = unfinished is None and path.is_dir() and ((path / "lock").exists() or not any(path.iterdir()))
    if half_tidied or (unfinished is not None and not _difference(unfinished[0], wanted)):
        with open(path / "lock", "w") as lock:
            _lock(lock, path)
            _discard(path)
    return True


def begun_on(out: Path) -> Mapping[str, Any]:
    """Return what the unfinished run beside ``out`` began on; nothing where there is none."""
    found = _read_job(partial_folder(out))
    return {} if found is None else found[1]


@contextlib.contextmanager
def working(
    out: Path,
    job: Mapping[str, Any] | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
    folder: bool = True,
    machine: Mapping[str, Any] | None = None,
) -> Iterator[Workdir]:
    """Open ``<out>.partial`` under a lock; what is in its ``result`` becomes ``out`` by :func:`finish`.

    Where the block fails and has left nothing that a resumed run could use, every trace of it is removed.
    Where it has, the error gets a note that says so.

    Args:
        out: where the result will be.
        job: what identifies the run: settings, seed, fingerprints of the input; ``None`` for a run that is too
            short to be resumed and leaves nothing behind.
        resume: go on with an earlier run of the same job.
        overwrite: start again, whatever is there; ``out`` is kept until the new result is complete.
        inputs: what the run reads.
        folder: whether the result is a folder; else the block ends with :func:`finish_single`.
        machine: what the run begins on. A resumed run finds the first one's in ``Workdir.machine``; another
            ``threads`` or ``plan`` is thereby taken over, another value of the rest is a difference.

    Raises:
        OutputExistsError: another process is at work there.
        InputError: the earlier run was another job; the message names the difference.
    """
    check_out(out, resume=resume, overwrite=overwrite, inputs=inputs, folder=folder)
    path = partial_folder(out)
    made = _make_folders(path)
    with open(path / "lock", "w") as lock:
        _lock(lock, path)
        _put_old_back(path, out)
        wanted, machine = json.loads(json.dumps(job, sort_keys=True)), dict(machine or {})
        found = _read_job(path) if resume else None
        if found is not None:
            _refuse_other_job(path, found, wanted, machine)
            machine = found[1]
        resumed = found is not None
        try:
            if not resumed:
                _clear(path)
                if job is not None:
                    write_json(path / "job.json", {"job": wanted, "machine": machine})
            result = path / "result"
            # What a resumed run finds here was written after all else; it is quick to write again.
            shutil.rmtree(result, ignore_errors=True)
            result.mkdir()
            yield Workdir(out, path, result, resumed, overwrite or resumed, machine)
        except BaseException as error:
            _put_old_back(path, out)
            wrong_input = isinstance(error, (InputError, ModelFileError))
            if job is None or not worth_resuming(path):
                _discard(path)
                for parent in made:
                    with contextlib.suppress(OSError):
                        parent.rmdir()
            elif not wrong_input:
                error.add_note("--resume goes on")
            raise


def finish(work: Workdir, run: Mapping[str, Any]) -> None:
    """Write run.json as complete and let the result appear under its name.

    An older result is kept in the partial folder until the new one stands in its place.

    Raises:
        OutputExistsError: something appeared at ``out`` meanwhile.
    """
    write_json(work.result / "run.json", {**run, "state": "complete"})
    out = path_of(work.out)
    if out.is_dir() and not any(out.iterdir()):
        if out == Path.cwd():
            # Replaced, it would no longer be the folder that the user's shell is in.
            for entry in sorted(work.result.iterdir(), key=lambda entry: entry.name == "run.json"):
                os.replace(entry, out / entry.name)
            _discard(work.path)
            return
        out.rmdir()
    _put_in_place(work, work.result)


def finish_single(work: Workdir, made: Path, beside: Mapping[Path, Path] | None = None) -> None:
    """Let what was written in the partial folder, a file or an OME-Zarr, appear under its name.

    Args:
        work: the run.
        made: what was written.
        beside: what else was, by where it belongs; it is there before ``out`` is.

    Raises:
        OutputExistsError: something appeared at ``out`` meanwhile.
    """
    for place, one in (beside or {}).items():
        # What is not there any more was moved by the run that this one goes on with.
        if one.exists():
            _move(one, place, work, work.path / f"old {place.name}")
    _put_in_place(work, made)


def _put_in_place(work: Workdir, made: Path) -> None:
    """Move what was made to where it belongs; what stood there is kept until then."""
    _move(made, work.out, work, work.path / "old")
    _discard(work.path)


def _move(made: Path, place: Path, work: Workdir, old: Path) -> None:
    out = path_of(place)
    if out.exists():
        if not work.replace:
            raise OutputExistsError(f"'{place}' appeared while the run was at work; the result is not written")
        if out.is_dir():
            # Only a file is replaced in one go.
            remove(old)
            os.replace(out, old)
    os.replace(made, out)


def _make_folders(path: Path) -> list[Path]:
    """Make a folder and those above it; return those above that were not there, the deepest first."""
    made = [parent for parent in path.parents if not parent.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make '{path}': {error.strerror or error}") from None
    return made


def _put_old_back(path: Path, out: Path) -> None:
    """Undo a :func:`finish` that was stopped between its two renames."""
    old = path / "old"
    if old.exists() and not path_of(out).exists():
        os.replace(old, path_of(out))


def _read_job(path: Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return job and machine of an unfinished run, or ``None`` where there is none."""
    try:
        table = json.loads((path / "job.json").read_text(encoding="utf-8"))
        return dict(table["job"]), dict(table["machine"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_other_job(
    path: Path, found: tuple[dict[str, Any], dict[str, Any]], wanted: dict[str, Any], machine: dict[str, Any]
) -> None:
    job, before = found
    kept = {key: value for key, value in before.items() if key not in TAKEN_OVER}
    given = {key: value for key, value in machine.items() if key not in TAKEN_OVER}
    difference = _difference(job, wanted) or _difference(kept, given, "machine")
    if difference:
        raise InputError(f"cannot resume '{path}': it was another run ({difference})")


def worth_resuming(path: Path) -> bool:
    """Return whether an unfinished run has a checkpoint, a pass or a shard."""
    ours = {"lock", "job.json", "result", "old"}
    kept = (entry for entry in path.iterdir() if entry.name not in ours)
    files = (file for entry in kept for file in (entry.rglob("*") if entry.is_dir() else [entry]) if file.is_file())
    # Half a file, an empty journal, or a zarr that no shard was written into is nothing to go on from.
    return any(
        file.suffix not in (".tmp", ".partial") and file.name != "zarr.json" and file.stat().st_size for file in files
    )


def _discard(path: Path) -> None:
    """Remove the partial folder as far as it goes: what is left is tidied by nobody's error."""
    with contextlib.suppress(OSError):
        _clear(path)
    shutil.rmtree(path, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _clear(path: Path) -> None:
    """Remove everything but the lock; the job first, without which the rest is nothing to go on from."""
    (path / "job.json").unlink(missing_ok=True)
    for entry in path.iterdir():
        if entry.name != "lock":
            remove(entry)


def _lock(lock: IO[str], path: Path) -> None:
    """Take the lock; the system gives it back when the process ends, however it ends."""
    if fcntl is None:
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The run that held it may have tidied up between our opening and locking it.
        held = os.path.samestat(os.fstat(lock.fileno()), os.stat(path / "lock"))
    except OSError:
        held = False
    if not held:
        raise OutputExistsError(f"another run is at work in '{path}'")


def _difference(old: Any, new: Any, key: str = "") -> str:
    """Return the first difference of two JSON values in words, or an empty string."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            found = _difference(old.get(name), new.get(name), f"{key}.{name}" if key else name)
            if found:
                return found
        return ""
    return "" if old == new else f"{key}: then {json.dumps(old)}, now {json.dumps(new)}"
