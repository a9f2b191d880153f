"""Simulated deep tissue of known truth: sparse bright spots in dim cells, under a microscope."""

from __future__ import annotations

import math

import numpy as np

from deepcontrast.synth import Phantom
from deepcontrast.synth._balls import draw_balls
from deepcontrast.synth._deep import Volume, check, picture, smooth_noise


def spots(
    *,
    shape: tuple[int, int, int] = (60, 224, 224),
    seed: int = 0,
    light: float = 25.0,
    voxel_um: float = 0.3,
    density: float = 0.012,
    radius_um: float = 0.6,
    cytoplasm: float = 0.012,
    cell_um: float = 9.0,
    psf_um: tuple[float, float] = (0.36, 0.18),
    scatter_um: float = 6.5,
    attenuation_um: float = 40.0,
    haze_um: tuple[float, float, float] = (0.6, 1.3, 7.5),
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated stack of sparse spots whose contrast fades with depth, and its truth.

    Spots are balls of different size and brightness, thrown at random into cells whose dim cytoplasm differs
    slowly from place to place, as granules or labelled transcripts are. Tissue, microscope and camera are those
    of :func:`deepcontrast.synth.tissue.tissue`, lengths compressed alike.

    Args:
        shape: (Z, Y, X) in voxels.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest structures (percentile 99.9) of the surface.
        voxel_um: side of the isotropic voxel.
        density: spots per cubic micrometre.
        radius_um: mean radius of a spot.
        cytoplasm: mean brightness between the spots; the brightest have 1.
        cell_um: over which the cytoplasm differs.
        psf_um: standard deviation of the point-spread function, axial and lateral.
        scatter_um: mean free path of light between scattering events.
        attenuation_um: depth over which all light fades to 1/e.
        haze_um: standard deviations of the three kernels of scattered light.
        autofluorescence: constant background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        The mask marks the spots.

    Raises:
        InputError: a size or strength that is not positive, a shape that is not three sizes, or next to nothing in it.

    Source: granules as in CARE's supplement, section 2.5.1, here balls; scatter: DeepContrast, section 3.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("cytoplasm",))
    rng = np.random.default_rng(seed)
    structure: Volume = cytoplasm * np.exp(0.4 * smooth_noise(rng, shape, cell_um / 2 / voxel_um) - 0.08)
    mask = np.zeros(shape, bool)
    # Some spots are only partly inside: the largest has 1.4 radii.
    margin_um = 2 * radius_um
    box_um = np.array(shape) * voxel_um + 2 * margin_um
    count = rng.poisson(density * math.prod(box_um))
    centres = (rng.uniform(size=(count, 3)) * box_um - margin_um) / voxel_um
    radii = radius_um / voxel_um * rng.uniform(0.7, 1.4, count)
    brightness = np.clip(rng.lognormal(-0.6, 0.5, count), 0.15, 1.0)
    for centre, radius, bright in zip(centres, radii, brightness, strict=True):
        draw_balls(structure, mask, centre[None], radius, bright)
    return picture(rng, structure, mask, parameters)
