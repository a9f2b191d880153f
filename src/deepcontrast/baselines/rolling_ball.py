"""Background under a rolling ball subtracted, as Fiji's "Subtract Background" does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import restoration

from deepcontrast.baselines import Scene
from deepcontrast.errors import InputError

CHOICES: tuple[Mapping[str, Any], ...] = tuple({"radius": radius} for radius in (5.0, 10.0, 15.0, 25.0, 50.0, 100.0))


def rolling_ball(volume: NDArray[np.float32], *, radius: float = 50.0, smooth: bool = True) -> NDArray[np.float32]:
    """Return each plane minus the surface that a ball rolled under its grey levels touches.

    Fiji's "Subtract Background": its radius is ``radius`` and its "disable smoothing" is ``smooth=False``. As
    there, a plane is rolled at a lower resolution where the ball is large (each block's minimum, blocks of 2 pixels
    above a radius of 10, 4 above 30, 8 above 100), and the ball's height is counted in grey levels, one to a pixel
    rolled, so that on 16-bit data it is nearly a flat disc. ``skimage.restoration.rolling_ball`` does the rolling;
    it returns the erosion by a ball (where the top of the ball gets to), and applied again upside down gives the
    opening that Fiji computes. Fiji also cuts off the ball's rim; here it is whole.

    Args:
        volume: (Z, Y, X).
        radius: of the ball in pixels, at least that of the largest object that is not background.
        smooth: whether the background is taken under a mean over 3 x 3 pixels, so that noise does not lower it.

    Returns:
        (Z, Y, X) grey levels above the background, a little negative where noise is. Memory: the result and a
        few planes.

    Raises:
        InputError: a radius below 1.

    Source: Sternberg 1983; Castle, Collins & Schmid, ImageJ's BackgroundSubtracter.
    """
    if not radius >= 1:
        raise InputError(f"radius {radius} of the rolling ball; accepted: 1 pixel or more")
    out = np.empty(volume.shape, np.float32)
    for z, plane in enumerate(volume):
        plane = np.asarray(plane, np.float32)
        out[z] = plane - _background(ndimage.uniform_filter(plane, 3) if smooth else plane, radius)
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return a ball of five times the structures' half width, at least 10 pixels.

    ImageJ's manual: at least as large as the radius of the largest object that is not part of the background.
    Structures differ in size about twofold, and a half width at half maximum is about half their radius.
    """
    return {"radius": max(10.0, 5 * scene.radius)}


def _background(plane: NDArray[np.float32], radius: float) -> NDArray[np.float32]:
    shrink = 1 if radius <= 10 else 2 if radius <= 30 else 4 if radius <= 100 else 8
    padding = [(0, -n % shrink) for n in plane.shape]
    rows, columns = (-(-n // shrink) for n in plane.shape)
    blocks = np.pad(plane, padding, mode="edge").reshape(rows, shrink, columns, shrink)
    top = restoration.rolling_ball(blocks.min(axis=(1, 3)), radius=radius / shrink)
    # That is where the top of the ball gets to; what any of its surface gets to is the same from above.
    rolled = -restoration.rolling_ball(-top, radius=radius / shrink)
    if shrink == 1:
        return np.asarray(rolled, np.float32)
    places = np.meshgrid(*((np.arange(n) + 0.5) / shrink - 0.5 for n in plane.shape), indexing="ij")
    full = ndimage.map_coordinates(rolled, places, order=1, mode="nearest")
    # Between two blocks the straight line may pass above the grey levels, where no ball could be.
    return np.asarray(np.minimum(full, plane), np.float32)
