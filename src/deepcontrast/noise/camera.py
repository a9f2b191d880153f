"""What the image says about its camera, put together from the fit, its tests and the fixed pattern, with sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError
from deepcontrast.noise.blocks import Blocks, gather
from deepcontrast.noise.dark_region import signal_free
from deepcontrast.noise.fixed_pattern import Pattern, estimate_pattern
from deepcontrast.noise.grey_levels import Grey, grey_levels, grey_notes
from deepcontrast.noise.line import Line, binned, fit_line, intercept_for
from deepcontrast.noise.lines import LineNoise, estimate_lines, subtract_lines
from deepcontrast.noise.photon_noise import WHITE, Whiteness, effective, measured, spread_of, whiteness, why_not
from deepcontrast.noise.planes import Masks, Volumes

MATTERS = 0.05  # share of the range by which an offset must be too low not to be believed


@dataclass(frozen=True)
class Camera:
    """What the image says about the detector; grey levels throughout.

    Attributes:
        gain: grey levels per photon; an effective one where not ``poissonian``.
        intercept: grey level at which the fitted variance is zero, offset - read_noise^2 / gain.
        offset: grey level without light, if a signal-free region shows it or the user gives it.
        read_noise: standard deviation in the dark, under the same condition.
        poissonian: the variance is a rising line of the mean and the noise is white.
        whiteness: lag-1 correlation of the residual along z, y and x (0 for white noise).
        fixed_pattern: correlation of the residual between distant planes, before removal.
        pattern_kind: ``"none"``, ``"rows and columns"`` or ``"pixels"``.
        notes: what was found and what was done, one sentence each.
        means: rising grey levels at which the noise was measured: binned points of the line, or, where it is not
            ``poissonian``, of the blocks with the least structure; at most 40.
        variances: of the noise at these.
        spread: power of the noise in coarse structure of a plane over that of white noise of its variance. One photon
            makes ``gain * spread`` grey levels: spread is 1 where neighbours in a plane are independent or the gain was
            given, more where photons were spread over them (smoothed, resampled), less where the image was sharpened,
            ``None`` where the noise is not that of photons.
        lines: standard deviations of the offsets that rows and columns of single planes have of their own, before
            removal.
        darkest: grey level that one voxel in 100,000 is darker than.
    """

    gain: float
    intercept: float
    offset: float | None
    read_noise: float | None
    poissonian: bool
    whiteness: tuple[float, float, float]
    fixed_pattern: float
    pattern_kind: str
    notes: tuple[str, ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]
    spread: float | None = None
    lines: tuple[float, float] = (0.0, 0.0)
    darkest: float | None = None

    @property
    def zero(self) -> float:
        """The grey level without light, as far as is known: the offset, else the intercept."""
        return self.intercept if self.offset is None else self.offset

    @property
    def background(self) -> float:
        """The grey level to subtract before the network: the offset where known, else the intercept.

        But not less than the darkest voxels have: what is the same everywhere no blur changes, and no network that
        undoes one takes away.
        """
        return self.zero if self.offset is not None or self.darkest is None else max(self.zero, self.darkest)

    @property
    def white_in_plane(self) -> bool:
        """Whether the noise of neighbours in a plane is independent, whatever made it, and its variance is known."""
        return bool(self.means) and all(abs(rho) <= WHITE for rho in self.whiteness[1:])


@dataclass(frozen=True)
class _Fit:
    """What was measured; without blocks (too few voxels) there is no line and nothing correlates."""

    blocks: Blocks | None = None
    line: Line | None = None
    white: Whiteness = (0.0, 0.0, 0.0)
    shared: float = 0.0  # correlation between distant planes


def estimate_camera(
    volumes: Sequence[NDArray[Any]],
    *,
    valid: Sequence[NDArray[np.bool_] | None] | None = None,
    gain: float | None = None,
    offset: float | None = None,
    remove_pattern: bool = True,
    lines: Sequence[bool] | None = None,
) -> tuple[Camera, NDArray[np.float32] | None]:
    """Estimate gain, zero-variance intercept and fixed pattern of the camera that took these volumes.

    Args:
        volumes: arrays (Z, Y, X) in grey levels, all of one camera and setting; sizes may differ.
        valid: masks of the same shapes, or ``None`` where every voxel counts; voxels that are not finite never do.
        gain: grey levels per photon, where the user knows it.
        offset: grey level without light, where the user knows it; raised to the zero-variance intercept where that is
            surely higher, which no camera's is.
        remove_pattern: estimate the offsets of rows and columns, and what is fixed from plane to plane; that needs one
            YX shape and at least 8 planes.
        lines: of which volumes rows and columns may have offsets; they must have no empty voxels. None: all.

    Returns:
        The camera, and the additive pattern (Y, X) in grey levels to subtract, or ``None``. Where ``Camera.lines`` says
        that there are some, offsets of lines of single planes are to be subtracted after that.

    Raises:
        InputError: no volume, a volume that is not (Z, Y, X), masks that do not fit, a gain that is not positive.

    Source: photon transfer, DeepContrast section 4.2 / Kalaidzidis 2017; Foi et al. 2008.
    """
    masks = _checked(volumes, valid, gain, offset)
    grey = grey_levels(volumes, masks)
    if grey is None or grey.high <= grey.low:
        return _nothing(grey, gain, offset), None
    fit = _measure(volumes, masks, grey, None)
    shared = fit.shared
    asked = [remove_pattern] * len(volumes) if lines is None else [remove_pattern and may for may in lines]
    striped = [may and bool(np.isfinite(volume).all()) for volume, may in zip(volumes, asked, strict=True)]
    one_size = len({volume.shape[1:] for volume in volumes}) == 1
    stripes = estimate_lines([v for v, may in zip(volumes, striped, strict=True) if may], one_size=one_size)
    if stripes.fixed is not None or any(stripes.deviations):
        volumes = [_evened(volume, stripes, own=may) for volume, may in zip(volumes, striped, strict=True)]
        fit = _measure(volumes, masks, grey, None)
    pattern = _pattern(volumes, masks, grey, fit) if remove_pattern else Pattern(None, "none", ())
    if pattern.image is not None:
        fit = _measure(volumes, masks, grey, pattern.image)
    if stripes.fixed is not None:
        kind = "rows and columns" if pattern.kind == "none" else pattern.kind
        image = stripes.fixed if pattern.image is None else stripes.fixed + pattern.image
        pattern = replace(pattern, image=image, kind=kind)
    return _camera(grey, fit, shared, pattern, stripes, gain, offset), pattern.image


def _checked(
    volumes: Sequence[NDArray[Any]],
    valid: Sequence[NDArray[np.bool_] | None] | None,
    gain: float | None,
    offset: float | None,
) -> Masks:
    if not len(volumes):
        raise InputError("no volume was given; accepted: at least one array (Z, Y, X)")
    masks: Masks = list(valid) if valid is not None else [None] * len(volumes)
    if len(masks) != len(volumes):
        raise InputError(f"{len(masks)} valid masks were given for {len(volumes)} volumes; accepted: one each, or None")
    for volume, mask in zip(volumes, masks, strict=True):
        if volume.ndim != 3:
            raise InputError(f"a volume has {volume.ndim} axes; accepted: 3 (Z, Y, X)")
        if mask is not None and mask.shape != volume.shape:
            raise InputError(f"a valid mask is {mask.shape}, its volume is {volume.shape}; accepted: the same shape")
    if gain is not None and not (np.isfinite(gain) and gain > 0):
        raise InputError(f"the gain {gain} was given; accepted: a positive number of grey levels per photon")
    if offset is not None and not np.isfinite(offset):
        raise InputError(f"the offset {offset} was given; accepted: a finite grey level")
    return masks


def _evened(volume: NDArray[Any], stripes: LineNoise, *, own: bool) -> NDArray[np.float32]:
    """Return a volume less what its lines have in all planes, and each of their own."""
    out = volume.astype(np.float32)
    if stripes.fixed is not None:
        out -= stripes.fixed
    return subtract_lines(out, stripes.deviations) if own else out


def _nothing(grey: Grey | None, gain: float | None, offset: float | None) -> Camera:
    """Return the camera of an image that has no two different valid voxels."""
    value = 0.0 if grey is None else grey.low
    what = "no valid voxel" if grey is None else "a single grey level"
    used = 1.0 if gain is None else gain
    return Camera(
        gain=float(used),
        intercept=value if offset is None else float(offset),
        offset=None if offset is None else float(offset),
        read_noise=None if offset is None else 0.0,
        poissonian=False,
        whiteness=(0.0, 0.0, 0.0),
        fixed_pattern=0.0,
        pattern_kind="none",
        notes=(f"The image has {what}: no noise can be measured, and gain {used:g} is used.",),
        means=(),
        variances=(),
    )


def _measure(volumes: Volumes, masks: Masks, grey: Grey, pattern: NDArray[np.float32] | None) -> _Fit:
    blocks = gather(volumes, masks, grey, pattern)
    return _Fit() if blocks is None else _Fit(blocks, fit_line(blocks), *whiteness(blocks))


def _pattern(volumes: Volumes, masks: Masks, grey: Grey, fit: _Fit) -> Pattern:
    """Estimate the fixed pattern; the first fit, still with the pattern in it, is good enough for the weights."""
    if fit.line is not None and fit.line.gain > 0:
        gain, zero = fit.line.gain, fit.line.intercept
    else:
        gain, zero = effective(fit.blocks, fit.white, grey)
    least = gain * max(grey.dark - zero, 0.1 * abs(grey.median - zero), 1e-6 * (grey.high - grey.low))
    return estimate_pattern(volumes, masks, gain=gain, intercept=zero, least=least)


def _too_low(offset: float, intercept: float, line: Line, grey: Grey) -> bool:
    """Say whether an offset is surely below the zero-variance intercept, by so much that it matters.

    Read noise makes the intercept lower than the offset. Noise in proportion to the light makes it higher, but not by
    a large share of the range.
    """
    return offset < intercept - max(3 * line.intercept_error, line.gain, MATTERS * (grey.high - intercept))


def _camera(
    grey: Grey,
    fit: _Fit,
    shared: float,
    pattern: Pattern,
    lines: LineNoise,
    gain: float | None,
    offset: float | None,
) -> Camera:
    """Decide what to believe, the user's word first, and say it in sentences."""
    blocks, line = fit.blocks, fit.line
    notes = grey_notes(grey)
    reason = why_not(blocks, line, fit.white, grey)
    spread = spread_of(blocks, line, fit.white, grey)
    if reason is None and line is not None and blocks is not None:
        fitted, intercept = line.gain, line.intercept
        notes.append(
            f"The variance of the residual rises in line with the mean: {fitted:.4g} grey levels per photon "
            f"(standard error {line.error:.2g}), no variance at grey level {intercept:.5g}."
        )
        if gain is not None:
            intercept = intercept_for(blocks, line, gain)
    else:
        fitted, intercept = effective(blocks, fit.white, grey)
        notes.append(f"The noise is not taken to be Poissonian: {reason}.")
        notes.append(
            f"Instead the effective gain {fitted:.4g} gives the residual's variance at the median intensity "
            f"{grey.median:.5g}, with no noise at grey level {intercept:.5g}: added noise has the right size there."
        )
    if gain is not None:
        notes.append(f"The gain {gain:g} was given by the user (the image says {fitted:.4g}).")
        fitted, spread = float(gain), None if spread is None else 1.0
    elif reason is not None and spread is not None:
        notes.append(
            f"In coarse structure there is as much noise as photons of {fitted * spread:.3g} grey levels each make."
        )

    dark: tuple[float, float | None] | None = None
    if offset is not None and reason is None and line is not None and _too_low(offset, intercept, line, grey):
        dark = (intercept, None)
        notes.append(
            f"The offset {offset:g} was given by the user, but at grey level {intercept:.5g} the noise vanishes "
            f"(standard error {line.intercept_error:.2g}), so there is no light there: it is subtracted instead."
        )
    elif offset is not None:
        dark = (float(offset), float(np.sqrt(max(fitted * (offset - intercept), 0.0))))
        notes.append(f"The offset {offset:g} was given by the user.")
    elif reason is None and blocks is not None and (dark := signal_free(blocks, fitted, grey)) is not None:
        notes.append(
            f"A signal-free region shows the offset {dark[0]:.5g} and a read noise of {dark[1]:.3g} grey levels "
            f"({dark[1] / fitted:.2g} electrons); the offset is what is subtracted."
        )
    else:
        notes.append(
            "No signal-free region was found, so offset and read noise cannot be told apart: "
            f"grey level {max(intercept, grey.darkest):.5g} stands for the offset"
            + ("." if intercept >= grey.darkest else ", than which hardly any voxel is darker.")
        )
    means: tuple[float, ...] = ()
    variances: tuple[float, ...] = ()
    if blocks is not None:
        means, variances = binned(blocks, line) if reason is None else measured(blocks, fit.white, grey)
    return Camera(
        gain=fitted,
        intercept=intercept,
        offset=None if dark is None else dark[0],
        read_noise=None if dark is None else dark[1],
        poissonian=reason is None,
        whiteness=fit.white,
        fixed_pattern=shared,
        pattern_kind=pattern.kind,
        notes=(*notes, *lines.notes, *pattern.notes),
        means=means,
        variances=variances,
        spread=spread,
        lines=lines.deviations,
        darkest=grey.darkest,
    )
