"""Simulated deep tissue of known truth: thin, curved filaments that cross, under a microscope."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepcontrast.synth import Phantom
from deepcontrast.synth._balls import draw_balls
from deepcontrast.synth._deep import check, picture

FLATNESS = 0.3
"""Of all directions, squeezed along z: tissue is layered, and a plane across fibres shows little but dots."""


def filaments(
    *,
    shape: tuple[int, int, int] = (60, 224, 224),
    seed: int = 0,
    light: float = 25.0,
    voxel_um: float = 0.3,
    density: float = 0.06,
    radius_um: float = 0.4,
    length_um: float = 40.0,
    straight_um: float = 15.0,
    cytoplasm: float = 0.01,
    psf_um: tuple[float, float] = (0.36, 0.18),
    scatter_um: float = 6.5,
    attenuation_um: float = 40.0,
    haze_um: tuple[float, float, float] = (0.6, 1.3, 7.5),
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated stack of filaments whose contrast fades with depth, and its truth.

    Every filament is a tube around a random walk that keeps its direction over ``straight_um``. They lie mostly
    along the planes, differ in radius and brightness and cross each other, as neurites or collagen fibres do.
    Tissue, microscope and camera are those of :func:`deepcontrast.synth.tissue.tissue`, lengths compressed alike.

    Args:
        shape: (Z, Y, X) in voxels.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest structures (percentile 99.9) of the surface.
        voxel_um: side of the isotropic voxel.
        density: length of filament per volume, in 1/um^2.
        radius_um: mean radius of a filament.
        length_um: of a filament.
        straight_um: over which a filament keeps its direction (persistence length).
        cytoplasm: brightness between the filaments; the brightest have 1.
        psf_um: standard deviation of the point-spread function, axial and lateral.
        scatter_um: mean free path of light between scattering events.
        attenuation_um: depth over which all light fades to 1/e.
        haze_um: standard deviations of the three kernels of scattered light.
        autofluorescence: constant background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        The mask marks the filaments.

    Raises:
        InputError: a size or strength that is not positive, a shape that is not three sizes, or next to nothing in it.

    Source: walks of limited curvature for microtubules, CARE's supplement, section 2.5.1, here in three dimensions;
        scatter: DeepContrast, section 3.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("cytoplasm",))
    rng = np.random.default_rng(seed)
    structure = np.full(shape, cytoplasm, np.float32)
    mask = np.zeros(shape, bool)
    # Filaments reach in from outside: middles up to half a length beyond every face make the density even.
    box_um = np.array(shape) * voxel_um + length_um
    count = rng.poisson(density * math.prod(box_um) / length_um)
    middles = (rng.uniform(size=(count, 3)) * box_um - length_um / 2) / voxel_um
    paths = _walks(rng, middles, length_um / voxel_um, straight_um / voxel_um)
    radii = radius_um / voxel_um * rng.uniform(0.7, 1.4, count)
    brightness = np.clip(rng.lognormal(-0.5, 0.45, count), 0.15, 1.0)
    for path, radius, bright in zip(paths, radii, brightness, strict=True):
        draw_balls(structure, mask, path, radius, bright)
    return picture(rng, structure, mask, parameters)


def _walks(
    rng: np.random.Generator, middles: NDArray[np.float64], length: float, straight: float
) -> NDArray[np.float64]:
    """Return walks (n, steps, 3) of points half a voxel apart around their middles (n, 3); lengths in voxels."""
    step = 0.5
    steps = np.empty((len(middles), max(1, round(length / step)), 3))
    direction = _units(rng.normal(size=middles.shape))
    for i in range(steps.shape[1]):
        steps[:, i] = direction
        direction = _units(direction + rng.normal(0, math.sqrt(step / straight), middles.shape))
    steps = step * _units(steps * (FLATNESS, 1, 1))
    paths = np.cumsum(steps, axis=1)
    paths += middles[:, None] - paths[:, [paths.shape[1] // 2]]
    return paths


def _units(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    units: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return units
