"""Simulated mitochondria of known truth: worms, networks and grains around dark nuclei, seen by widefield."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deepcontrast.synth import Phantom
from deepcontrast.synth._deep import Volume, check
from deepcontrast.synth._walks import Points, scattered, walks
from deepcontrast.synth._widefield import around, check_ranges, check_shares, inside, picture, spot

SLICE_UM = 0.8
"""Thickness of the slice of a cell that a single plane stands for: what is in focus."""
CURVATURE = (0.8, 0.45)
"""Largest curvature in rad/um, and standard deviation of its change over 1 um."""
ROUND_UM = 0.2
"""Length of a grain's middle line: hardly longer than wide."""
FADE_UM = 5.0
"""Distance from the nucleus over which mitochondria get fewer, to 1/e."""
SHOWN = 0.25
"""Density above which a voxel is in the mask."""
AT_ONCE = 5_000
"""Balls drawn at once: enough to be fast, few enough for the memory."""


def draw(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    voxel_um: tuple[float, float, float],
    width_um: tuple[float, float] = (0.3, 0.7),
    length_um: float = 4.0,
    density: tuple[float, float] = (0.2, 0.6),
    branching: float = 0.6,
    grains: float = 0.3,
    cell_um: float = 22.0,
    nucleus_um: float = 9.0,
    spread: float = 0.25,
) -> NDArray[np.float32]:
    """Return the density of fluorophores of mitochondria, not blurred.

    A mitochondrion is a tube around a walk whose curvature walks at random and is clipped, or a grain. Branches begin
    on another one, of which they have width and brightness. None is inside a nucleus, and they get fewer away from it.

    Args:
        rng: of everything random.
        shape: (Z, Y, X); of a single plane, all middle lines lie in it.
        voxel_um: size of a voxel (z, y, x).
        width_um: least and largest thickness.
        length_um: mean length of what is no grain; lengths are of a gamma distribution of shape 3.
        density: least and largest number beside the nucleus per area, in 1/um^2, of a slice of 0.8 um; drawn once,
            evenly in its logarithm. Branches come on top.
        branching: mean number of branches of one that is no grain.
        grains: share of grains.
        cell_um: mean distance of nuclei.
        nucleus_um: mean diameter of a nucleus.
        spread: standard deviation of the logarithm of the brightness.

    Returns:
        (Z, Y, X); 1 is the inside of a mitochondrion of median brightness. The surface is blended over a pixel;
        where tubes overlap the brightest is seen.

    Raises:
        InputError: a size or strength that is not positive, a range whose end is below its start, a share above 1, a
            shape that is not three sizes.

    Source: HeLa cells with labelled mitochondria: Semi-Synthetic Test Data Generation and Content-aware Image
        Restoration of Fluorescent Microscopy Images, section 3; the walks: CARE's supplement, section 2.5.1.
    """
    parameters = dict(locals())
    del parameters["rng"]
    check(parameters, may_be_zero=("branching", "grains", "spread"))
    check_ranges("mitochondria", width_um=width_um, density=density)
    check_shares("mitochondria", grains=grains)
    per_um2 = math.exp(rng.uniform(*np.log(density)))
    space = shape[0] > 1
    longest = 2 * length_um
    places = scattered(rng, shape, voxel_um, longest, per_um2 / (SLICE_UM if space else 1))
    nuclei = _nuclei(rng, shape, voxel_um, cell_um, nucleus_um)
    places = places[rng.uniform(size=len(places)) < np.exp(-np.maximum(nuclei.beyond(places), 0) / FADE_UM)]
    grain = rng.uniform(size=len(places)) < grains
    lengths = np.where(grain, ROUND_UM, np.minimum(rng.gamma(3, length_um / 3, len(places)), longest))
    radii = rng.uniform(*width_um, len(places)) / 2
    bright = rng.lognormal(0, spread, len(places))

    stems, owners = _lines(rng, places, lengths, voxel_um[2], space)
    # A branch begins at a random point of its stem, and is shorter.
    parents = np.repeat(np.arange(len(places)), rng.poisson(branching * ~grain))
    first, last = np.searchsorted(owners, [parents, parents + 1])
    knots = stems[rng.integers(first, last)]
    branches, twigs = _lines(rng, knots, lengths[parents] * rng.uniform(0.2, 0.8, len(parents)), voxel_um[2], space)

    points, owners = np.concatenate([stems, branches]), np.concatenate([owners, parents[twigs]])
    outside = nuclei.beyond(points) > radii[owners]
    drawn = np.zeros(shape, np.float32)
    _balls(drawn, points[outside], radii[owners[outside]], bright[owners[outside]], voxel_um)
    return drawn


