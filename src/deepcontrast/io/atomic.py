"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from deepcontrast.errors import OutputExistsError
from deepcontrast.io.names import is_zarr


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of ``path`` when the block ends well and vanishes when it does not.

    It lies beside ``path``, because a file can be replaced at one stroke within one file system only, and has
    the mode that the umask gives.

    Raises:
        OSError: disk full, no permission, no such folder.
    """
    temporary = _beside(path)
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def new_zarr(path: Path) -> Iterator[Path]:
    """Give a folder that takes the place of ``path`` when the block ends well and vanishes when it does not.

    No system replaces a full folder at one stroke: an old zarr is first moved aside, and back if that fails.

    Raises:
        OutputExistsError: at ``path`` stands a folder, neither empty nor a zarr: not ours to replace.
        OSError: disk full, no permission, no such folder.
    """
    if path.is_dir() and not is_zarr(path) and any(path.iterdir()):
        raise OutputExistsError(f"{path} is a folder with other files in it; give a path that is free")
    temporary, old = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        for folder, _, files in os.walk(temporary, topdown=False):
            for name in files:
                _sync_file(Path(folder, name))
            _sync_folder(Path(folder))
        if path.exists():
            os.rename(path, old)
        try:
            os.rename(temporary, path)
        except BaseException:
            if old.exists():
                os.rename(old, path)
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_folder(path.parent)
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    # The suffix is no image's, so a folder that is being read passes it over.
    return path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def _sync_file(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    # Not every system opens folders (Windows) or syncs them (network drives); the files are safe all the same.
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
