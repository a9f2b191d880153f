"""Values that lie in a file one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.io.view import Box, Lazy


@dataclass(frozen=True)
class Unchanged:
    """A file that must stay what it was when it was first opened; nothing of it is held open.

    Attributes:
        path: where it is.
        size: in bytes.
        modified: when, in nanoseconds.
    """

    path: Path
    size: int
    modified: int

    @classmethod
    def now(cls, path: Path) -> Unchanged:
        """Return the file as it is now."""
        state = path.stat()
        return cls(path, state.st_size, state.st_mtime_ns)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it for reading.

        Raises:
            InputError: it is gone or was written since.
        """
        try:
            file = self.path.open("rb")
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error
        with file:
            state = os.fstat(file.fileno())
            if (state.st_size, state.st_mtime_ns) != (self.size, self.modified):
                raise InputError(f"{self.path} was changed while it was being read")
            yield file


@dataclass(frozen=True, eq=False)
class Raw(Lazy):
    """An array in C order from a byte of a file on.

    Attributes:
        file: where it is.
        offset: of the first value, in bytes.
        stored: type of the values as they are stored, in either byte order.
        lengths: of the axes.
    """

    file: Unchanged
    offset: int
    stored: np.dtype[Any]
    lengths: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.lengths

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.newbyteorder("=")

    def read(self, box: Box) -> NDArray[Any]:
        # A mapping that is kept keeps every page that was ever read in the memory of the process.
        with self.file.open() as file:
            mapped = np.memmap(file, self.stored, "r", self.offset, self.lengths)
            return np.array(mapped[box], self.dtype)
