"""One result scored: its contrast, its agreement with the raw, and with the truth where there is one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from deepcontrast import registry
from deepcontrast.explain import band, copies, explained
from deepcontrast.metrics import Measurement
from deepcontrast.metrics.ssim import WINDOW

FIFTHS = 5
SMALLEST = 10
"""Voxels of the smallest component that counts: over 9."""

TRUTH_METRICS = ("ssim", "pearson", "nrmse", "psnr", "ms_ssim")
"""Metrics of a plane against its truth."""


@dataclass(frozen=True)
class Row:
    """One line of metrics.json; ``value`` is ``None`` where undefined, and ``reason`` says why."""

    method: str
    k: float | None
    t: int
    c: int
    z: int | None
    depth_um: float | None
    metric: str
    value: float | None
    reason: str = ""


UNSUPPORTED = 0.02
"""Share of unsupported components above which a result is not trusted: docs/decisions.md says why."""


@dataclass(frozen=True)
class Fidelity:
    """Whether a result is still the raw's, in one fifth of the depth.

    Attributes:
        depth: mean depth of the fifth.
        correlation: of the raw's structure band with its best fit by the re-blurred result.
        components: connected structures of the result over 9 voxels.
        unsupported: how many of them have nothing in the raw at their place.
    """

    depth: float
    correlation: float
    components: int
    unsupported: int


def contrast_rows(
    volume: NDArray[np.float32],
    *,
    method: str,
    k: float | None,
    t: int,
    c: int,
    depth_um: Sequence[float | None],
    valid: NDArray[np.bool_] | None = None,
) -> list[Row]:
    """Return WCI and PCI of every plane of a volume (Z, Y, X), on grey levels in float."""
    rows = []
    for z, plane in enumerate(volume):
        known = None if valid is None else valid[z]
        for name in ("wci", "pci"):
            for measured in registry.load("metrics", name)(plane, valid=known):
                rows.append(_row(measured, method, k, t, c, z, depth_um[z]))
    return rows


def truth_rows(
    volume: NDArray[np.float32],
    truth: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    *,
    method: str,
    k: float | None,
    depth_um: Sequence[float | None],
    t: int = 0,
    c: int = 0,
    valid: NDArray[np.bool_] | None = None,
    labels: NDArray[np.int_] | None = None,
    metrics: Sequence[str] = TRUTH_METRICS,
) -> list[Row]:
    """Return the scores against truth, mask and labels, as written and clipped at the background.

    The background of a plane is its median; clipped metrics carry the suffix ``_clipped``. The foreground is
    the mask dilated by 3 px. Rows of the whole volume (``iou_stack``, ``seg``, ``error`` and what belongs to
    them) have no plane; objects are matched in the grey levels as written.

    Voxels outside ``valid`` do not count. SSIM is then averaged over the windows that rest on valid voxels
    alone, after a fit to the valid voxels; MS-SSIM, whose windows are wide, is not defined on such a plane.

    Args:
        volume: (Z, Y, X), any unit.
        truth, mask, labels: of the same shape, where they are known.
        method, k, t, c, depth_um: what the rows say of the volume.
        valid: voxels that hold a measurement.
        metrics: against the truth, by their names in the registry.
    """
    rows: list[Row] = []
    clipped = np.empty_like(volume) if mask is not None else None
    for z, plane in enumerate(volume):
        known = None if valid is None or valid[z].all() else valid[z]
        region = None if mask is None else ndimage.binary_dilation(mask[z], iterations=3)
        low = _background(plane, known)
        for suffix, image in (("", plane), ("_clipped", np.maximum(plane, low))):
            measured: list[Measurement] = []
            if mask is not None:
                measured += registry.load("metrics", "iou")(image, mask[z], valid=known)
            if truth is not None:
                for name in metrics:
                    measured += _against(name, image, truth[z], region, known)
            rows += [_row(m._replace(metric=m.metric + suffix), method, k, t, c, z, depth_um[z]) for m in measured]
        if clipped is not None:
            clipped[z] = np.maximum(plane, low)
    whole: list[Measurement] = []
    if mask is not None and clipped is not None:
        whole += registry.load("metrics", "iou_stack")(volume, mask, valid=valid)
        [level] = registry.load("metrics", "iou_stack")(clipped, mask, valid=valid)
        whole.append(level._replace(metric="iou_stack_clipped"))
    if labels is not None:
        for name in ("seg", "error"):
            whole += registry.load("metrics", name)(volume, labels, valid=valid)
    return rows + [_row(m, method, k, t, c, None, None) for m in whole]


def by_plane(rows: Iterable[Row], planes: int) -> dict[str, NDArray[np.float64]]:
    """Return every metric of one method and k in every plane (Z,), NaN where it is not defined."""
    by_metric: dict[str, NDArray[np.float64]] = {}
    for row in rows:
        if row.z is not None:
            values = by_metric.setdefault(row.metric, np.full(planes, np.nan))
            values[row.z] = np.nan if row.value is None else row.value
    return by_metric


def depth_means(rows: Iterable[Row], planes: int, count: int = FIFTHS) -> dict[str, NDArray[np.float64]]:
    """Return the mean of every metric in ``count`` bins of planes, from the rows of one method and k."""
    return {
        metric: np.array([mean_known(part) for part in np.array_split(values, count)])
        for metric, values in by_plane(rows, planes).items()
    }


def mean_known(values: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def fidelity(
    raw: NDArray[np.float32],
    result: NDArray[np.float32],
    depth: NDArray[np.float64],
    *,
    gain: float,
    intercept: float,
    valid: NDArray[np.bool_] | None = None,
) -> list[Fidelity]:
    """Return, per fifth of the depth from the shallow end, whether a result is still the raw's.

    Correlation: the raw's structure band (Gaussian 1 px minus 20 px per plane) against its best non-negative
    fit by the result re-blurred with 0, 1, 2 and 4 px.
    Unsupported: the raw's bright components are where its 3D median (3 voxels) exceeds its local background
    (Gaussian 20 px) by 3 standard deviations of the noise left by the median; the result, above its own local
    background, is thresholded where half of them are kept; of its components over 9 voxels those count that
    touch none of the raw's.

    Args:
        raw: (Z, Y, X) grey levels, camera pattern removed.
        result: (Z, Y, X) in the same grey levels, not clipped.
        depth: of the planes (Z,).
        gain: grey levels per photon.
        intercept: zero-variance intercept of the camera, grey levels.
        valid: voxels that hold a measurement.
    """
    order = np.argsort(depth, kind="stable")
    found = []
    for part in np.array_split(order, min(FIFTHS, len(order))):
        planes = np.sort(part)
        low, high = int(planes[0]), int(planes[-1]) + 1
        known = None if valid is None else valid[low:high]
        correlation = _correlation(raw[low:high], result[low:high], known)
        count, unsupported = _unsupported(raw[low:high], result[low:high], gain, intercept, known)
        found.append(Fidelity(float(depth[planes].mean()), correlation, count, unsupported))
    return found


def fidelity_rows(found: Sequence[Fidelity], *, method: str, k: float | None, t: int, c: int, known: bool) -> list[Row]:
    """Return the fifths as rows of metrics.json, without a plane but with their mean depth where it is known."""
    rows = []
    for part in found:
        for name in ("correlation", "components", "unsupported"):
            value = float(asdict(part)[name])
            depth = part.depth if known else None
            rows.append(Row(method, k, t, c, None, depth, f"fidelity_{name}", value))
    return rows


def _correlation(raw: NDArray[np.float32], result: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> float:
    chosen = np.unique(np.linspace(0, len(raw) - 1, min(len(raw), 12)).round().astype(int))
    known = [np.ones(raw.shape[1:], bool) if valid is None else valid[z] for z in chosen]
    target = np.concatenate([band(raw[z])[v] for z, v in zip(chosen, known, strict=True)])
    if len(target) < 2:
        return 0.0
    ways = np.concatenate([copies(result[z])[:, v] for z, v in zip(chosen, known, strict=True)], axis=1)
    return explained(target, ways)


def _unsupported(
    raw: NDArray[np.float32],
    result: NDArray[np.float32],
    gain: float,
    intercept: float,
    valid: NDArray[np.bool_] | None,
) -> tuple[int, int]:
    smooth = ndimage.median_filter(raw, 3)
    level = np.stack([ndimage.gaussian_filter(plane, 20.0) for plane in smooth])
    # The median of n normal values scatters sqrt(pi / 2n) times as much as one of them.
    noise = np.sqrt(np.maximum(gain * (level - intercept), gain**2) * np.pi / (2 * 27))
    bright = smooth - level > 3 * noise
    if valid is not None:
        bright &= valid
    labels, count = ndimage.label(bright)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = np.flatnonzero(sizes[1:] >= SMALLEST) + 1
    if not len(kept):
        return 0, 0
    # Haze is bright without being a structure: the result, too, is taken above its surroundings.
    local = np.stack([plane - ndimage.gaussian_filter(plane, 20.0) for plane in result])
    above = local > np.median(ndimage.maximum(local, labels, kept))
    if valid is not None:
        above &= valid
    pieces, found = ndimage.label(above)
    if not found:
        return 0, 0
    large = np.flatnonzero(np.bincount(pieces.ravel(), minlength=found + 1)[1:] >= SMALLEST) + 1
    if not len(large):
        return 0, 0
    supported = ndimage.maximum(bright, pieces, large)
    return len(large), int((np.asarray(supported) == 0).sum())


def _background(plane: NDArray[np.float32], known: NDArray[np.bool_] | None) -> np.float32:
    inside = plane if known is None else plane[known]
    return np.float32(np.median(inside)) if inside.size else np.float32(0)


def _against(
    name: str,
    image: NDArray[np.float32],
    truth: NDArray[np.float32],
    region: NDArray[np.bool_] | None,
    known: NDArray[np.bool_] | None,
) -> list[Measurement]:
    """Return a metric of a plane (Y, X) against its truth; of its valid voxels, where ``known`` says which."""
    metric = registry.load("metrics", name)
    if known is None:
        return list(metric(image, truth, region=region))
    names = [name] if region is None else [name, f"{name}_foreground"]
    if not known.any():
        return [Measurement(n, None, "no voxel of the plane holds a measurement") for n in names]
    if name == "ms_ssim":
        return [Measurement(n, None, "the plane has voxels without a measurement") for n in names]
    if name != "ssim":
        # These look at voxels one by one, in no order.
        inside = None if region is None else region[known][None]
        return list(metric(image[known][None], truth[known][None], region=inside))
    # At their mean, the others change neither slope nor level of the fit.
    levelled = [np.where(known, plane, plane[known].mean()) for plane in (image, truth)]
    whole = ndimage.binary_erosion(known, np.ones((WINDOW, WINDOW), bool))
    regions = [whole] if region is None else [whole, whole & region]
    return [metric(*levelled, region=r)[-1]._replace(metric=n) for n, r in zip(names, regions, strict=True)]


def _row(
    measured: Measurement, method: str, k: float | None, t: int, c: int, z: int | None, depth: float | None
) -> Row:
    return Row(method, k, t, c, z, depth, measured.metric, measured.value, measured.reason)
