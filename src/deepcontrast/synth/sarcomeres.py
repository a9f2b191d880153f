"""Simulated heart muscle cells of known truth: the z-discs of their sarcomeres, seen by widefield."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter

from deepcontrast.perlin import perlin
from deepcontrast.synth import Phantom
from deepcontrast.synth._deep import Volume, check
from deepcontrast.synth._widefield import around, check_ranges, check_shares, inside, picture, spot

Table = NDArray[np.float64]

WAVE_UM = 14.0
"""Period of all that is not straight."""
WINDING_UM = 0.8
"""Amplitude of how fibrils wind, along the planes and along z."""
BENDING_UM = 0.4
"""Amplitude of how rows of discs bend: small, as it stretches sarcomeres."""
WARP_UM = 1.6
"""Amplitude of how the borders between cells wind."""
GAP_UM = 0.2
"""Between neighbouring fibrils."""
BORDER_UM = 1.0
"""Between cells, where there are no fibrils."""
BLOCK = 8
"""Sarcomeres over which a dislocation comes and goes."""
MEMORY = 0.8
"""Share of a fibril's shift that its neighbour takes over."""
ROWS = 64
"""Discs of a fibril, and fibrils of a layer, after which their random numbers come again."""
SHOWN = 0.25
"""Density above which a voxel is in the mask."""