def mitochondria(
    *,
    shape: tuple[int, int, int] = (48, 256, 256),
    seed: int = 0,
    light: float = 400.0,
    voxel_um: tuple[float, float, float] = (0.25, 0.1, 0.1),
    width_um: tuple[float, float] = (0.3, 0.7),
    length_um: float = 4.0,
    density: tuple[float, float] = (0.2, 0.6),
    branching: float = 0.6,
    grains: float = 0.3,
    cell_um: float = 22.0,
    nucleus_um: float = 9.0,
    spread: float = 0.25,
    na: float = 1.3,
    wavelength_um: float = 0.58,
    index: float = 1.518,
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated widefield stack of mitochondria, and what is really there.

    What is drawn, and by which law, says :func:`draw`. The cell is clear: nothing fades or scatters with depth.

    Args:
        shape: (Z, Y, X) in voxels; a single plane is a picture of mitochondria that are all in focus.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest mitochondria (percentile 99.9) of truth, where no light is spread by any blur.
        voxel_um: size of a voxel (z, y, x).
        width_um: least and largest thickness.
        length_um: mean length of what is no grain.
        density: least and largest number beside the nucleus per area, in 1/um^2, of a slice of 0.8 um.
        branching: mean number of branches of one that is no grain.
        grains: share of grains.
        cell_um: mean distance of nuclei.
        nucleus_um: mean diameter of a nucleus.
        spread: standard deviation of the logarithm of the brightness.
        na: numerical aperture.
        wavelength_um: emission wavelength in vacuum.
        index: refractive index of the immersion medium.
        autofluorescence: mean of the background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        Truth is the density in photons, not blurred; the mask is where it is above a quarter of the median's.

    Raises:
        InputError: as `draw`; an aperture the index does not allow, or next to nothing in the field.

    Source: HeLa cells with labelled mitochondria: Semi-Synthetic Test Data Generation and Content-aware Image
        Restoration of Fluorescent Microscopy Images, section 3.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("branching", "grains", "spread"))
    rng = np.random.default_rng(seed)
    kernel = spot(parameters)
    structure = draw(
        rng,
        around(shape, kernel),
        voxel_um=voxel_um,
        width_um=width_um,
        length_um=length_um,
        density=density,
        branching=branching,
        grains=grains,
        cell_um=cell_um,
        nucleus_um=nucleus_um,
        spread=spread,
    )
    return picture(rng, structure, kernel, inside(structure, shape) > SHOWN, parameters)


@dataclass(frozen=True, eq=False)
class _Nuclei:
    """Ellipsoids in um: centres (n, 3), semi-axes (n, 3), and angles (n,) of the second axis in the plane."""

    centres: Points
    axes: Points
    angles: NDArray[np.float64]

    def beyond(self, points: Points) -> NDArray[np.float64]:
        """Return how far points (m, 3) are outside the nearest nucleus, to first order; negative inside."""
        nearest = np.full(len(points), np.inf)
        for centre, axes, angle in zip(self.centres, self.axes, self.angles, strict=True):
            z, y, x = (points - centre).T
            along, across = math.cos(angle) * y + math.sin(angle) * x, math.cos(angle) * x - math.sin(angle) * y
            scaled = np.sqrt((z / axes[0]) ** 2 + (along / axes[1]) ** 2 + (across / axes[2]) ** 2)
            nearest = np.minimum(nearest, (scaled - 1) * axes.mean())
        return nearest


