"""The scores of a result, whichever method it is of: everything that what is known of the stack allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from deepcontrast.comparison.cost import Box, size, window
from deepcontrast.depth import depth_unit
from deepcontrast.enhanced import Restored
from deepcontrast.evaluation import Row, by_plane, contrast_rows, fidelity, fidelity_rows, mean_known, truth_rows
from deepcontrast.metrics.iou import iou
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report.compare_data import ON_TRUTH, OURS, RAW, MethodResult

Volume = NDArray[np.float32]

WRITTEN = f"{OURS} (auto k)"
CONTRACT = {"band_pass_2d": "band_pass"}
"""Names in metrics.json that differ from the registry's: `enhance` writes them so."""
TILE = 64
"""Side in pixels of the tiles whose IoU is shown as a distribution (DeepContrast, figure 5)."""


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of a stack beside itself, each (Z, Y, X); ``None`` where it is not.

    Attributes:
        truth: what the stack should show, any unit.
        mask: its structures.
        labels: one number per object, 0 elsewhere.
    """

    truth: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None
    labels: NDArray[np.int_] | None = None

    def crop(self, region: Box) -> Known:
        """Return what is known of a region."""
        return Known(
            None if self.truth is None else self.truth[region],
            None if self.mask is None else self.mask[region],
            None if self.labels is None else self.labels[region],
        )


class Job(NamedTuple):
    """What a method is called: registry name, label, passes, and how it was tuned."""

    name: str
    label: str
    k: float | None = None
    tuned: str = ""


@dataclass(frozen=True, eq=False)
class Scorer:
    """Scores a result against all that is known.

    Attributes:
        one: our own result of the stack.
        gain, intercept: of the camera.
        clean: the raw (Z, Y, X) without camera pattern and empty voxels.
        known: truth, mask and labels.
        progress: gets events.
    """

    one: Restored
    gain: float
    intercept: float
    clean: Volume
    known: Known
    progress: Progress = silent

    @property
    def everything(self) -> Box:
        return window(self.clean.shape, max(self.clean.shape))

    def __call__(
        self,
        job: Job,
        volume: Volume,
        region: Box,
        seconds: float | None = None,
        peak_mb: float | None = None,
        parameters: str = "",
    ) -> tuple[MethodResult, list[Row]]:
        """Return a method's result with its scores, and its rows of metrics.json."""
        where = "" if region == self.everything else middle(region)
        rows = self._rows(job, volume, region)
        planes, whole = by_plane(rows, len(volume)), _of_the_whole(rows)
        result = MethodResult(
            job.name,
            job.label,
            job.k,
            job.tuned,
            "; ".join(filter(None, (parameters, where))),
            volume,
            region,
            seconds,
            volume.size / seconds if seconds else None,
            peak_mb,
            planes,
            whole,
        )
        own_method = CONTRACT.get(job.name, job.name) + (f" (tuned {ON_TRUTH})" if job.tuned == ON_TRUTH else "")
        method = f"{own_method} ({where})" if where and job.name in (RAW, OURS) else own_method
        note = f"measured on the {where} of every plane" if where else ""
        return result, [replace(row, method=method, reason=row.reason or note) for row in rows]

    def agreement(self, volume: Volume, region: Box) -> float:
        """Return the mean over planes of the foreground SSIM with the truth; without a mask, of the SSIM."""
        known = self.known.crop(region)
        rows = truth_rows(
            volume, known.truth, known.mask, method="", k=None, depth_um=[None] * len(volume),
            valid=self._valid(region), metrics=("ssim",),
        )  # fmt: skip
        score = mean_known(by_plane(rows, len(volume))["ssim" if known.mask is None else "ssim_foreground"])
        return -np.inf if np.isnan(score) else score

    def _rows(self, job: Job, volume: Volume, region: Box) -> list[Row]:
        source, known, valid = self.one.source, self.known.crop(region), self._valid(region)
        in_um = depth_unit(source.stack) == "um"
        depth_um = [float(d) if in_um else None for d in source.depth]
        where: dict[str, Any] = {"method": job.name, "k": job.k, "t": source.t, "c": source.c}
        self.progress(Event("score", 0, 3, {"method": job.label}))
        rows = contrast_rows(volume, depth_um=depth_um, valid=valid, **where)
        self.progress(Event("score", 1, 3, {"method": job.label}))
        rows += truth_rows(
            volume, known.truth, known.mask, labels=known.labels, depth_um=depth_um, valid=valid, **where
        )
        self.progress(Event("score", 2, 3, {"method": job.label}))
        if known.truth is None:
            found = fidelity(
                self.clean[region], np.asarray(volume), source.depth,
                gain=self.gain, intercept=self.intercept, valid=valid,
            )  # fmt: skip
            rows += fidelity_rows(found, known=in_um, **where)
        return rows

    def _valid(self, region: Box) -> NDArray[np.bool_] | None:
        valid = self.one.source.invalid.valid
        return None if valid is None else valid[region]


def own(one: Restored) -> Iterator[tuple[str, int | None, Volume]]:
    """Yield label, k and volume of the raw, of every pass, and of what is written (k is ``None``)."""
    yield RAW, 0, one.passes[0]
    for k, volume in enumerate(one.passes[1:], 1):
        yield f"{OURS} k={k}", k, volume
    yield WRITTEN, None, one.enhanced


def middle(region: Box) -> str:
    """Return in words which part of the planes a crop is."""
    _, height, width = size(region)
    return f"middle {height} x {width} px"


def tile_ious(
    results: Iterable[MethodResult], mask: NDArray[np.bool_] | None, valid: NDArray[np.bool_] | None
) -> dict[str, NDArray[np.float64]]:
    """Return, by label, the best-threshold IoU of every tile of a result that has structure.

    Args:
        results: of the whole stack or a part; the tiles of a part begin where it does.
        mask: structures of the stack (Z, Y, X); without one there is nothing to measure.
        valid: voxels of the stack that hold a measurement; all where ``None``.
    """
    if mask is None:
        return {}
    return {
        result.label: _tile_ious(result.volume, mask[result.region], None if valid is None else valid[result.region])
        for result in results
    }


def _tile_ious(volume: Volume, mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None) -> NDArray[np.float64]:
    boxes = [
        (z, slice(y, y + TILE), slice(x, x + TILE))
        for z in range(len(mask))
        for y in range(0, max(1, mask.shape[1] - TILE + 1), TILE)
        for x in range(0, max(1, mask.shape[2] - TILE + 1), TILE)
    ]
    found = [
        iou(volume[box], mask[box], valid=None if valid is None else valid[box])[0].value
        for box in boxes
        if mask[box].any()
    ]
    return np.array([np.nan if value is None else value for value in found])


def _of_the_whole(rows: Sequence[Row]) -> dict[str, float]:
    """Return the scores of a whole volume; of the fifths of a depth, their mean, and the share of unsupported."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.z is None and row.value is not None:
            found.setdefault(row.metric, []).append(row.value)
    scores = {name: float(np.mean(values)) for name, values in found.items()}
    components = scores.pop("fidelity_components", 0.0)
    if "fidelity_unsupported" in scores:
        unsupported = scores.pop("fidelity_unsupported")
        if components:
            scores["fidelity_unsupported"] = unsupported / components
    return scores
