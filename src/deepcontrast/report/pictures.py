"""Planes as 8-bit grey pictures inside the page: display range, size, scale bar, PNG bytes."""

from __future__ import annotations

import base64
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.report.data import Array

PERCENTILES = (1.0, 99.8)
"""Black and white of every picture: the same percentiles of its own voxels, whoever made them."""

LONG_SIDE = 768
"""Longer pictures are averaged in blocks."""


@dataclass(frozen=True)
class ScaleBar:
    """A bar of a round length: its share of the picture's width in percent, and its label."""

    percent: float
    label: str


@dataclass(frozen=True)
class Picture:
    """A grey picture and what has to be said beside it.

    Attributes:
        src: PNG as a data URI.
        alt: what is seen, for those who cannot see it.
        aspect: true width over height, whatever the number of pixels.
        low, high: grey levels shown as black and as white.
        block: how many pixels were averaged along each side; 1 for a picture at full resolution.
        coarse: so few pixels that they are better shown as squares than smoothed.
        bar: scale bar.
    """

    src: str
    alt: str
    aspect: float
    low: float
    high: float
    block: int
    coarse: bool
    bar: ScaleBar | None

    @property
    def levels(self) -> str:
        """The range in words, to three digits of its width."""
        digits = max(0, 2 - math.floor(math.log10(self.high - self.low)))
        return f"{self.low:.{digits}f} to {self.high:.{digits}f}".replace("-", "−")


def picture(
    image: Array,
    alt: str,
    *,
    pixel: tuple[float | None, float | None] = (None, None),
    limits: tuple[float, float] | None = None,
    long_side: int = LONG_SIDE,
    bar: bool = True,
) -> Picture:
    """Return an image (rows, columns) as a picture.

    Args:
        image: grey levels; what is not finite becomes black.
        alt: what is seen.
        pixel: height and width of a pixel in um; unknown ones are taken as equal.
        limits: grey levels of black and white; by default ``display_range`` of the image.
        long_side: the longest side allowed, in pixels.
        bar: whether a scale bar belongs on it.
    """
    low, high = limits or display_range(image)
    rows, columns = image.shape
    block = max(1, math.ceil(max(rows, columns) / long_side))
    small = shrink(np.asarray(image, np.float32), block)
    scaled = np.nan_to_num((small - low) / (high - low), nan=0.0, posinf=1.0, neginf=0.0)
    grey = np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)
    height, width = pixel
    true = (height / width) if height and width else 1.0
    return Picture(
        src=data_uri(png(grey)),
        alt=alt,
        aspect=columns / (rows * true),
        low=low,
        high=high,
        block=block,
        coarse=max(grey.shape) <= 200,
        bar=scale_bar(columns, width) if bar else None,
    )


def display_range(
    image: Array, valid: NDArray[np.bool_] | None = None, percentiles: tuple[float, float] = PERCENTILES
) -> tuple[float, float]:
    """Return the grey levels of black and white: percentiles of the finite, valid values."""
    values = image[np.isfinite(image) if valid is None else np.isfinite(image) & valid]
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, percentiles))
    return (low, high) if high > low else (low, low + 1.0)


def shrink(image: NDArray[np.float32], block: int) -> NDArray[np.float32]:
    """Return the image averaged in square blocks; a remainder at the far edges is cut."""
    if block == 1:
        return image
    rows, columns = (max(n // block, 1) for n in image.shape)
    cut = image[: rows * block, : columns * block]
    high, wide = cut.shape[0] // rows, cut.shape[1] // columns
    return np.asarray(cut.reshape(rows, high, columns, wide).mean(axis=(1, 3)), np.float32)


def scale_bar(columns: int, width: float | None) -> ScaleBar | None:
    """Return the bar of 1, 2 or 5 times a power of ten next below a quarter of the picture's width."""
    extent = columns * (width or 1.0)
    target = extent / 4
    power = 10.0 ** math.floor(math.log10(target))
    length = max(step * power for step in (1, 2, 5) if step * power <= target * (1 + 1e-9))
    if width is None and length < 1:
        return None
    return ScaleBar(100 * length / extent, f"{length:g} {'px' if width is None else 'µm'}")


def png(grey: NDArray[np.uint8]) -> bytes:
    """Return an 8-bit grey image (rows, columns) as PNG: equal pixels, equal bytes."""
    rows, columns = grey.shape
    left, above = np.zeros_like(grey), np.zeros_like(grey)
    left[:, 1:], above[1:] = grey[:, :-1], grey[:-1]
    mean = ((left.astype(np.uint16) + above) // 2).astype(np.uint8)
    # PNG's row filters 0 to 3; per row the one with the smallest residuals packs best.
    filtered = np.stack([grey, grey - left, grey - above, grey - mean])
    cost = np.abs(filtered.view(np.int8).astype(np.int16)).sum(axis=2)
    kind = cost.argmin(axis=0).astype(np.uint8)
    lines = np.concatenate([kind[:, None], filtered[kind, np.arange(rows)]], axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def data_uri(image: bytes) -> str:
    """Return PNG bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(image).decode("ascii")
