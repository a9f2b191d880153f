"""Simulated deep tissue of known truth: cells with membranes, canaliculi and vesicles under a microscope."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from deepcontrast.synth import Phantom
from deepcontrast.synth._balls import draw_balls
from deepcontrast.synth._deep import Volume, check, picture, smooth_noise


def tissue(
    *,
    shape: tuple[int, int, int] = (60, 224, 224),
    seed: int = 0,
    light: float = 25.0,
    voxel_um: float = 0.3,
    cell_um: float = 9.0,
    cytoplasm: float = 0.012,
    membrane_um: float = 0.75,
    canaliculus_um: float = 0.9,
    canaliculi: float = 0.6,
    vesicle_um: float = 0.5,
    vesicles: float = 7.0,
    psf_um: tuple[float, float] = (0.36, 0.18),
    scatter_um: float = 6.5,
    attenuation_um: float = 40.0,
    haze_um: tuple[float, float, float] = (0.6, 1.3, 7.5),
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated stack of liver-like tissue whose contrast fades with depth, and its truth.

    Cells are the Voronoi regions of jittered seeds in gently warped space: dim cytoplasm with a darker
    nucleus, membranes, bright bile canaliculi along some of the edges where three cells meet, bright
    vesicles; cells differ in brightness. At depth z the microscope sees the share ``exp(-z / scatter_um)`` of
    the light through its point-spread function; the rest is haze, a mixture of Gaussians in space whose
    widths are ``haze_um`` and whose weight moves from the narrow to the wide ones with depth. Both fade with
    ``exp(-z / attenuation_um)``. The camera counts photons (Poisson), multiplies, adds its offset and its
    read noise. On purpose this is not the training degradation, which is one Gaussian per plane.

    Tissue is compressed: its cells are a third of a hepatocyte and it turns opaque within tens of
    micrometres, so that a stack small enough for a laptop spans easy to hopeless.

    Args:
        shape: (Z, Y, X) in voxels.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest structures (percentile 99.9) of the surface.
        voxel_um: side of the isotropic voxel.
        cell_um: mean distance of neighbouring cells.
        cytoplasm: mean brightness of the cytoplasm; the brightest canaliculi have 1.
        membrane_um: thickness of a membrane.
        canaliculus_um: mean radius of a canaliculus.
        canaliculi: share of the edges along which one runs.
        vesicle_um: radius of a vesicle.
        vesicles: mean number of vesicles in a cell.
        psf_um: standard deviation of the point-spread function, axial and lateral.
        scatter_um: mean free path of light between scattering events.
        attenuation_um: depth over which all light fades to 1/e.
        haze_um: standard deviations of the three kernels of scattered light.
        autofluorescence: constant background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Raises:
        InputError: a size or strength that is not positive, or a shape that is not three sizes.

    Source: the prototype of DESIGN.md section 7; scattered light that grows with depth: DeepContrast, section 3.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("cytoplasm", "vesicles"))
    rng = np.random.default_rng(seed)
    structure, mask = _structure(
        rng,
        shape,
        cell=cell_um / voxel_um,
        cytoplasm=cytoplasm,
        membrane=membrane_um / voxel_um,
        canaliculus=canaliculus_um / voxel_um,
        canaliculi=canaliculi,
    )
    count = round(vesicles * structure.size * (voxel_um / cell_um) ** 3)
    _add_vesicles(rng, structure, mask, vesicle_um / voxel_um, count)
    return picture(rng, structure, mask, parameters)


def _structure(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    cell: float,
    cytoplasm: float,
    membrane: float,
    canaliculus: float,
    canaliculi: float,
) -> tuple[Volume, NDArray[np.bool_]]:
    """Return the fluorophore density (0 .. 1) of cells and the mask of structures; lengths in voxels."""
    seeds = _seeds(rng, shape, cell)
    inside = cytoplasm * rng.lognormal(-0.08, 0.4, len(seeds))
    # Some cells stand for sinusoids: nothing in them glows.
    inside[rng.random(len(seeds)) < 0.08] = 0.0
    brightness = rng.lognormal(0, 0.2, len(seeds))
    nucleus = cell * rng.uniform(0.16, 0.24, len(seeds))
    key = rng.random(len(seeds))
    warp = [smooth_noise(rng, shape, cell / 3) * np.float32(0.08 * cell) for _ in range(3)]

    tree = cKDTree(seeds)
    density = np.empty(shape, np.float32)
    mask = np.empty(shape, bool)
    rows, columns = np.indices(shape[1:], np.float64)
    for z in range(shape[0]):
        point = np.stack([z + warp[0][z], rows + warp[1][z], columns + warp[2][z]], axis=-1)
        d, i = (np.asarray(found) for found in tree.query(point, k=3))
        own, other, third = np.moveaxis(i, -1, 0)
        second, last = (
            (d[..., n] ** 2 - d[..., 0] ** 2) / (2 * np.linalg.norm(seeds[i[..., n]] - seeds[own], axis=-1))
            for n in (1, 2)
        )
        # Distance from the edge of a wedge of 120 degrees, given the distances from its two faces.
        edge = np.sqrt((second**2 + last**2 - second * last) * (4 / 3))
        # A number that the three cells of an edge share decides whether a canaliculus runs along it.
        lot = (key[own] + key[other] + key[third]) % 1.0
        radius = np.where(lot < canaliculi, canaliculus * (0.7 + 0.6 * lot / canaliculi), -1.0)

        plane = inside[own] * np.where(d[..., 0] < nucleus[own], 0.35, 1.0)
        wall = np.minimum(0.72 * np.sqrt(brightness[own] * brightness[other]), 0.9)
        plane = _paint(plane, wall, membrane / 2 - second)
        density[z] = _paint(plane, 0.85 + 0.15 * lot / canaliculi, radius - edge)
        mask[z] = (second < membrane / 2) | (edge < radius)
    return density, mask


def _seeds(rng: np.random.Generator, shape: tuple[int, int, int], cell: float) -> NDArray[np.float64]:
    """Return jittered seeds (n, 3) in voxels, a layer of cells beyond every face; every tenth is missing."""
    counts = [math.ceil(n / cell) + 4 for n in shape]
    lattice = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).astype(np.float64)
    lattice[1::2, ..., 1:] += 0.5
    seeds = (lattice.reshape(-1, 3) - 2 + rng.uniform(-0.33, 0.33, (lattice.size // 3, 3))) * cell
    kept: NDArray[np.float64] = seeds[rng.random(len(seeds)) > 0.1]
    return kept


def _paint(
    plane: NDArray[np.float64], brightness: NDArray[np.float64], inside: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Lay a structure over the plane; ``inside`` is the distance within its surface, blended over 1 voxel."""
    cover = np.clip(inside + 0.5, 0, 1)
    return plane + cover * (brightness - plane)


def _add_vesicles(
    rng: np.random.Generator, density: Volume, mask: NDArray[np.bool_], radius: float, count: int
) -> None:
    """Draw ``count`` bright balls at random places into density and mask."""
    centres = rng.uniform(0, 1, (count, 3)) * density.shape
    for centre, brightness in zip(centres, rng.uniform(0.6, 1.0, count).astype(np.float32), strict=True):
        draw_balls(density, mask, centre[None], radius, float(brightness))
