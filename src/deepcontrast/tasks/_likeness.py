"""Whether an image is like those that a network learned from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from deepcontrast.noise.detail import detail
from deepcontrast.stack import Frame
from deepcontrast.valid import EMPTY, Survey, codes

FAR = 1.5
"""How many times beyond the images of training an image is said to be unlike them."""
LOOKED_AT = {
    "detail": "its noise, or finest detail, as a share of its contrast,",
    "mean": "its mean grey level",
    "pixel": "its pixel size in um",
}


def differs(
    seen: Mapping[str, tuple[float, float]], frame: Frame, known: Survey, *, brightness: bool = True
) -> list[str]:
    """Return in words how an image, given its survey, differs from others of which the :func:`ranges` are given.

    Args:
        seen: least and most of what they are described by.
        frame: the image (Z, Y, X).
        known: its survey.
        brightness: whether its mean grey level matters.
    """
    words = []
    for name, value in described(frame, known).items():
        if name in seen and (brightness or name != "mean"):
            low, high = seen[name]
            more, less = value / max(high, 1e-9), low / max(value, 1e-9)
            if max(more, less) > FAR:
                beyond = f"{more:.1f} times the most" if more > less else f"1/{less:.1f} of the least"
                words.append(f"{LOOKED_AT[name]} is {value:.3g}, {beyond} of the images of training")
    return words


def described(frame: Frame, known: Survey) -> dict[str, float]:
    """Return what is looked at of an image: in the plane nearest its middle that shows something, and of its pixels."""
    found = {}
    shown = np.flatnonzero(known.seen & ~known.blank)
    if len(shown):
        z = int(shown[np.argmin(np.abs(shown - len(frame) // 2))])
        plane = np.asarray(frame[z], np.float64)
        if known.bordered[z]:
            whole = slice(z, z + 1), slice(0, plane.shape[0]), slice(0, plane.shape[1])
            valid = codes(frame, known, whole)[0] != EMPTY
            plane = plane[np.ix_(valid.mean(1) > 0.5, valid.mean(0) > 0.5)]
        if plane.size and plane.std() > 0:
            found = {"detail": detail(plane), "mean": float(plane.mean())}
    pixel = frame.stack.optics.voxel_size[2]
    return found | ({"pixel": float(pixel)} if pixel else {})


def ranges(images: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Return least and most of what all images have."""
    shared = set.intersection(*(set(image) for image in images))
    return {name: (min(i[name] for i in images), max(i[name] for i in images)) for name in sorted(shared)}