def draw(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    voxel_um: tuple[float, float, float],
    spacing_um: tuple[float, float] = (1.8, 2.2),
    thickness_um: tuple[float, float] = (0.1, 0.2),
    fibril_um: float = 1.2,
    cell_um: float = 25.0,
    turn: float = 0.5,
    shear_um: float = 0.06,
    dislocations: float = 0.06,
    gaps: float = 0.06,
    spread: float = 0.25,
) -> NDArray[np.float32]:
    """Return the density of fluorophores of z-discs, not blurred.

    A cell is a region of its own direction, sarcomere length and thickness of disc. In it fibrils run side by side
    along the direction, winding a little, each a stack of discs across it. Neighbours are in register up to a small
    random shift, and here and there a dislocation of up to half a sarcomere that comes and goes along the fibril; a
    shift is handed on from fibril to fibril, and fades. Some discs are missing.

    Args:
        rng: of everything random.
        shape: (Z, Y, X); a single plane is a section along the fibrils.
        voxel_um: size of a voxel (z, y, x).
        spacing_um: least and largest distance of discs, one for each cell.
        thickness_um: least and largest thickness of a disc, one for each cell.
        fibril_um: mean distance of neighbouring fibrils; their widths are 0.7 to 1.3 of it.
        cell_um: mean distance of the middles of cells.
        turn: standard deviation of a cell's direction from that of the picture, rad.
        shear_um: standard deviation of the shift between neighbouring fibrils.
        dislocations: share of neighbours that are out of register.
        gaps: share of missing discs.
        spread: standard deviation of the logarithm of a disc's brightness.

    Returns:
        (Z, Y, X); 1 is a voxel filled by a disc of median brightness. A thinner disc has its share of a pixel, and the
        faces are blended over one.

    Raises:
        InputError: a size or strength that is not positive, a range whose end is below its start, a share above 1, a
            shape that is not three sizes.

    Source: z-discs of cardiomyocytes: Semi-Synthetic Test Data Generation and Content-aware Image
        Restoration of Fluorescent Microscopy Images, section 3.
    """
    parameters = dict(locals())
    del parameters["rng"]
    check(parameters, may_be_zero=("turn", "shear_um", "dislocations", "gaps", "spread"))
    check_ranges("sarcomeres", spacing_um=spacing_um, thickness_um=thickness_um)
    check_shares("sarcomeres", dislocations=dislocations, gaps=gaps)
    sides = np.array(shape) * voxel_um
    pixel = voxel_um[2]
    cells = _cells(rng, (sides[1], sides[2]), spacing_um, thickness_um, cell_um, turn)
    # Along its direction a cell reaches no further than the field does.
    far = 2 * math.hypot(*(sides[1:] + 4 * cell_um))
    walls = [np.cumsum(fibril_um * rng.uniform(0.7, 1.3, math.ceil(1.5 * r / fibril_um) + 4)) for r in (far, sides[0])]
    walls = [w - w[-1] * start for w, start in zip(walls, (0.5, 0.1), strict=True)]
    layers = len(walls[1]) if shape[0] > 1 else 1
    table = (len(cells.angles), layers, ROWS, ROWS)
    bright = rng.lognormal(0, spread, table) * (rng.uniform(size=table) >= gaps)
    jumps = rng.uniform(-0.5, 0.5, table) * (rng.uniform(size=table) < dislocations)
    steps = rng.normal(0, shear_um, (*table[:3], 1)) + cells.spacings[:, None, None, None] * jumps
    # Shifts that only added up would stretch sarcomeres where they differ along the fibrils.
    shifts = lfilter([1], [1, -MEMORY], steps, axis=2)

    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    periods = [WAVE_UM / v for v in voxel_um[1:]]
    warp_y, warp_x, bending, winding, rising = (
        amplitude * perlin(shape[1:], periods, generator=generator).numpy()
        for amplitude in (WARP_UM, WARP_UM, BENDING_UM, WINDING_UM, WINDING_UM)
    )
    rows, columns = (np.arange(n) * v for n, v in zip(shape[1:], voxel_um[1:], strict=True))
    own, border = cells.nearest(rows[:, None] + warp_y, columns + warp_x)
    y, x = rows[:, None] - cells.middles[own, 0], columns - cells.middles[own, 1]
    sine, cosine = np.sin(cells.angles)[own], np.cos(cells.angles)[own]
    along, across = cosine * x + sine * y + bending, cosine * y - sine * x + winding
    fibril, room = _between(walls[0], across)
    within = _blend(np.minimum(room - GAP_UM / 2, border - BORDER_UM / 2), pixel)
    spacing, thick = cells.spacings[own], cells.thicknesses[own]
    # Where a disc is thinner than a pixel it fills a part of it.
    most = np.minimum(1, thick / pixel)

    drawn = np.empty(shape, np.float32)
    for plane, z in zip(drawn, np.arange(shape[0]) * voxel_um[0], strict=True):
        layer, depth = _between(walls[1], z + rising) if layers > 1 else (np.zeros_like(own), None)
        inner = within if depth is None else within * _blend(depth - GAP_UM / 2, voxel_um[0])
        place = (own, layer, fibril % ROWS)
        block = along / (BLOCK * spacing)
        first = np.floor(block).astype(int)
        ahead = block - first
        shift = shifts[*place, first % ROWS] * (1 - ahead) + shifts[*place, (first + 1) % ROWS] * ahead
        number = np.rint((along - shift) / spacing).astype(int)
        away = np.abs(along - shift - number * spacing)
        filled = np.clip((thick / 2 - away) / pixel + 0.5, 0, most)
        plane[:] = inner * filled * bright[*place, number % ROWS]
    return drawn