def _nuclei(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    voxel_um: tuple[float, float, float],
    cell_um: float,
    nucleus_um: float,
) -> _Nuclei:
    """Return nuclei at jittered places of a lattice in the middle plane, outside the field too."""
    counts = [math.ceil(n * v / cell_um) + 2 for n, v in zip(shape[1:], voxel_um[1:], strict=True)]
    lattice = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 2)
    flat = (lattice - 1 + rng.uniform(size=2) + rng.uniform(-0.2, 0.2, lattice.shape)) * cell_um
    middle = (shape[0] - 1) / 2 * voxel_um[0]
    centres = np.column_stack([np.full(len(flat), middle), flat])
    axes = nucleus_um / 2 * rng.uniform((0.5, 0.9, 0.7), (0.7, 1.3, 1.0), (len(flat), 3))
    return _Nuclei(centres, axes, rng.uniform(0, math.pi, len(flat)))


def _lines(
    rng: np.random.Generator, starts: Points, lengths: NDArray[np.float64], step: float, space: bool
) -> tuple[Points, NDArray[np.int64]]:
    """Return points (n, 3) a step apart along walks from their starts (m, 3), in um, and the number of each's walk."""
    counts = 1 + np.rint(lengths / step).astype(int)
    bend, change = CURVATURE
    walked = walks(
        rng,
        len(starts),
        int(counts.max(initial=1)),
        bend=bend * step / (2 * math.pi),
        change=change * math.sqrt(step) * step / (2 * math.pi),
        space=space,
    )
    paths = starts[:, None] + step * (np.cumsum(walked.directions, axis=1) - walked.directions[:, :1])
    walk, place = np.nonzero(np.arange(paths.shape[1]) < counts[:, None])
    return paths[walk, place], walk


def _balls(
    drawn: Volume,
    centres: Points,
    radii: NDArray[np.float64],
    bright: NDArray[np.float64],
    voxel_um: tuple[float, float, float],
) -> None:
    """Draw balls (n, 3) of radii (n,), in um, into a density; where they overlap the brightest is seen.

    The surface is blended over a pixel. In a single plane the middles lie in it, at 0, and what is drawn are discs.
    """
    voxel = np.array(voxel_um)
    reach = radii.max(initial=0) + voxel_um[2] / 2
    halves = [math.ceil(reach / v) if n > 1 else 0 for n, v in zip(drawn.shape, voxel_um, strict=True)]
    around = np.stack(np.meshgrid(*[np.arange(-h, h + 1) for h in halves], indexing="ij"), axis=-1).reshape(-1, 3)
    around = around[np.linalg.norm(np.maximum(np.abs(around) - 0.5, 0) * voxel, axis=-1) < reach]
    near = ((centres > -reach) & (centres < np.array(drawn.shape) * voxel + reach)).all(axis=-1)
    order = np.nonzero(near)[0]
    flat = drawn.reshape(-1)
    for part in np.split(order, range(AT_ONCE, len(order), AT_ONCE)):
        middle = np.rint(centres[part] / voxel).astype(np.int64)
        off = (middle * voxel - centres[part]).astype(np.float32)
        away = off[:, None] + (around * voxel).astype(np.float32)
        distance = np.sqrt((away**2).sum(axis=-1))
        value = np.clip((radii[part].astype(np.float32)[:, None] - distance) / np.float32(voxel_um[2]) + 0.5, 0, 1)
        voxels = middle[:, None] + around
        kept = (value > 0) & ((voxels >= 0) & (voxels < drawn.shape)).all(axis=-1)
        value *= bright[part].astype(np.float32)[:, None]
        np.maximum.at(flat, np.ravel_multi_index(tuple(voxels[kept].T), drawn.shape), value[kept])
