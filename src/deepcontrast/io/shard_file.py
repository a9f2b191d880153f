"""A shard of a zarr array as a file: its chunks, one after the other, and where each of them lies.

As the specification has it (https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/). Zarr writes
such files too, but holds one and a half times a shard while it does, reads the one that it replaces, and takes two
to five times as long.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from deepcontrast.atomic import new_file

MISSING = 2**64 - 1


def write_shard(path: Path, block: NDArray[Any], array: Any) -> None:
    """Write the file of one shard: whole or not at all, and on the disk when this returns.

    Args:
        path: where zarr looks for the shard.
        block: its voxels, from its corner on; the rest of it lies beyond the edge of the array.
        array: the zarr array, of chunks that are not compressed or compressed by zstd.

    Raises:
        OSError: disk full, no permission.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    chunk, dtype = array.chunks, block.dtype.newbyteorder("<")
    counts = tuple(n // c for n, c in zip(array.shards or chunk, chunk, strict=True))
    index = np.full((*counts, 2), MISSING, "<u8")
    within = product(*(range(-(-n // c)) for n, c in zip(block.shape, chunk, strict=True)))
    with new_file(path) as file:
        for place in within:
            voxels = block[tuple(slice(p * c, (p + 1) * c) for p, c in zip(place, chunk, strict=True))]
            if voxels.shape != chunk:
                voxels = np.pad(voxels, [(0, c - n) for c, n in zip(chunk, voxels.shape, strict=True)])
            data: Any = np.ascontiguousarray(voxels, dtype)
            for codec in array.compressors:
                data = imagecodecs.zstd_encode(data, level=codec.level)
            start = file.tell()
            file.write(data)
            index[place] = start, file.tell() - start
        if array.shards:
            file.write(index.tobytes())
            file.write(_crc32c(index.tobytes()).to_bytes(4, "little"))


def _crc32c(data: bytes) -> int:
    """Return the checksum of RFC 3720, appendix B.4, byte by byte."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _REMAINDERS[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_REMAINDERS = [_remainder(byte) for byte in range(256)]
