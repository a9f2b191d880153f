"""Total-variation denoising: the flattest image that still explains the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_tv_chambolle

from deepcontrast.baselines import Scene
from deepcontrast.baselines._noise import noise_or_estimate

CHOICES: tuple[Mapping[str, Any], ...] = tuple({"strength": strength} for strength in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0))


def tv(
    volume: NDArray[np.float32], *, noise: float | None = None, strength: float = 1.0, planes: bool = False
) -> NDArray[np.float32]:
    """Return the minimum of half the squared difference to the data plus ``strength * noise`` times the variation.

    ``skimage.restoration.denoise_tv_chambolle`` with ``weight = strength * noise`` in grey levels (there, of an
    image in 0 .. 1), at most 100 iterations.

    Args:
        volume: (Z, Y, X).
        noise: standard deviation in grey levels; ``None`` to estimate it.
        strength: weight of the total variation, in standard deviations of the noise.
        planes: whether each plane is taken by itself; otherwise the variation counts differences between planes
            like those between pixels.

    Returns:
        (Z, Y, X) in grey levels. Memory: 12 volumes, or planes.

    Raises:
        InputError: a negative noise.

    Source: Rudin, Osher & Fatemi 1992; Chambolle 2004.
    """
    out = np.array(volume, np.float32)
    weight = strength * noise_or_estimate(out, noise)
    if weight == 0:
        return out
    for part in out[:, None] if planes else (out,):
        if np.ptp(part):
            # The algorithm does not know an offset or a unit; float32 does.
            level = part.mean(dtype=np.float64).astype(np.float32)
            unit = np.squeeze((part - level) / np.float32(weight))
            smooth = denoise_tv_chambolle(unit, weight=1.0, max_num_iter=100)  # type: ignore[no-untyped-call]
            part[:] = level + np.float32(weight) * smooth.reshape(part.shape)
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return a weight of one standard deviation of the known noise; by planes where they are over 3 pixels apart.

    Chambolle 2004 sets the weight so that the residual has the variance of the noise: about 0.5 to 1.5 standard
    deviations for structures of a few pixels. At a spacing of more than 3 pixels neighbouring planes show
    different structures.
    """
    return {"noise": scene.noise, "strength": 1.0, "planes": scene.anisotropy > 3}
