"""Where a result is no longer the raw: structures it lost and structures it added, voxel by voxel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, linalg, ndimage, optimize

from deepcontrast.depth import bins
from deepcontrast.evaluation import Row
from deepcontrast.progress import Event, Progress, silent

THRESHOLD = 4.0
"""Standard deviations of the raw's noise from which a difference is flagged."""

SHARE = 0.2
"""Share of the structures around it that a difference must have to be flagged."""

FLAGGED = 0.1
"""Share of a fifth of the depth above which a result is not the raw's any more."""

SCALES = (0.45, 0.7, 1.1, 1.7, 2.6, 4.3)
"""Widths (Gaussian sigma, px) of the structures looked for: 1 to 10 px across at half maximum."""

REBLUR = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Widths in pixels by which the result may be blurred again to explain the raw: haze is blurred structure."""

TONES = (1.0, 0.5)
"""Powers of the result's brightness that may explain the raw: a monotone change of grey values loses nothing."""

WIDE = 20.0
"""Slower changes of brightness than this Gaussian, in pixels, are background."""

NEIGHBOURHOOD = 15.0
"""Width in pixels over which the result's brightness may differ from the raw's by a factor."""

Volume = NDArray[np.float32]


def fidelity_map(
    raw: Volume,
    result: Volume,
    depth: NDArray[np.float64],
    *,
    gain: float,
    intercept: float,
    offset: float,
    correlation: tuple[float, float] = (0.0, 0.0),
    share: float = SHARE,
    valid: NDArray[np.bool_] | None = None,
    out: Volume | None = None,
    progress: Progress = silent,
) -> Volume:
    """Return how far the raw is above (+, lost) or below (-, added) what the result explains (Z, Y, X).

    Values are standard deviations of the raw's noise, of the structure size (1 to 10 px) at which the
    difference is largest. In a bright stack the noise is so small that nothing is explained within it: where the
    difference is less than a share of the structures around it (their root mean square within about 15 px, and
    what raw and result have at the place), the value is cut to the threshold from which it would be flagged.

    The raw, without its background, is explained by a non-negative mixture of copies of the result: as it is
    and with its brightness to the power 1/2, each re-blurred by 0 to 16 px, one mixture per depth bin, times a
    factor that changes slowly over the plane. What is left is the raw's noise, unless structure is missing or
    was invented: it is compared with the noise by matched filters of Gaussian structures, plane by plane.

    Blind to: resolution that was lost (blurring the other way is explained), haze that was left behind,
    brightness that differs slowly (a factor over 15 px, background over 20 px), and structures that only several
    planes together would show. Differences are from the surroundings: around much that was lost, the dark places
    count as added, and the other way round. Noise is taken to be shot noise, correlated between neighbours as it is
    after a slight blur: in a raw that was denoised or sharpened, too much or too little is flagged.

    Args:
        raw: (Z, Y, X) grey levels, camera pattern removed.
        result: (Z, Y, X) in any brightness, not clipped.
        depth: of the planes (Z,).
        gain: grey levels per photon of the raw.
        intercept: zero-variance intercept of its camera, grey levels.
        offset: grey level without light in the result.
        correlation: of the raw's noise between neighbours along y and x, 0 for white noise.
        share: of the structures around, see above; 0 asks for the noise alone.
        valid: voxels that hold a measurement; the others say nothing of their surroundings, and the map is 0 there.
        out: where the map goes, (Z, Y, X).
        progress: gets events.
    """
    out = np.empty(raw.shape, np.float32) if out is None else out
    edges = bins([depth])
    which = np.clip(np.searchsorted(edges, depth, side="right") - 1, 0, len(edges) - 2)
    spectra = _spectra(raw.shape[1:], correlation)

    def transformed(z: int) -> tuple[Volume, Volume]:
        above = np.asarray(result[z], np.float32) - np.float32(offset)
        return _features(above), _spectrum(np.asarray(raw[z], np.float32))

    done = 0
    for b in range(len(edges) - 1):
        planes = np.flatnonzero(which == b).tolist()
        # Transformed twice, because a bin of a large stack does not fit the memory.
        weights = _mixture(map(transformed, planes), spectra)
        for z in planes:
            tones, target = transformed(z)
            structure = _image(target * spectra.high)
            model = _image(np.einsum("tc,tyx,cyx->yx", weights, tones, spectra.copies, optimize=True))
            model *= _factor(structure, model)
            if valid is not None:
                structure[~valid[z]] = model[~valid[z]] = 0
            noise = _noise(np.asarray(raw[z]), gain, intercept)
            shown, explained = (_scores(image, noise, spectra) for image in (structure, model))
            out[z] = _largest(shown, explained, share)
            if valid is not None:
                out[z][~valid[z]] = 0
            done += 1
            progress(Event("fidelity map", done, len(raw)))
    return out


