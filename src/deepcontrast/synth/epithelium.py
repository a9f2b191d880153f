"""Simulated epithelium of known truth: a curved sheet of cells below a second, brighter layer, under a microscope."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from deepcontrast.stack import Optics
from deepcontrast.synth import Phantom
from deepcontrast.synth._camera import expose, optics_of, photon_scale
from deepcontrast.synth._deep import Volume, check, smooth_noise

Plane = NDArray[np.float32]

BASOLATERAL = 0.08
"""Brightness of membranes below their apical band, where E-cadherin is sparse."""
ABSENT = 0.3
"""Share of the field above which there is no second layer."""


def epithelium(
    *,
    shape: tuple[int, int, int] = (30, 192, 192),
    seed: int = 0,
    noise_seed: int = 0,
    light: float = 50.0,
    voxel_um: tuple[float, float] = (0.8, 0.2),
    cell_um: float = 4.5,
    membrane_um: float = 0.4,
    band_um: float = 0.7,
    cytoplasm: float = 0.04,
    curvature_um: float = 9.0,
    second_layer: float = 1.2,
    second_cell_um: float = 11.0,
    gap_um: float = 4.0,
    psf_um: tuple[float, float] = (0.7, 0.18),
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated stack of a curved epithelium below a second layer, and its projection.

    Cells are the Voronoi regions of jittered seeds in gently warped space. Their membranes differ in brightness
    from cell to cell and from edge to edge and glow in a thin band around the apical surface; below it are faint
    cytoplasm and fainter membranes. The surface is a smooth random one that spans a third to a half of the planes.
    Above it, never nearer than ``gap_um``, lies a second layer (the peripodial membrane of a wing disc): large
    flat cells and blobs, some of them brighter than the sheet, absent in places. It spans planes in which the sheet
    is elsewhere, so that no choice of planes takes it away, and a maximum along z shows it instead of the sheet.

    Args:
        shape: (Z, Y, X) in voxels.
        seed: of all structures, and with ``noise_seed`` of the noise; equal arguments give equal bytes.
        noise_seed: another gives another exposure of the same structures, as in a movie.
        light: photons at the brightest membranes (percentile 99.9) of truth.
        voxel_um: size of a voxel, axial and lateral.
        cell_um: mean distance of neighbouring cells of the sheet.
        membrane_um: thickness of a membrane.
        band_um: standard deviation of the apical band along z.
        cytoplasm: brightness below the surface; the brightest membranes have about 1.
        curvature_um: correlation length of the surface.
        second_layer: brightness of the second layer in units of the sheet's; 0 for none.
        second_cell_um: mean distance of neighbouring cells of the second layer.
        gap_um: smallest distance of the second layer from the sheet along z.
        psf_um: standard deviation of the point-spread function, axial and lateral.
        autofluorescence: constant background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        Truth (1, Y, X) is the sheet alone as the point-spread function shows it, taken where the surface is;
        height (Y, X) says where. Labels number the cells of the sheet, the mask marks its membranes, both (1, Y, X).

    Raises:
        InputError: a size or strength that is not positive, or a shape that is not three sizes.

    Source: the developing fly wing of CARE's supplement, section 2.3.3.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("cytoplasm", "second_layer"))
    axial, lateral = voxel_um
    field = shape[1:]
    rng = np.random.default_rng(seed)
    sheet = _cells(rng, field, cell_um / lateral, membrane_um / lateral)
    height = _height(rng, shape, curvature_um / lateral)
    z = np.arange(shape[0], dtype=np.float32)[:, None, None]
    density = _sheet(sheet, (z - height) * np.float32(axial), band_um, cytoplasm)
    above = height - gap_um / axial * (1 + 0.6 * _unit(_smooth(rng, field, curvature_um / lateral)))
    layer = _second_layer(rng, field, second_cell_um / lateral, lateral, (z - above) * np.float32(axial), band_um)

    psf = (psf_um[0] / axial, psf_um[1] / lateral, psf_um[1] / lateral)
    photons = ndimage.gaussian_filter(density, psf)
    # Of third order, as the band is hardly wider than the distance of planes: linearly its brightness would ripple.
    truth = ndimage.map_coordinates(photons, (height, *np.indices(field)), np.float32, order=3, mode="nearest")
    truth = np.maximum(truth, 0)[None]
    scale = photon_scale(truth, light)
    photons += np.float32(second_layer) * ndimage.gaussian_filter(layer, psf)
    photons = scale * photons + np.float32(light * autofluorescence)

    camera = np.random.default_rng((seed, 1, noise_seed))
    flat = Optics(voxel_size=(None, lateral, lateral), surface="first")
    return Phantom(
        expose(camera, photons, parameters),
        scale * truth,
        sheet.labels[None] == 0,
        optics_of(parameters, (axial, lateral, lateral)),
        parameters,
        labels=sheet.labels[None],
        height=height,
        truth_optics=flat,
    )


@dataclass(frozen=True, eq=False)
class _Cells:
    """A flat layer of cells, all (Y, X): brightness of the membranes, of the cytoplasm, and the cells' numbers."""

    membranes: Plane
    cytoplasm: Plane
    labels: NDArray[np.int32]


