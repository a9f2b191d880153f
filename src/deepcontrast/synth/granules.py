"""Simulated granules of known truth, at and below what a widefield microscope resolves: secretory granules."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast.perlin import perlin
from deepcontrast.synth import Phantom
from deepcontrast.synth._deep import Volume, check
from deepcontrast.synth._widefield import around, check_ranges, check_shares, inside, picture, spot

CROWD_UM = 3.0
"""Period of how crowded the granules are."""
RATIOS = (0.8, 1.0, 1.25)
"""Periods of the noises that are added, in units of the one that was asked for."""
EDGE = 0.15
"""Rise of the noise from the edge of a granule to its full brightness."""
FILLED = 0.5
"""Share of its granule's brightness from which a voxel belongs to it."""


def draw(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    voxel_um: tuple[float, float, float],
    periods_um: tuple[float, ...] = (0.35, 0.5, 0.75),
    fill: tuple[float, float] = (0.01, 0.06),
    crowding: float = 0.3,
    spread: float = 0.4,
) -> NDArray[np.float32]:
    """Return the density of fluorophores of granules, not blurred.

    Granules are where gradient noise is above a threshold: each period gives granules of another size, about half of
    it across. The noise is a sum of three of periods a little apart, so that no lattice shows. Slow noise on top of it
    crowds granules in some regions and leaves others empty. A granule has one brightness and a soft edge of about a
    pixel.

    Args:
        rng: of everything random.
        shape: (Z, Y, X); a single plane is a section.
        voxel_um: size of a voxel (z, y, x).
        periods_um: of the noise, one for each size of granule.
        fill: least and largest share of the field that granules fill, drawn once, evenly in its logarithm.
        crowding: strength of the slow noise in units of the fast one; 0 spreads granules evenly.
        spread: standard deviation of the logarithm of a granule's brightness.

    Returns:
        (Z, Y, X); 1 is a granule of median brightness.

    Raises:
        InputError: a size or strength that is not positive, a range whose end is below its start, a fill above 1,
            or a shape that is not three sizes.

    Source: CARE's supplement, section 2.5.1: clipped Perlin noise whose intensity varies.
    """
    return labelled(rng, shape, voxel_um=voxel_um, periods_um=periods_um, fill=fill, crowding=crowding, spread=spread)[
        0
    ]


def granules(
    *,
    shape: tuple[int, int, int] = (48, 256, 256),
    seed: int = 0,
    light: float = 800.0,
    voxel_um: tuple[float, float, float] = (0.2, 0.08, 0.08),
    periods_um: tuple[float, ...] = (0.35, 0.5, 0.75),
    fill: tuple[float, float] = (0.01, 0.06),
    crowding: float = 0.3,
    spread: float = 0.4,
    na: float = 1.43,
    wavelength_um: float = 0.58,
    index: float = 1.518,
    autofluorescence: float = 0.01,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated widefield stack of granules, and what is really there.

    What is drawn, and by which law, says :func:`draw`. The cell is clear: nothing fades or scatters with depth.

    Args:
        shape: (Z, Y, X) in voxels; a single plane is a picture of granules that are all in focus.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest granules (percentile 99.9) of truth, where no light is spread by any blur.
        voxel_um: size of a voxel (z, y, x).
        periods_um: of the noise, one for each size of granule.
        fill: least and largest share of the field that granules fill.
        crowding: strength of the slow noise in units of the fast one; 0 spreads granules evenly.
        spread: standard deviation of the logarithm of a granule's brightness.
        na: numerical aperture.
        wavelength_um: emission wavelength in vacuum.
        index: refractive index of the immersion medium.
        autofluorescence: mean of the background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        Truth is the density in photons, not blurred. Labels number the granules, the mask marks them: voxels with at
        least half of their granule's brightness. `scipy.ndimage.center_of_mass` of the labels gives their centres.

    Raises:
        InputError: as `draw`; an aperture the index does not allow, or next to nothing in the field.

    Source: CARE's supplement, section 2.5.1: granules of INS-1 cells under an objective of aperture 1.43.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("crowding", "spread"))
    rng = np.random.default_rng(seed)
    kernel = spot(parameters)
    structure, numbers = labelled(
        rng,
        around(shape, kernel),
        voxel_um=voxel_um,
        periods_um=periods_um,
        fill=fill,
        crowding=crowding,
        spread=spread,
    )
    seen, labels = np.unique(inside(numbers, shape), return_inverse=True)
    # Without a voxel of background the first granule would get its number.
    labels = (labels.reshape(shape) + (seen[0] > 0)).astype(np.int32)
    return picture(rng, structure, kernel, labels > 0, parameters, labels)


def labelled(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    voxel_um: tuple[float, float, float],
    periods_um: tuple[float, ...] = (0.35, 0.5, 0.75),
    fill: tuple[float, float] = (0.01, 0.06),
    crowding: float = 0.3,
    spread: float = 0.4,
) -> tuple[Volume, NDArray[np.int32]]:
    """Return what :func:`draw` does, by the same arguments, and the number (Z, Y, X) of the granule at every voxel.

    A voxel belongs to a granule where it has at least half of its brightness; 0 belongs to none.
    """
    parameters = dict(locals())
    del parameters["rng"]
    check(parameters, may_be_zero=("crowding", "spread"))
    check_ranges("granules", fill=fill)
    check_shares("granules", fill=fill[1])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    flat = shape[0] == 1

    def noise(period_um: float) -> Volume:
        periods = [[ratio * period_um / v for v in voxel_um[flat:]] for ratio in RATIOS]
        fields = torch.stack([perlin(shape[flat:], p, generator=generator) for p in periods])
        return (fields.sum(dim=0) / math.sqrt(len(RATIOS))).numpy().reshape(shape)

    share = math.exp(rng.uniform(*np.log(fill)))
    crowd = np.float32(crowding) * noise(CROWD_UM)
    body = np.zeros(shape, np.float32)
    for period_um in periods_um:
        field = noise(period_um) + crowd
        edge = np.quantile(field, 1 - share / len(periods_um)).astype(np.float32)
        # Half of the brightness at the threshold, which thereby holds the share that was asked for.
        body = np.maximum(body, np.clip((field - edge) / np.float32(EDGE) + np.float32(FILLED), 0, 1))
    labels, count = ndimage.label(body >= FILLED)
    bright = np.concatenate([[0], rng.lognormal(0, spread, count)]).astype(np.float32)
    # The soft rim glows as the granule beside it; where there is none, nothing does.
    size = [1 if n == 1 else 3 for n in shape]
    own = bright[labels]
    glow = np.where(labels > 0, own, ndimage.maximum_filter(own, size))
    return body * glow, labels.astype(np.int32)
