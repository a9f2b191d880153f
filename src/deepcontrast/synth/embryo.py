"""Simulated embryo of known truth: crowded textured nuclei, in planes that lie too far apart."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from deepcontrast.errors import InputError, nearest
from deepcontrast.stack import Optics
from deepcontrast.synth import Phantom
from deepcontrast.synth._camera import expose, optics_of, photon_scale
from deepcontrast.synth._deep import Volume, check, smooth_noise

STAINS = ("nuclei", "envelope")


def embryo(
    *,
    shape: tuple[int, int, int] = (24, 160, 160),
    seed: int = 0,
    light: float = 100.0,
    stain: str = "nuclei",
    undersampling: float = 5.0,
    voxel_um: float = 0.4,
    radius_um: float = 2.2,
    gap_um: float = 1.4,
    crowding: float = 0.55,
    texture_um: float = 0.4,
    envelope_um: float = 0.25,
    cytoplasm: float = 0.03,
    psf_um: tuple[float, float] = (0.9, 0.28),
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated anisotropic stack of crowded nuclei, and its isotropic truth.

    Nuclei are textured ellipsoids of random size, axes, orientation and brightness. Their places are a random
    packing, relaxed until neighbours hardly overlap, without lattice or preferred direction; where two ellipsoids
    would meet they are cut flat, and a dim gap stays between them. All is drawn on an isotropic grid of
    N = round(Z * undersampling) planes, and beyond every face of it. The microscope blurs more along z than across
    and keeps Z planes: plane j is taken at (j - (Z - 1) / 2) * undersampling + (N - 1) / 2, between two planes of
    the grid by linear interpolation. Nothing fades with depth.

    Args:
        shape: (Z, Y, X) of raw: planes, and rows and columns in pixels.
        seed: of all nuclei and of the noise; equal arguments give equal bytes, another light, stain or camera the
            same nuclei.
        light: photons at the brightest structures (percentile 99.9) of truth.
        stain: what glows: ``nuclei`` (a histone label), or ``envelope``, a thin shell around the same nuclei.
        undersampling: distance of raw's planes in units of ``voxel_um``, at least 1; need not be whole.
        voxel_um: lateral size of raw's voxels, and side of truth's.
        radius_um: mean radius of a nucleus.
        gap_um: between nuclei that touch each other.
        crowding: share of space that nuclei with half the gap around them fill, before they are cut.
        texture_um: correlation length of the chromatin.
        envelope_um: standard deviation of the profile across the shell.
        cytoplasm: brightness between the nuclei; the brightest nuclei have about 1.
        psf_um: standard deviation of the point-spread function, axial and lateral.
        autofluorescence: constant background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        Truth is what the lateral point-spread function shows along all three axes, (N, Y, X); mask and labels mark
        whole nuclei, with either stain, on the same grid.

    Raises:
        InputError: a size or strength that is not positive, a shape that is not three sizes, an undersampling
            below 1, a crowding of 0.64 (random close packing) or more, another stain.

    Source: CARE's supplement, section 2.4.1 (crowded nuclei, planes 5 voxels apart, a point-spread function about
        4 times as long as wide) and 2.4.2 (nuclei with their envelope, planes 10.2 voxels apart).
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("cytoplasm",))
    if not 1 <= undersampling < math.inf:
        raise InputError(f"undersampling = {undersampling} of the planes; accepted: 1 or more")
    if crowding >= 0.64:
        raise InputError(f"crowding = {crowding} of the nuclei; accepted: below 0.64, random close packing")
    if stain not in STAINS:
        raise InputError(f"no stain '{stain}'; accepted: {', '.join(STAINS)}{nearest(stain, STAINS)}")

    planes = round(shape[0] * undersampling)
    margin = math.ceil((4 * max(psf_um) + 3 * (radius_um + gap_um / 2)) / voxel_um)
    field = (planes, *shape[1:])
    larger = (planes + 2 * margin, shape[1] + 2 * margin, shape[2] + 2 * margin)
    inside = tuple(slice(margin, margin + n) for n in field)

    rng = np.random.default_rng(seed)
    depth, labels, brightness = _nuclei(rng, larger, radius_um / voxel_um, gap_um / voxel_um, crowding)
    texture = smooth_noise(rng, larger, texture_um / voxel_um)
    glow = _chromatin(depth, texture) if stain == "nuclei" else _envelope(depth, envelope_um / voxel_um)
    structure = cytoplasm + glow * brightness[labels]
    labels = np.where(depth > 0, labels, 0)[inside]

    axial, lateral = (s / voxel_um for s in psf_um)
    truth = ndimage.gaussian_filter(structure, lateral)[inside]
    scale = photon_scale(truth, light)
    truth *= scale
    blurred = ndimage.gaussian_filter(structure, (axial, lateral, lateral))[:, *inside[1:]]
    photons = _planes(blurred, margin + plane_positions(shape[0], undersampling))
    photons = scale * photons + np.float32(light * autofluorescence)

    # Two stains are two exposures, each with noise of its own.
    camera = np.random.default_rng((seed, 1, STAINS.index(stain)))
    raw = expose(camera, photons, parameters)
    optics = optics_of(parameters, (undersampling * voxel_um, voxel_um, voxel_um))
    isotropic = Optics(voxel_size=(voxel_um, voxel_um, voxel_um), surface="first")
    return Phantom(raw, truth, labels > 0, optics, parameters, labels=labels, truth_optics=isotropic)


def plane_positions(planes: int, undersampling: float) -> NDArray[np.float64]:
    """Return where raw's planes (Z,) lie on truth's grid, in its planes; both grids have the same middle."""
    fine = round(planes * undersampling)
    return np.asarray((np.arange(planes) - (planes - 1) / 2) * undersampling + (fine - 1) / 2)


def _planes(volume: Volume, positions: NDArray[np.float64]) -> Volume:
    """Return planes (n, Y, X) of a volume at fractional positions (n,), linearly between its planes."""
    below = np.floor(positions).astype(int)
    share = (positions - below).astype(np.float32)[:, None, None]
    return np.asarray((1 - share) * volume[below] + share * volume[below + 1])


def _nuclei(
    rng: np.random.Generator, shape: tuple[int, int, int], radius: float, gap: float, crowding: float
) -> tuple[Volume, NDArray[np.int32], Volume]:
    """Return depth and number of the nearest nucleus at every voxel, and brightness by number; lengths in voxels.

    Depth is the distance inside the surface, to first order, negative outside; far outside it is -inf and the number 0.
    """
    count = math.ceil(crowding * math.prod(shape) / (4 / 3 * math.pi * (radius + gap / 2) ** 3))
    radii = radius * rng.uniform(0.8, 1.2, count)
    centres = _packed(rng, np.array(shape, float), radii + gap / 2)
    # Partly larger than the balls that were packed: what reaches into a neighbour's space is cut.
    axes = radii[:, None] * rng.uniform(0.9, 1.2, (count, 3))
    turns = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    brightness = np.concatenate([[0], rng.uniform(0.65, 1.0, count)]).astype(np.float32)

    first = np.full(shape, -np.inf, np.float32)
    second = first.copy()
    labels = np.zeros(shape, np.int32)
    # A neighbour cuts a nucleus where its own surface is nearer than the gap.
    beyond = gap + 2
    for number in range(count):
        centre, reach = centres[number], axes[number].max() + beyond
        starts = np.maximum(0, np.ceil(centre - reach)).astype(int)
        stops = np.minimum(shape, np.floor(centre + reach) + 1).astype(int)
        box = tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
        away = np.stack(np.meshgrid(*[np.arange(b.start, b.stop) for b in box], indexing="ij"), axis=-1) - centre
        scaled = np.linalg.norm((away @ turns[number]) / axes[number], axis=-1)
        depth = ((1 - scaled) * axes[number].mean()).astype(np.float32)
        depth[depth < -beyond] = -np.inf
        front = depth > first[box]
        second[box] = np.where(front, first[box], np.maximum(second[box], depth))
        first[box] = np.maximum(first[box], depth)
        labels[box][front] = number + 1
    free = np.isneginf(second)
    second[free] = 0
    cut = np.where(free, np.inf, (first - second - gap) / 2)
    return np.minimum(first, cut).astype(np.float32), labels, brightness


def _packed(rng: np.random.Generator, box: NDArray[np.float64], radii: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the centres (n, 3) of balls at random places in a periodic box, pushed apart until they hardly overlap."""
    centres = rng.uniform(size=(len(radii), 3)) * box
    for _ in range(100):
        # Twice, as a tiny negative number modulo the box is the box itself.
        centres = centres % box % box
        pairs = cKDTree(centres, boxsize=box).query_pairs(2 * radii.max(), output_type="ndarray")
        away = centres[pairs[:, 0]] - centres[pairs[:, 1]]
        away -= box * np.rint(away / box)
        distance = np.linalg.norm(away, axis=-1)
        overlap = np.maximum(radii[pairs].sum(axis=-1) - distance, 0)
        if overlap.max(initial=0) < 0.05 * radii.mean():
            break
        push = (0.5 * overlap / np.maximum(distance, 1e-9))[:, None] * away
        np.add.at(centres, pairs[:, 0], push)
        np.add.at(centres, pairs[:, 1], -push)
    return centres


def _chromatin(depth: Volume, texture: Volume) -> Volume:
    """Return how a DNA stain glows, given the depth inside the nucleus in voxels and a field of deviation 1."""
    return np.asarray(np.clip(depth + 0.5, 0, 1) * np.clip(0.8 + 0.25 * texture, 0.2, 1.4))


def _envelope(depth: Volume, width: float) -> Volume:
    """Return how the nuclear envelope glows: a Gaussian across the surface, ``width`` in voxels."""
    return np.asarray(np.exp(-0.5 * (depth / np.float32(width)) ** 2))