def _cells(rng: np.random.Generator, field: tuple[int, int], cell: float, membrane: float) -> _Cells:
    """Return cells whose distance and membranes are given in pixels."""
    seeds = _seeds(rng, field, cell)
    brightness = rng.lognormal(0, 0.3, len(seeds))
    key = rng.random(len(seeds))
    warp = [0.08 * cell * _smooth(rng, field, cell / 3) for _ in range(2)]
    clusters = np.exp(0.25 * _smooth(rng, field, max(0.5, membrane / 2)))
    rows, columns = np.indices(field)
    point = np.stack([rows + warp[0], columns + warp[1]], axis=-1)
    distance, nearest = (np.asarray(found) for found in cKDTree(seeds).query(point, k=2))
    own, other = nearest[..., 0], nearest[..., 1]
    between = np.linalg.norm(seeds[other] - seeds[own], axis=-1)
    edge = (distance[..., 1] ** 2 - distance[..., 0] ** 2) / (2 * between)
    # A number that the two cells of an edge share.
    lot = (key[own] + key[other]) % 1.0
    wall = 0.6 * np.sqrt(brightness[own] * brightness[other]) * (0.5 + lot) * clusters
    membranes = np.clip(membrane / 2 - edge + 0.5, 0, 1) * wall
    labels = np.where(edge < membrane / 2, 0, own + 1).astype(np.int32)
    return _Cells(membranes.astype(np.float32), brightness[own].astype(np.float32), labels)


def _seeds(rng: np.random.Generator, field: tuple[int, int], cell: float) -> NDArray[np.float64]:
    """Return jittered hexagonal seeds (n, 2) in pixels, cells beyond every side too."""
    step = cell * np.array([math.sqrt(3) / 2, 1])
    counts = [math.ceil(n / s) + 5 for n, s in zip(field, step, strict=True)]
    lattice = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).astype(np.float64)
    lattice[1::2, :, 1] += 0.5
    seeds: NDArray[np.float64] = (lattice.reshape(-1, 2) - 2.5 + rng.uniform(-0.3, 0.3, (lattice.size // 2, 2))) * step
    return seeds


def _height(rng: np.random.Generator, shape: tuple[int, int, int], sigma: float) -> Plane:
    """Return the plane (Y, X) of the surface; it leaves room above for the second layer and a little below."""
    lowest = 0.87 * (shape[0] - 1)
    span = rng.uniform(1 / 3, 1 / 2) * (shape[0] - 1)
    return (lowest - span * _unit(_smooth(rng, (shape[1], shape[2]), sigma))).astype(np.float32)


def _sheet(cells: _Cells, below: Volume, band: float, cytoplasm: float) -> Volume:
    """Return the density (Z, Y, X) of the sheet, given how far every voxel is below its surface, in um."""
    apical = np.exp(-0.5 * (below / np.float32(band)) ** 2)
    # Cells end softly at their surface and fade over their height.
    body = np.where(below > 0, 1 - apical, 0) * np.exp(-np.maximum(below, 0) / 6)
    return np.asarray(apical * cells.membranes + body * (cytoplasm * cells.cytoplasm + BASOLATERAL * cells.membranes))


def _second_layer(
    rng: np.random.Generator, field: tuple[int, int], cell: float, pixel_um: float, below: Volume, band: float
) -> Volume:
    """Return the density (Z, Y, X) of the second layer, given how far every voxel is below it, in um."""
    cells = _cells(rng, field, cell, 0.8 / pixel_um)
    blobs = np.clip(_smooth(rng, field, 0.7 / pixel_um) - 1.6, 0, 1.5)
    patches = _smooth(rng, field, cell / 2)
    present = np.clip(3 * (patches - np.quantile(patches, ABSENT)), 0, 1)
    flat = np.exp(-0.5 * (below / np.float32(band)) ** 2)
    thick = np.exp(-0.5 * (below / np.float32(1.5 * band)) ** 2)
    return np.asarray(present * (flat * (cells.membranes + 0.1 * cells.cytoplasm) + thick * blobs))


def _smooth(rng: np.random.Generator, field: tuple[int, int], sigma: float) -> Plane:
    """Return a smooth random plane (Y, X) of deviation 1 over many ``sigma``, cut from a larger one."""
    margin = math.ceil(3 * sigma)
    larger = smooth_noise(rng, (1, field[0] + 2 * margin, field[1] + 2 * margin), sigma)
    return larger[0, margin : margin + field[0], margin : margin + field[1]]


def _unit(plane: Plane) -> Plane:
    """Return the plane stretched to 0 .. 1."""
    return np.asarray((plane - plane.min()) / np.maximum(np.ptp(plane), np.float32(1e-9)))
