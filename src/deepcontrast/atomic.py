"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from deepcontrast.errors import OutputError


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


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        OutputError: disk full, no permission, no such folder; nothing is left behind.
    """
    try:
        with new_file(path) as file:
            file.write(data)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or error}") from None


def write_json(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table as JSON with sorted keys, atomically. NaN and infinity are refused."""
    text = json.dumps(table, sort_keys=True, indent=1, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a folder that takes the place of ``path`` when the block ends well and vanishes when it does not.

    No system replaces a full folder at one stroke: an old one is first moved aside, and back if that fails.

    Raises:
        OSError: disk full, no permission, no such folder.
    """
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
    # Hidden, and of no image's suffix: a folder that is being read passes it over. A resumed run knows .tmp, too.
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


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
