"""Is it photon noise on a camera at all: is it white, and a rising line of the mean; and what to take if not."""

from __future__ import annotations

import numpy as np

from deepcontrast.noise.blocks import AXES, Blocks
from deepcontrast.noise.grey_levels import Grey
from deepcontrast.noise.line import Line, groups_of, least
from deepcontrast.noise.planes import Bools

WHITE = 0.1  # lag-1 correlation above which noise is not called white

Whiteness = tuple[float, float, float]  # lag-1 correlation along z, y, x
FAR = 20  # pixels over which correlations are added up
RISE = 0.25  # share of the rise that photons would have, from which on noise is taken to be theirs; and its inverse
FEWEST = 3  # planes between which noise can be told from structure


def whiteness(blocks: Blocks) -> tuple[Whiteness, float]:
    """Return the lag-1 correlations (z, y, x) of the residual and its correlation between distant planes.

    Along an axis the residual is filtered only across it, so that white noise gives 0; medians over quiet blocks.
    """
    quiet = _quiet(blocks)
    z, y, x = (float(np.median(row[quiet])) for row in blocks.lags)
    shared = [float(np.median(row[quiet])) for row in blocks.shared]
    return (z - shared[0], y, x), max(shared)


def why_not(blocks: Blocks | None, line: Line | None, white: Whiteness, grey: Grey) -> str | None:
    """Return why the noise is not photon noise on a camera, or None."""
    if blocks is None:
        return "too few usable voxels for a fit of variance against mean"
    worst = int(np.argmax(np.abs(white)))
    if abs(white[worst]) > WHITE:
        return (
            f"it is not white (neighbours along {'zyx'[worst]} are correlated by {white[worst]:.2f}), as after "
            "resampling, smoothing, denoising or sharpening"
        )
    return _no_line(blocks, line, grey)


def _no_line(blocks: Blocks, line: Line | None, grey: Grey) -> str | None:
    """Return why the variance is not a rising line of the mean, or None."""
    if line is None:
        return "the variance of the residual cannot be compared with the mean (too little of one or the other varies)"
    if line.gain < 4 * line.error:
        return f"the variance does not rise with the mean (slope {line.gain:.3g}, standard error {line.error:.2g})"
    noise = float(line.variance(np.array([grey.median]))[0])
    if grey.step > 0 and noise < (grey.step / 2) ** 2 and abs(line.gain / grey.step - 1) > 0.15:
        return (
            f"at the median intensity it is smaller ({np.sqrt(noise):.2g}) than half a step of the grey levels "
            f"({grey.step:g}): rounding hides it, as after averaging, denoising or rescaling to few grey levels"
        )
    ratio = blocks.power[line.order] / line.variance(blocks.mean[line.order])
    groups = groups_of(blocks.light[line.order], 12)
    bent = [float(ratio[s].mean()) for g in range(12) if (s := line.keep & (groups == g)).sum() >= 20]
    if len(bent) > 3 and float(np.mean(np.abs(np.array(bent) - 1))) > 0.25:
        return "its variance is not a straight line of the mean, as after denoising or a non-linear rescaling"
    thirds = np.minimum(blocks.depth * 3, 2).astype(int)
    sizes = [float(ratio[s].mean()) for k in range(3) if (s := line.keep & (thirds == k)).sum() >= 30]
    if len(sizes) > 1 and max(sizes) > 2 * min(sizes):
        return (
            f"at equal intensity its variance changes {max(sizes) / min(sizes):.1f} times along the depth, "
            "as when planes were rescaled or laser and detector were turned up"
        )
    return None


