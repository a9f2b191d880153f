"""Non-local means: a mean over voxels whose surroundings look alike."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means

from deepcontrast.baselines import Scene
from deepcontrast.baselines._noise import noise_or_estimate

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"patch": patch, "strength": strength} for patch, strength in product((3, 5), (0.4, 0.6, 0.9, 1.3))
)


def nlm(
    volume: NDArray[np.float32],
    *,
    noise: float | None = None,
    strength: float = 0.6,
    patch: int = 5,
    distance: int = 6,
    planes: bool = True,
) -> NDArray[np.float32]:
    """Return every voxel averaged with those in its neighbourhood whose patches are alike.

    ``skimage.restoration.denoise_nl_means`` in its fast mode with ``h = strength * noise`` and ``sigma =
    noise``. Fiji's "Non-local Means Denoising" works plane by plane too, with h from its own sigma.

    Args:
        volume: (Z, Y, X).
        noise: standard deviation in grey levels; ``None`` to estimate it.
        strength: how fast the weight falls with the distance of patches, in standard deviations of the noise.
        patch: side of a patch in voxels.
        distance: how far alike patches are searched, in voxels of every axis searched.
        planes: whether each plane is taken by itself; time grows as (2 distance + 1)^2, else to the third.

    Returns:
        (Z, Y, X) in grey levels. Memory: the result and a few planes; in space 6 volumes in double precision.

    Raises:
        InputError: a negative noise.

    Source: Buades, Coll & Morel 2005; Darbon et al. 2008 for the fast mode.
    """
    out = np.array(volume, np.float32)
    noise = noise_or_estimate(out, noise)
    if noise == 0 or strength == 0:
        return out
    for part in out[:, None] if planes else (out,):
        # The fast mode sums squares over the whole image: in single precision large grey levels drown the patches.
        level = part.mean(dtype=np.float64)
        smooth = denoise_nl_means(
            np.squeeze((part.astype(np.float64) - level) / noise),
            patch_size=patch,
            patch_distance=distance,
            h=strength,
            sigma=1.0,
            fast_mode=True,
            preserve_range=True,
        )
        part[:] = level + noise * smooth.reshape(part.shape)
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return what scikit-image's gallery takes for a known noise: h of 0.6 noise, patches of 5, distance 6."""
    return {"noise": scene.noise, "strength": 0.6, "patch": 5, "distance": 6, "planes": True}