def sarcomeres(
    *,
    shape: tuple[int, int, int] = (48, 256, 256),
    seed: int = 0,
    light: float = 400.0,
    voxel_um: tuple[float, float, float] = (0.3, 0.15, 0.15),
    spacing_um: tuple[float, float] = (1.8, 2.2),
    thickness_um: tuple[float, float] = (0.1, 0.2),
    fibril_um: float = 1.2,
    cell_um: float = 25.0,
    turn: float = 0.5,
    shear_um: float = 0.06,
    dislocations: float = 0.06,
    gaps: float = 0.06,
    spread: float = 0.25,
    na: float = 1.3,
    wavelength_um: float = 0.58,
    index: float = 1.518,
    autofluorescence: float = 0.02,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated widefield stack of the z-discs of heart muscle cells, and what is really there.

    What is drawn, and by which law, says :func:`draw`. The cell is clear: nothing fades or scatters with depth.

    Args:
        shape: (Z, Y, X) in voxels; a single plane is a picture of discs that are all in focus.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest discs (percentile 99.9) of truth, where no light is spread by any blur.
        voxel_um: size of a voxel (z, y, x).
        spacing_um: least and largest distance of discs, one for each cell.
        thickness_um: least and largest thickness of a disc, one for each cell.
        fibril_um: mean distance of neighbouring fibrils.
        cell_um: mean distance of the middles of cells.
        turn: standard deviation of a cell's direction from that of the picture, rad.
        shear_um: standard deviation of the shift between neighbouring fibrils.
        dislocations: share of neighbours that are out of register.
        gaps: share of missing discs.
        spread: standard deviation of the logarithm of a disc's brightness.
        na: numerical aperture.
        wavelength_um: emission wavelength in vacuum.
        index: refractive index of the immersion medium.
        autofluorescence: mean of the background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        Truth is the density in photons, not blurred; the mask is where it is above a quarter of a filled voxel's.

    Raises:
        InputError: as `draw`; an aperture the index does not allow, or next to nothing in the field.

    Source: z-discs of cardiomyocytes: Semi-Synthetic Test Data Generation and Content-aware Image
        Restoration of Fluorescent Microscopy Images, section 3.
    """
    parameters = dict(locals())
    check(parameters, may_be_zero=("turn", "shear_um", "dislocations", "gaps", "spread"))
    rng = np.random.default_rng(seed)
    kernel = spot(parameters)
    structure = draw(
        rng,
        around(shape, kernel),
        voxel_um=voxel_um,
        spacing_um=spacing_um,
        thickness_um=thickness_um,
        fibril_um=fibril_um,
        cell_um=cell_um,
        turn=turn,
        shear_um=shear_um,
        dislocations=dislocations,
        gaps=gaps,
        spread=spread,
    )
    return picture(rng, structure, kernel, inside(structure, shape) > SHOWN, parameters)


@dataclass(frozen=True, eq=False)
class _Cells:
    """Regions of the plane, in um: middles (n, 2); directions, distances and thicknesses of their discs (n,)."""

    middles: Table
    angles: Table
    spacings: Table
    thicknesses: Table

    def nearest(self, y: Table, x: Table) -> tuple[NDArray[np.int64], Table]:
        """Return the number of the cell at every place, and the distance from its border in um."""
        own = np.zeros(np.broadcast_shapes(y.shape, x.shape), np.int64)
        first = np.full(own.shape, np.inf)
        for number, (row, column) in enumerate(self.middles):
            squared = (y - row) ** 2 + (x - column) ** 2
            own[squared < first] = number
            first = np.minimum(first, squared)
        between = np.linalg.norm(self.middles[:, None] - self.middles, axis=-1)
        np.fill_diagonal(between, np.inf)
        # The wall between two cells is where both middles are equally far.
        away = np.full(own.shape, np.inf)
        for number, (row, column) in enumerate(self.middles):
            wall = ((y - row) ** 2 + (x - column) ** 2 - first) / (2 * between[own, number])
            away = np.where(own == number, away, np.minimum(away, wall))
        return own, away


def _cells(
    rng: np.random.Generator,
    sides: tuple[float, float],
    spacing_um: tuple[float, float],
    thickness_um: tuple[float, float],
    cell_um: float,
    turn: float,
) -> _Cells:
    """Return cells at jittered places of a lattice, outside the field too, turned about one random direction."""
    counts = [math.ceil(side / cell_um) + 2 for side in sides]
    lattice = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 2)
    middles = (lattice - 1 + rng.uniform(size=2) + rng.uniform(-0.3, 0.3, lattice.shape)) * cell_um
    angles = rng.uniform(0, math.pi) + rng.normal(0, turn, len(middles))
    return _Cells(middles, angles, rng.uniform(*spacing_um, len(middles)), rng.uniform(*thickness_um, len(middles)))


def _between(walls: Table, places: NDArray[np.floating]) -> tuple[NDArray[np.int64], Table]:
    """Return between which two walls places lie, and how far they are from the nearer one; walls ascend."""
    upper = np.clip(np.searchsorted(walls, places), 1, len(walls) - 1)
    return upper, np.minimum(np.abs(walls[upper] - places), np.abs(places - walls[upper - 1]))


def _blend(depth: Table, over: float) -> Volume:
    """Return 1 inside and 0 outside, blended over a length about the surface, given the depth below it."""
    return np.clip(depth / over + 0.5, 0, 1).astype(np.float32)
