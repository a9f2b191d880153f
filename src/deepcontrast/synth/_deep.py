"""What a microscope sees deep in scattering tissue, and what its camera makes of it; shared by the phantoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.errors import InputError
from deepcontrast.synth import Phantom
from deepcontrast.synth._camera import expose, optics_of, photon_scale

Volume = NDArray[np.float32]


def picture(
    rng: np.random.Generator,
    structure: Volume,
    mask: NDArray[np.bool_],
    parameters: Mapping[str, Any],
    labels: NDArray[np.int32] | None = None,
) -> Phantom:
    """Return the phantom of a fluorophore density (Z, Y, X), which is used up.

    At depth z the microscope sees the share ``exp(-z / scatter_um)`` of the light through its point-spread
    function; the rest is haze, a mixture of Gaussians in space whose widths are ``haze_um`` and whose weight
    moves from the narrow to the wide ones with depth. Both fade with ``exp(-z / attenuation_um)``. The camera
    counts photons (Poisson), multiplies, adds its offset and its read noise.

    Args:
        rng: of the camera's noise.
        structure: density of fluorophores, any unit.
        mask: where the structures are.
        parameters: every argument of the phantom; those of optics, tissue and camera are used here.
        labels: one number for each object, of those phantoms that have any.

    Raises:
        InputError: so little glows that ``light``, which is a percentile, has no meaning.
    """
    p = parameters
    voxel, light, scatter = p["voxel_um"], p["light"], p["scatter_um"]
    axial, lateral = (s / voxel for s in p["psf_um"])
    truth = ndimage.gaussian_filter(structure, (axial, lateral, lateral))
    scale = photon_scale(truth, light)
    truth *= scale
    structure *= scale

    depth = np.arange(len(structure), dtype=np.float32)[:, None, None] * voxel
    ballistic = np.exp(-depth / scatter)
    structure *= np.exp(-depth / p["attenuation_um"])
    photons = ndimage.gaussian_filter(structure * ballistic, (axial, lateral, lateral))
    for width, share in zip(p["haze_um"], haze_shares(depth, scatter), strict=True):
        sigma = np.hypot(width / voxel, (axial, lateral, lateral))
        photons += ndimage.gaussian_filter(structure * (1 - ballistic) * share, sigma, truncate=3.0)
    photons += light * p["autofluorescence"]

    raw = expose(rng, photons, p)
    return Phantom(raw, truth, mask, optics_of(p, (voxel, voxel, voxel)), p, labels=labels)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Volume:
    """Return a Gaussian random field of standard deviation 1 and correlation length ``sigma`` in voxels."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, truncate=3.0, mode="wrap")
    return np.asarray(noise / noise.std(), np.float32)


def check(parameters: Mapping[str, object], *, may_be_zero: Sequence[str] = ()) -> None:
    """Refuse a shape, length or strength that no tissue can have.

    Raises:
        InputError: names the first such parameter.
    """
    shape = parameters["shape"]
    if not isinstance(shape, tuple) or len(shape) != 3 or min(shape) < 1:
        raise InputError(f"shape {shape} of the tissue; accepted: three sizes (Z, Y, X) of at least 1")
    for name, value in parameters.items():
        if isinstance(value, str):
            continue
        at_least_0 = name in ("seed", "noise_seed", "autofluorescence", "offset", "read_noise", *may_be_zero)
        numbers = value if isinstance(value, tuple) else (value,)
        if any(not v >= 0 or (v == 0 and not at_least_0) for v in numbers):
            accepted = "0 or more" if at_least_0 else "above 0"
            raise InputError(f"{name} = {value} of the tissue; accepted: {accepted}")


def haze_shares(depth: Volume, scatter_um: float) -> tuple[Volume, Volume, Volume]:
    """Return which share of the scattered light takes the narrow, the middle and the wide kernel.

    Light that was scattered n times spreads the more the larger n is; n grows with depth.
    """
    events = depth / scatter_um
    narrow = np.exp(-events)
    wide = 1 - np.exp(-events / 2)
    middle = np.full_like(events, 1.2)
    total = narrow + middle + wide
    return narrow / total, middle / total, wide / total