def spread_of(blocks: Blocks | None, line: Line | None, white: Whiteness, grey: Grey) -> float | None:
    """Return how far photons were spread over the neighbours in their plane; None where the noise is not theirs.

    It is the power of a plane's noise at frequency 0 over that of white noise of the same variance: 1 where neighbours
    are independent. Smoothing and resampling keep the mean, and with it that power. It is the sum of the correlations
    at all distances, of which the nearest is known; the others are those of white noise that a Gaussian smoothed,
    rho ** (k * k) at k pixels.
    """
    spread = [rho for rho in white[1:] if abs(rho) > WHITE]
    if not spread:
        return None if blocks is None or _no_line(blocks, line, grey) else 1.0
    # A high-pass in the plane has taken away most of such noise; between planes, if it is white there, it is whole.
    if blocks is None or abs(white[0]) > WHITE or len(np.unique(blocks.depth)) < FEWEST:
        return None
    if not _rises(blocks, effective(blocks, white, grey)[1]):
        return None
    steps = np.arange(1, FAR)
    sums = [1 + 2 * float(np.sum(np.sign(rho) * np.abs(rho) ** steps**2)) for rho in spread]
    return float(np.prod(np.maximum(sums, 0.1)))


def _rises(blocks: Blocks, intercept: float) -> bool:
    """Say whether the noise between planes rises with the mean about as that of photons, in blocks of little structure.

    A rough test: what changes from plane to plane is in it too, and that rises as well.
    """
    quiet = _quiet(blocks)
    level, power = blocks.level[quiet], blocks.partial[AXES.index("z")][quiet]
    dark, bright = (level <= np.quantile(level, 1 / 3)), (level >= np.quantile(level, 2 / 3))
    if not np.median(power[dark]) > 0 or not np.median(level[dark]) > intercept:
        return False
    photons = float(np.median(level[bright] - intercept) / np.median(level[dark] - intercept)) - 1
    more = float(np.median(power[bright]) / np.median(power[dark])) - 1
    return RISE * photons < more < photons / RISE


def effective(blocks: Blocks | None, white: Whiteness, grey: Grey) -> tuple[float, float]:
    """Return a gain and an intercept that give the residual's variance at the median intensity.

    Only axes along which the noise is white are differenced, since a high-pass misses what is correlated.
    """
    variance = 0.0
    if blocks is not None:
        use = _quiet(blocks)
        near = np.abs(blocks.level - grey.median)
        use &= near <= np.quantile(near[use], 0.3)
        variance = float(np.median(blocks.partial[_white_axes(white)][use]))
    # Not higher: voxels below the intercept would turn darker with every iteration of the network.
    intercept = grey.floor if grey.median > grey.floor else grey.low
    reach = grey.median - intercept if grey.median > intercept else grey.high - grey.low
    return max(variance, 1e-6 * reach * reach) / reach, intercept


def measured(blocks: Blocks, white: Whiteness, grey: Grey) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return up to 14 rising grey levels, and the residual's variance at each in grey levels squared, without a line.

    As :func:`effective` it differences only axes along which the noise is white. Where levels were clipped at the low
    end, noise there is cut off, and its blocks were left out: it falls to nothing over its own standard deviation.
    """
    use = _quiet(blocks)
    level, power = blocks.level[use], blocks.partial[_white_axes(white)][use]
    groups = groups_of(level, max(1, min(12, len(level) // 8)))
    means, powers = np.array([(level[groups == g].mean(), np.median(power[groups == g])) for g in np.unique(groups)]).T
    if grey.clipped and (whole := grey.low + np.sqrt(powers[0])) < means[0]:
        means, powers = np.insert(means, 0, (grey.low, whole)), np.insert(powers, 0, (0.0, powers[0]))
    rising = np.diff(means, prepend=-np.inf) > 1e-6 * np.ptp(means)
    return tuple(means[rising].tolist()), tuple(powers[rising].tolist())


def _white_axes(white: Whiteness) -> int:
    """Return the number in ``AXES`` of those along which noise is white; of those in the plane where none is."""
    axes = "".join(axis for axis, rho in zip("zyx", white, strict=True) if abs(rho) <= WHITE)
    return AXES.index(axes or "yx")


def _quiet(blocks: Blocks) -> Bools:
    """Mark the blocks with the least structure, at every brightness: a fifth, more where there are few."""
    number = len(blocks.depth)
    groups = groups_of(blocks.light[1], max(1, min(12, number // 8)))
    return least(blocks.relief, groups, min(1.0, max(0.2, 200 / number)))
