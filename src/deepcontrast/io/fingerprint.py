"""The fingerprint by which a run recognises its input."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from deepcontrast.io.names import ZARR_MARKS, require

WHOLE = 4 * 2**30
CHUNKS = 256
CHUNK_BYTES = 2**20


def fingerprint(path: str | os.PathLike[str]) -> str:
    """Return ``"sha256:..."`` of a file's bytes, or ``"sha256-sampled:..."`` of a sample of them.

    Sampled are files above 4 GB (their size and 256 evenly spaced pieces of 1 MiB, first and last
    included) and zarr folders (all metadata files, the names and sizes of all files, and the first and last
    MiB of 256 evenly spaced chunk files). Neither the path nor a date enters.

    Raises:
        InputNotFoundError: there is no such file.
    """
    path = Path(path)
    require(path)
    if path.is_dir():
        return f"sha256-sampled:{_of_folder(path)}"
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= WHOLE:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256(f"{size}\n".encode())
        for place in _spaced(CHUNKS):
            digest.update(_piece(file, int(place * (size - CHUNK_BYTES))))
        return f"sha256-sampled:{digest.hexdigest()}"


def _of_folder(folder: Path) -> str:
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    digest = hashlib.sha256()
    for name in files:
        digest.update(f"{name}\0{(folder / name).stat().st_size}\n".encode())
    metadata = [name for name in files if name.rpartition("/")[2] in ZARR_MARKS]
    for name in metadata:
        digest.update((folder / name).read_bytes())
    chunks = sorted(set(files) - set(metadata))
    if len(chunks) > CHUNKS:
        chunks = [chunks[round(place * (len(chunks) - 1))] for place in _spaced(CHUNKS)]
    for name in chunks:
        with (folder / name).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest.update(_piece(file, 0))
            # Up to two pieces the whole chunk is in, once.
            digest.update(_piece(file, max(CHUNK_BYTES, size - CHUNK_BYTES)))
    return digest.hexdigest()


def _spaced(count: int) -> Iterable[float]:
    return (i / (count - 1) for i in range(count))


def _piece(file: BinaryIO, start: int) -> bytes:
    file.seek(start)
    return file.read(CHUNK_BYTES)