def flagged(score: Volume) -> NDArray[np.int8]:
    """Return +1 where structure was lost, -1 where it was added, 0 elsewhere, given the map's scores."""
    return (score > THRESHOLD).astype(np.int8) - (score < -THRESHOLD).astype(np.int8)


def flagged_rows(
    score: Volume,
    *,
    method: str,
    k: float | None,
    t: int,
    c: int,
    depth_um: Sequence[float | None],
    valid: NDArray[np.bool_] | None = None,
) -> list[Row]:
    """Return ``lost_area`` and ``added_area`` of every plane: the share of its valid voxels that is flagged."""
    rows = []
    for z, plane in enumerate(score):
        known = np.ones(plane.shape, bool) if valid is None else valid[z]
        flags = flagged(plane[known])
        for name, sign in (("lost_area", 1), ("added_area", -1)):
            value = float((flags == sign).mean()) if flags.size else None
            rows.append(Row(method, k, t, c, z, depth_um[z], name, value, "" if flags.size else "no valid voxel"))
    return rows


@dataclass(frozen=True, eq=False)
class _Spectra:
    """Factors of the cosine transform of a plane (Y, X), which mirrors at the borders as a Gaussian filter does.

    Attributes:
        high: takes the background away.
        fine: blurs by 1 px, which keeps the noise from the fit.
        copies: re-blur without the background (copies, Y, X).
        filters: matched filters (scales, Y, X).
        gains: standard deviation that each filter leaves of noise of 1: of every row (scales, Y, 1) and column
            (scales, 1, X), whose product it is. Near the borders, where the filter sees noise twice, it is more.
    """

    high: Volume
    fine: Volume
    copies: Volume
    filters: Volume
    gains: tuple[Volume, Volume]


def _spectra(shape: tuple[int, ...], correlation: tuple[float, float]) -> _Spectra:
    squared = sum(np.meshgrid(*((np.pi * np.arange(n) / n) ** 2 for n in shape), indexing="ij"))

    def gaussian(sigma: float) -> Volume:
        return np.asarray(np.exp(-0.5 * sigma**2 * squared), np.float32)

    high = 1 - gaussian(WIDE)
    filters = np.stack([gaussian(s) for s in SCALES])
    rows, columns = (np.stack([_gain(n, s, c) for s in SCALES]) for n, c in zip(shape, correlation, strict=True))
    gains = rows[:, :, None], columns[:, None, :]
    return _Spectra(high, gaussian(1.0), np.stack([gaussian(s) * high for s in REBLUR]), filters, gains)


def _gain(n: int, sigma: float, neighbours: float) -> NDArray[np.float32]:
    """Return the standard deviation (n,) that a mirrored Gaussian along one axis leaves of noise of 1.

    Noise whose neighbours are correlated by c is taken as blurred noise: c to the power of the squared distance.
    """
    identity = fft.dct(np.eye(n), axis=0, norm="ortho")
    blur = fft.idct(np.exp(-0.5 * (sigma * np.pi * np.arange(n) / n) ** 2)[:, None] * identity, axis=0, norm="ortho")
    correlation = linalg.toeplitz(np.clip(neighbours, 0.0, 0.95) ** (np.arange(n) ** 2.0))
    return np.asarray(np.sqrt(((blur @ correlation) * blur).sum(axis=1)), np.float32)


