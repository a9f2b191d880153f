"""What a path says: its container, its stem, the images of a folder."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from deepcontrast.errors import InputError, InputNotFoundError, nearest

# Longest first: "a.ome.tif" is not a "a.ome" in a ".tif".
SUFFIXES = {
    ".ome.tiff": ".ome.tif",
    ".ome.tif": ".ome.tif",
    ".ome.zarr": ".ome.zarr",
    ".tiff": ".tif",
    ".tif": ".tif",
    ".zarr": ".ome.zarr",
    ".npy": ".npy",
}
VENDORS = (".czi", ".nd2", ".lif")
ACCEPTED = ".tif, .tiff, .ome.tif, .ome.tiff, .ome.zarr, .zarr, .npy"
# What zarr writes at the root of a group or array, formats 3 and 2.
ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def container_suffix(path: str | os.PathLike[str]) -> str:
    """Return ``.ome.tif``, ``.tif``, ``.ome.zarr`` or ``.npy``: the container that a path's suffix names.

    Raises:
        InputError: another suffix, or none; the message lists the accepted ones.
    """
    written = _written_suffix(Path(path).name)
    if written:
        return SUFFIXES[written]
    if is_zarr(Path(path)):
        return ".ome.zarr"
    suffix = Path(path).suffix.lower()
    given = f"'{suffix}'" if suffix else "a name without a suffix"
    if suffix in VENDORS:
        raise InputError(f"{path}: {given} is not supported yet; accepted: {ACCEPTED} (export it as OME-TIFF)")
    raise InputError(f"{path}: {given} is not supported; accepted: {ACCEPTED} (not yet: {', '.join(VENDORS)})")


def stem(path: str | os.PathLike[str]) -> str:
    """Return the name without folder and container suffix: ``"liver"`` for ``"data/liver.ome.tif"``."""
    name = Path(path).name
    return name.removesuffix(name[-len(written) :]) if (written := _written_suffix(name)) else Path(name).stem


def is_zarr(path: Path) -> bool:
    """Return whether a path is the folder of a zarr group or array."""
    return path.is_dir() and any((path / mark).is_file() for mark in ZARR_MARKS)


def find_images(path: str | os.PathLike[str]) -> list[Path]:
    """Return the images a path stands for: itself, or those in a folder (not its subfolders), sorted by name.

    An OME-Zarr folder is one image; hidden files are passed over.

    Raises:
        InputNotFoundError: there is no such path.
        InputError: the folder has no image, or the file is of no accepted suffix.
    """
    path = Path(path)
    require(path)
    if is_zarr(path) or not path.is_dir():
        if not is_zarr(path):
            container_suffix(path)
        return [path]
    images = [entry for entry in sorted(path.iterdir()) if _is_image(entry)]
    if not images:
        raise InputError(f"no image in the folder {path}; accepted: {ACCEPTED}")
    return images


def require(path: Path) -> None:
    """Raise InputNotFoundError, naming the nearest name in the folder, where there is nothing at ``path``."""
    if path.exists():
        return
    if not path.parent.is_dir():
        raise InputNotFoundError(f"no such file: {path} (there is no folder {path.parent})")
    beside: list[str] = []
    with suppress(PermissionError):
        beside = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    raise InputNotFoundError(f"no such file: {path}{nearest(path.name, sorted(beside))}")


def _written_suffix(name: str) -> str:
    return next((s for s in SUFFIXES if name.lower().endswith(s) and len(name) > len(s)), "")


def _is_image(path: Path) -> bool:
    written = _written_suffix(path.name)
    if not written or path.name.startswith("."):
        return False
    return is_zarr(path) if SUFFIXES[written] == ".ome.zarr" else path.is_file()
