"""What --out may be: what is refused before anything is read or written."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deepcontrast.errors import InputError, OutputError, OutputExistsError


def check_out(
    out: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    inputs: Sequence[Path] = (),
    folder: bool = True,
) -> None:
    """Refuse, before anything is read or written, an output that cannot be worked on.

    Args:
        out: where the result will be.
        resume: go on with an earlier run.
        overwrite: replace what is there: an empty folder or a result of ours.
        inputs: what the run reads; none may be destroyed by it.
        folder: whether the result is a folder, not a file or an OME-Zarr.

    Raises:
        OutputExistsError: something is there and neither flag says what to do, or it is not ours to replace.
        InputError: both flags, or an input that would be destroyed.
        OutputError: no permission to write there.
    """
    if resume and overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one")
    full = path_of(out)
    if not full.name or full.is_mount():
        raise OutputExistsError(f"output '{out}' is a mount point; give a folder inside it")
    partial = partial_folder(out)
    if folder:
        _check_folder(out, resume=resume, overwrite=overwrite)
    elif out.is_dir() and out.suffix.lower() != ".zarr":
        raise OutputExistsError(f"output '{out}' is a folder; give the name of a file")
    elif out.exists() and not (overwrite or resume):
        raise OutputExistsError(f"output '{out}' exists; choose another --out, or --overwrite it")
    if partial.exists() and not partial.is_dir():
        raise OutputExistsError(f"'{partial}' is in the way: it is a file")
    if partial.is_dir() and any(partial.iterdir()) and not (partial / "lock").is_file():
        raise OutputExistsError(f"'{partial}' is in the way: it is no unfinished run; move it or choose another --out")
    if (partial / "job.json").exists() and not (resume or overwrite):
        raise OutputExistsError(
            f"an unfinished run lies in '{partial}'; --resume goes on with it, --overwrite starts again"
        )
    check_inputs_stay(out, inputs)
    check_inputs_stay(partial, inputs)
    check_writable(out)


def check_inputs_stay(out: Path, inputs: Sequence[Path]) -> None:
    """Refuse an output that would destroy what the run reads.

    Raises:
        InputError: an input is the output, or lies in it.
    """
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise InputError(f"'{path}' is an input and would be destroyed by --out '{out}'; choose another --out")


def check_writable(out: Path) -> None:
    """Refuse an output whose folder, or the nearest one above that is there, takes no file.

    Raises:
        OutputError: no permission, a read-only file system, a file where a folder is needed.
    """
    parent = _nearest_folder(out)
    if not parent.is_dir():
        raise OutputError(f"cannot write '{out}': '{parent}' is a file, not a folder")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(f"no permission to write in '{parent}'")
    # Root passes every permission test; only trying tells of a read-only file system.
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        raise OutputError(f"cannot write in '{parent}': {error.strerror or error}") from None


def check_space(out: Path, needed: int) -> None:
    """Refuse to start where fewer than ``needed`` bytes are free.

    Raises:
        OutputError: says how much is needed and how much there is.
    """
    parent = _nearest_folder(out)
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise OutputError(
            f"disk full: '{parent}' has {free / 1e9:.2f} GB free, the run needs about {needed / 1e9:.2f} GB"
        )


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder, 0 where there is none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def is_complete(out: Path) -> bool:
    """Return whether ``out`` holds a finished run: its run.json, written last, says so."""
    try:
        state = json.loads((out / "run.json").read_text(encoding="utf-8"))["state"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(state == "complete")


def path_of(out: Path) -> Path:
    """Return a path with its links followed and its dots resolved, so that it has a name and a folder."""
    return Path(os.path.realpath(out))


def partial_folder(out: Path) -> Path:
    """Return ``<out>.partial``, where the work lies until it is complete."""
    full = path_of(out)
    return full.with_name(full.name + ".partial")


def _check_folder(out: Path, *, resume: bool, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise OutputExistsError(f"output '{out}' exists and is a file; choose another --out")
    if not any(out.iterdir()):
        return
    if overwrite and not is_complete(out):
        raise OutputExistsError(
            f"output '{out}' is a folder with other files in it, no result of deepcontrast; choose another --out"
        )
    if not overwrite and not (resume and is_complete(out)):
        raise OutputExistsError(f"output '{out}' exists; choose another --out, or --overwrite it")


def _nearest_folder(out: Path) -> Path:
    """Return the folder that ``out`` will be in, or the nearest above it that is there."""
    full = path_of(out)
    return next(p for p in full.parents if p.exists())