def _features(above: Volume) -> Volume:
    """Return the cosine transforms of a plane above its offset, in every tone (tones, Y, X)."""
    bright = np.maximum(above, 0)
    toned = (above if power == 1 else np.asarray(bright**power, np.float32) for power in TONES)
    return np.stack([_spectrum(image) for image in toned])


def _spectrum(image: Volume) -> Volume:
    return np.asarray(fft.dctn(image, norm="ortho"), np.float32)


def _image(spectrum: Volume) -> Volume:
    return np.asarray(fft.idctn(spectrum, norm="ortho"), np.float32)


def _mixture(planes: Iterable[tuple[Volume, Volume]], spectra: _Spectra) -> NDArray[np.float32]:
    """Return the non-negative weights (tones, copies) that explain best, of some planes, the raw by the tones."""
    count = len(TONES) * len(REBLUR)
    gram, right = np.zeros((count, count)), np.zeros(count)
    for tones, target in planes:
        # The transform is orthonormal: inner products are those of the images.
        copies = (tones[:, None] * (spectra.copies * spectra.fine)).reshape(count, -1)
        raw = (target * (spectra.high * spectra.fine)).ravel()
        gram += copies @ copies.T
        right += copies @ raw
    size = np.sqrt(np.maximum(np.diag(gram), 1e-30))
    root = linalg.cholesky(gram / np.outer(size, size) + 1e-6 * np.eye(count), lower=True)
    weights, _ = optimize.nnls(root.T, linalg.solve_triangular(root, right / size, lower=True))
    return np.asarray((weights / size).reshape(len(TONES), len(REBLUR)), np.float32)


def _factor(high: Volume, model: Volume) -> Volume:
    """Return the factor, 0 or more, that explains the raw best around a pixel; 1 where nothing tells it."""
    power = float(np.mean(model * model)) * 0.05
    products = (ndimage.gaussian_filter(image, NEIGHBOURHOOD, truncate=3.0) for image in (high * model, model * model))
    above, below = products
    # Contrast that was turned round is explained by nothing.
    return np.asarray(np.maximum(above + power, 0) / (below + power + 1e-30), np.float32)


def _noise(raw: Volume, gain: float, intercept: float) -> Volume:
    """Return the standard deviation of a plane's shot noise (Y, X)."""
    level = np.maximum(ndimage.gaussian_filter(raw, 3.0), ndimage.gaussian_filter(raw, 1.0))
    return np.asarray(np.sqrt(np.maximum(gain * (level - intercept), gain**2)), np.float32)


def _scores(image: Volume, noise: Volume, spectra: _Spectra) -> Volume:
    """Return matched-filter scores (scales, Y, X) in standard deviations of the raw's shot noise."""
    spectrum = _spectrum(image)
    parts = zip(spectra.filters, *spectra.gains, strict=True)
    return np.stack([_image(spectrum * matched) / (row * column * noise) for matched, row, column in parts])


def _largest(shown: Volume, explained: Volume, share: float) -> Volume:
    """Return the difference of two scores (scales, Y, X) that is largest among the scales (Y, X), or its cut."""
    differences = shown - explained
    scale = np.abs(differences).argmax(axis=0)[None]
    [difference], [one], [other] = (np.take_along_axis(x, scale, axis=0) for x in (differences, shown, explained))
    around = np.stack([np.sqrt(ndimage.uniform_filter(x * x, 2 * int(NEIGHBOURHOOD) + 1)) for x in shown])
    [around] = np.take_along_axis(around, scale, axis=0)
    size = np.maximum(np.maximum(np.abs(one), np.abs(other)), around)
    cut = np.clip(difference, -THRESHOLD, THRESHOLD)
    return np.asarray(np.where(np.abs(difference) >= share * size, difference, cut), np.float32)
