"""Simulated deep tissue of known truth: textured nuclei, as a DNA stain shows them, under a microscope."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepcontrast.synth import Phantom
from deepcontrast.synth._deep import Volume, check, picture, smooth_noise


def nuclei(
    *,
    shape: tuple[int, int, int] = (60, 224, 224),
    seed: int = 0,
    light: float = 25.0,
    voxel_um: float = 0.3,
    spacing_um: float = 6.0,
    radius_um: float = 2.0,
    nucleoli: float = 2.0,
    nucleolus_um: float = 0.5,
    cytoplasm: float = 0.02,
    psf_um: tuple[float, float] = (0.36, 0.18),
    scatter_um: float = 6.5,
    attenuation_um: float = 40.0,
    haze_um: tuple[float, float, float] = (0.6, 1.3, 7.5),
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated stack of stained nuclei whose contrast fades with depth, and its truth.

    Nuclei are ellipsoids of random axes, orientation and brightness, with a rim of heterochromatin, a texture
    of chromatin and dark nucleoli; they do not overlap. Tissue, microscope and camera are those of
    :func:`deepcontrast.synth.tissue.tissue`, lengths compressed alike.

    Args:
        shape: (Z, Y, X) in voxels.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest structures (percentile 99.9) of the surface.
        voxel_um: side of the isotropic voxel.
        spacing_um: mean distance of neighbouring nuclei.
        radius_um: mean radius of a nucleus.
        nucleoli: mean number of nucleoli in a nucleus.
        nucleolus_um: mean radius of a nucleolus.
        cytoplasm: brightness between the nuclei; the brightest nuclei have about 1.
        psf_um: standard deviation of the point-spread function, axial and lateral.
        scatter_um: mean free path of light between scattering events.
        attenuation_um: depth over which all light fades to 1/e.
        haze_um: standard deviations of the three kernels of scattered light.
        autofluorescence: constant background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        The mask marks the nuclei without their nucleoli; the labels number the nuclei with them.

    Raises:
        InputError: a size or strength that is not positive, or a shape that is not three sizes.

    Source: nuclei as in CARE's supplement, section 2.3 (DNA stains); scatter: DeepContrast, section 3.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("nucleoli", "cytoplasm"))
    rng = np.random.default_rng(seed)
    texture = smooth_noise(rng, shape, 0.4 / voxel_um)
    density = np.full(shape, cytoplasm, np.float32)
    mask = np.zeros(shape, bool)
    labels = np.zeros(shape, np.int32)
    sizes = (radius_um / voxel_um, nucleoli, nucleolus_um / voxel_um)
    for number, centre in enumerate(_centres(rng, shape, spacing_um / voxel_um), 1):
        _add_nucleus(rng, density, mask, labels, number, texture, centre, *sizes)
    return picture(rng, density, mask, parameters, labels)


def _centres(rng: np.random.Generator, shape: tuple[int, int, int], spacing: float) -> NDArray[np.float64]:
    """Return the centres (n, 3) of a jittered lattice in voxels, beyond every face too; some are missing."""
    counts = [math.ceil(n / spacing) + 2 for n in shape]
    lattice = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).astype(np.float64)
    lattice[1::2, ..., 1:] += 0.5
    lattice = lattice.reshape(-1, 3) - 1 + rng.uniform(-0.25, 0.25, (lattice.size // 3, 3))
    kept: NDArray[np.float64] = (lattice * spacing)[rng.random(len(lattice)) > 0.25]
    return kept


def _add_nucleus(
    rng: np.random.Generator,
    density: Volume,
    mask: NDArray[np.bool_],
    labels: NDArray[np.int32],
    number: int,
    texture: Volume,
    centre: NDArray[np.float64],
    radius: float,
    nucleoli: float,
    nucleolus: float,
) -> None:
    """Draw one nucleus into density, mask and labels, lengths in voxels; what is drawn already stays in front."""
    axes = radius * rng.uniform(0.75, 1.3, 3)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    brightness = float(np.clip(rng.lognormal(-0.6, 0.4), 0.15, 1.0))
    holes = [(turn * axes) @ _within_ball(rng, 0.55) for _ in range(rng.poisson(nucleoli))]
    sizes = nucleolus * rng.uniform(0.7, 1.4, len(holes))
    reach = math.ceil(axes.max() + 1)
    box = tuple(
        slice(max(0, int(c) - reach), max(0, min(n, int(c) + reach + 2)))
        for c, n in zip(centre, density.shape, strict=True)
    )
    if any(b.stop <= b.start for b in box):
        return
    away = np.stack(np.meshgrid(*[np.arange(b.start, b.stop) for b in box], indexing="ij"), axis=-1) - centre
    scaled = np.linalg.norm((away @ turn) / axes, axis=-1)
    # Distance inside the surface in voxels, to first order.
    depth = (1 - scaled) * axes.mean()
    cover = np.clip(depth + 0.5, 0, 1)
    rim = 1 + 0.35 * np.exp(-((depth / 1.5) ** 2))
    inside = brightness * rim * np.clip(0.75 + 0.2 * texture[box], 0.2, 1.3)
    solid = depth > 0
    for place, size in zip(holes, sizes, strict=True):
        hole = np.clip(size - np.linalg.norm(away - place, axis=-1) + 0.5, 0, 1)
        inside *= 1 - 0.8 * hole
        solid &= hole < 0.5
    free = ~mask[box]
    density[box] = np.where(free, density[box] * (1 - cover) + inside * cover, density[box])
    mask[box] |= solid & free
    labels[box][free & (depth > 0)] = number


def _within_ball(rng: np.random.Generator, radius: float) -> NDArray[np.float64]:
    """Return a point (3,) evenly drawn from a ball."""
    direction = rng.normal(size=3)
    point: NDArray[np.float64] = radius * rng.random() ** (1 / 3) * direction / np.linalg.norm(direction)
    return point
