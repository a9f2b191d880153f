"""Simulated tubules of known truth, far thinner than a pixel: microtubules and their bundles, seen by widefield."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.synth import Phantom
from deepcontrast.synth._deep import check
from deepcontrast.synth._walks import SUBPIXELS, Points, Walks, deposit, scattered, walks
from deepcontrast.synth._widefield import around, check_ranges, inside, picture, spot

SLICE_UM = 1.0
"""Thickness of the slice of a cell that a single plane stands for: what is in focus."""
SHOWN = 0.1
"""Density above which a voxel is in the mask: what a tenth of a straight tubule through it gives."""

AT_ONCE = 2000
"""Bundles drawn at once: enough to be fast; all of a large stack need gigabytes."""


def draw(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    *,
    voxel_um: tuple[float, float, float],
    width_um: float = 0.025,
    density: tuple[float, float] = (0.5, 2.5),
    length_um: float = 12.0,
    curvature: float = 0.35,
    curvature_change: float = 0.1,
    bundle: int = 8,
    spacing_um: float = 0.06,
    brightness: tuple[float, float] = (0.5, 1.5),
) -> NDArray[np.float32]:
    """Return the density of fluorophores of tubules and bundles of tubules, not blurred.

    A bundle follows a walk whose curvature walks at random and is clipped. The source gives it for step n in the
    complex plane, as kappa_n = exp(2 pi i clip[kappa_0 + W_n]) and v_n = v_0 exp(2 pi i sum kappa): with a complex
    kappa the speed would grow or fade without bound, so kappa_n is taken as clip[kappa_0 + W_n], in turns per step,
    and its exponential as what it is, the turn of v from one step to the next. W_n is the sum of n normal numbers; the
    step is a quarter of a pixel, and x_0 is such that the middle of the walk lies at a random place. In space the
    curvature is a vector across the walk whose length is clipped, and walks run mostly along the planes.
    A bundle of n tubules holds them side by side, at random within ``spacing_um`` sqrt(n - 1); every tubule begins and
    ends elsewhere. Small bundles are more frequent: n in proportion to 1 / n^2.

    Args:
        rng: of everything random.
        shape: (Z, Y, X); of a single plane, all tubules lie in it.
        voxel_um: size of a voxel (z, y, x).
        width_um: of a tubule, at most a pixel.
        density: least and largest length of bundles per area, in 1/um, of a slice of 1 um; drawn once, evenly in its
            logarithm.
        length_um: of a bundle; a tubule has 0.7 of it in the mean.
        curvature: where it is clipped, in rad/um: one over the smallest radius.
        curvature_change: standard deviation of the change of the curvature over 1 um, in rad/um.
        bundle: most tubules in a bundle.
        spacing_um: width of a bundle of two; n tubules are sqrt(n - 1) times as wide.
        brightness: least and largest brightness of a tubule.

    Returns:
        (Z, Y, X); a straight tubule of brightness 1, at most half a pixel wide, along x through the middle of voxels
        has 1 in them. Every tubule has the same mass for its length in any direction, 1 / (size of a voxel along x)
        per um, spread linearly over a quarter of a voxel; where tubules overlap they add up.

    Raises:
        InputError: a size or strength that is not positive, a range whose end is below its start, a tubule wider
            than a pixel, a shape that is not three sizes.

    Source: CARE's supplement, section 2.5.1 and figure 21.
    """
    parameters = dict(locals())
    del parameters["rng"]
    check(parameters)
    check_ranges("tubules", density=density, brightness=brightness)
    if width_um > voxel_um[2]:
        raise InputError(f"width_um = {width_um} of the tubules; accepted: at most a pixel, {voxel_um[2]}")
    step = voxel_um[2] / SUBPIXELS
    steps = max(2, round(length_um / step))
    per_um2 = math.exp(rng.uniform(*np.log(density)))
    space = shape[0] > 1
    middles = scattered(rng, shape, voxel_um, length_um / 2, per_um2 / (SLICE_UM if space else 1) / length_um)
    drawn = np.zeros(shape, np.float32)
    for part in np.split(middles, range(AT_ONCE, len(middles), AT_ONCE)):
        walked = walks(
            rng,
            len(part),
            steps,
            bend=curvature * step / (2 * math.pi),
            change=curvature_change * math.sqrt(step) * step / (2 * math.pi),
            space=space,
        )
        points, bright = _strands(rng, part, walked, step, width_um, bundle, spacing_um, brightness)
        deposit(drawn, points / voxel_um, bright / SUBPIXELS)
    return drawn


def tubules(
    *,
    shape: tuple[int, int, int] = (48, 256, 256),
    seed: int = 0,
    light: float = 2000.0,
    voxel_um: tuple[float, float, float] = (0.2, 0.08, 0.08),
    width_um: float = 0.025,
    density: tuple[float, float] = (0.5, 2.5),
    length_um: float = 12.0,
    curvature: float = 0.35,
    curvature_change: float = 0.1,
    bundle: int = 8,
    spacing_um: float = 0.06,
    brightness: tuple[float, float] = (0.5, 1.5),
    na: float = 1.43,
    wavelength_um: float = 0.67,
    index: float = 1.518,
    autofluorescence: float = 0.01,
    gain: float = 2.0,
    offset: float = 100.0,
    read_noise: float = 3.0,
) -> Phantom:
    """Return a simulated widefield stack of microtubules, and what is really there.

    What is drawn, and by which law, says :func:`draw`. The cell is clear: nothing fades or scatters with depth.

    Args:
        shape: (Z, Y, X) in voxels; a single plane is a picture of tubules that are all in focus.
        seed: of the one generator behind everything; equal arguments give equal bytes.
        light: photons at the brightest tubules (percentile 99.9) of truth, where no light is spread by any blur.
        voxel_um: size of a voxel (z, y, x).
        width_um: of a tubule, at most a pixel.
        density: least and largest length of bundles per area, in 1/um, of a slice of 1 um.
        length_um: of a bundle.
        curvature: where it is clipped, in rad/um.
        curvature_change: standard deviation of the change of the curvature over 1 um, in rad/um.
        bundle: most tubules in a bundle.
        spacing_um: width of a bundle of two; n tubules are sqrt(n - 1) times as wide.
        brightness: least and largest brightness of a tubule.
        na: numerical aperture.
        wavelength_um: emission wavelength in vacuum.
        index: refractive index of the immersion medium.
        autofluorescence: mean of the background as a share of ``light``.
        gain: grey levels per photon.
        offset: grey level without light.
        read_noise: standard deviation of the camera in the dark, grey levels.

    Returns:
        Truth is the density in photons, not blurred; the mask is where it is above a tenth of a straight tubule's.

    Raises:
        InputError: as `draw`; an aperture the index does not allow, or next to nothing in the field.

    Source: CARE's supplement, section 2.5.1: microtubules of INS-1 cells under an objective of aperture 1.43.
    """
    parameters = dict(locals())
    check(parameters)
    rng = np.random.default_rng(seed)
    kernel = spot(parameters)
    structure = draw(
        rng,
        around(shape, kernel),
        voxel_um=voxel_um,
        width_um=width_um,
        density=density,
        length_um=length_um,
        curvature=curvature,
        curvature_change=curvature_change,
        bundle=bundle,
        spacing_um=spacing_um,
        brightness=brightness,
    )
    return picture(rng, structure, kernel, inside(structure, shape) > SHOWN, parameters)


def _strands(
    rng: np.random.Generator,
    middles: Points,
    walked: Walks,
    step: float,
    width: float,
    bundle: int,
    spacing: float,
    brightness: tuple[float, float],
) -> tuple[Points, NDArray[np.float64]]:
    """Return the points (n, 3) in um and the brightness (n,) of all tubules of bundles around their middles (m, 3)."""
    numbers = np.arange(1, bundle + 1)
    sizes = rng.choice(numbers, len(middles), p=numbers**-2.0 / (numbers**-2.0).sum())
    owner = np.repeat(np.arange(len(middles)), sizes)
    spread = spacing * np.sqrt(sizes - 1)[owner]
    # Both ends of a tubule lie off the walk, each elsewhere: neighbours cross.
    aside = spread[:, None] * rng.uniform(-0.5, 0.5, (len(owner), 2))
    share = np.linspace(0, 1, walked.directions.shape[1])
    there = (share >= rng.uniform(0, 0.3, (len(owner), 1))) & (share <= rng.uniform(0.7, 1, (len(owner), 1)))
    strand, place = np.nonzero(there)
    away = aside[strand, 0] * (1 - share[place]) + aside[strand, 1] * share[place]
    # Multiples of the golden section fill the width evenly.
    away += width * (np.arange(len(place)) * (math.sqrt(5) - 1) / 2 % 1 - 0.5)
    walk = owner[strand]
    points = (middles[:, None] + walked.paths(step))[walk, place] + away[:, None] * walked.normals[walk, place]
    return points, rng.uniform(*brightness, len(owner))[strand]
