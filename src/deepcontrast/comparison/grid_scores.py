"""The scores of a result that does not lie on the grid of its stack: closer planes, or one plane."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.comparison.scoring import Known
from deepcontrast.comparison.table import Column
from deepcontrast.metrics import Measurement
from deepcontrast.metrics.error import error, error_curve
from deepcontrast.metrics.fourier_shell import fourier_shell, fourier_shells
from deepcontrast.metrics.isotropy import isotropy, wedge_spectra
from deepcontrast.metrics.membrane_seg import membrane_seg
from deepcontrast.metrics.nrmse import nrmse
from deepcontrast.metrics.ssim import ssim
from deepcontrast.stack import Optics

Volume = NDArray[np.float32]
Curves = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]

BAND = (0.25, 0.9)
"""Of the lateral cut-off: below is the shape of the tissue, above there is noise."""
HALF_ANGLE = 10.0
"""Degrees: wedges of 20 degrees about the axes."""
WEDGE = 30.0
"""Degrees about z within which the axial Fourier shells are."""
HIGHEST = 0.45
"""Cycles per pixel: beyond there must be something left for the noise floor."""
MET = 2.0
"""The lateral spectrum has met its floor where it is below so many times it."""

ISOTROPY = (Column("isotropy", "Phi", "Phi", 0),)
TRUTH = (
    Column("ssim", "SSIM", "SSIM"),
    Column("nrmse", "NRMSE", "NRMSE", -1),
    Column("fourier_shell_mean", "FSC", "FSC"),
)
AXIAL = (Column("fourier_shell_mean_axial", "FSC z", "FSC about z"),)
ERROR = (Column("error", "ERROR", "ERROR", -1),)
CELLS = (Column("membrane_seg", "SEG", "SEG"),)


@dataclass(frozen=True)
class Cutoff:
    """Up to which frequency the planes hold structure.

    Attributes:
        frequency: in cycles per pixel.
        how: where it is from, in words.
    """

    frequency: float
    how: str

    @property
    def band(self) -> tuple[float, float]:
        """Lowest and highest frequency of Phi, in cycles per pixel."""
        return BAND[0] * self.frequency, BAND[1] * self.frequency


@dataclass(frozen=True, eq=False)
class GridScorer:
    """Scores a result against all that is known.

    Attributes:
        known: truth and labels on the grid of the result.
        cutoff: of the planes, for Phi of volumes; ``None`` for projections, which have no axis.
    """

    known: Known
    cutoff: Cutoff | None

    @property
    def columns(self) -> tuple[Column, ...]:
        """Return what the table shows."""
        volumes = self.cutoff is not None
        against = (*TRUTH, *(AXIAL if volumes else ())) if self.known.truth is not None else ()
        labelled = (ERROR if volumes else CELLS) if self.known.labels is not None else ()
        return (*(ISOTROPY if volumes else ()), *against, *labelled)

    def phi(self, volume: Volume) -> tuple[tuple[Measurement, ...], Curves]:
        """Return the isotropy ratio of a volume, and the spectra it is the ratio of."""
        if self.cutoff is None:
            return (), {}
        measured = isotropy(volume, band=self.cutoff.band, half_angle=HALF_ANGLE, floor=self.cutoff.frequency)
        found = wedge_spectra(volume, half_angle=HALF_ANGLE)
        if isinstance(found, str):
            return measured, {}
        level = float(np.nanmax(found.lateral))
        curves = {"axial": found.axial / level, "lateral": found.lateral / level}
        return measured, {name: (found.frequency, power) for name, power in curves.items()}

    def __call__(self, volume: Volume) -> tuple[tuple[Measurement, ...], Curves]:
        """Return all scores of a result (Z', Y, X), Z' being 1 for a projection, and the curves behind them."""
        phi, curves = self.phi(volume)
        rows = list(phi)
        image = self._seen(volume)
        if self.known.truth is not None:
            truth = self._seen(self.known.truth)
            rows += [*nrmse(image, truth), *ssim(image, truth)]
            shells: dict[str, Any] = {"": {}} if self.cutoff is None else {"": {}, "_axial": {"wedge": WEDGE}}
            for suffix, cone in shells.items():
                mean = fourier_shell(image, truth, threshold=0.5, **cone)
                rows += [row._replace(metric=row.metric + suffix) for row in mean]
                found = fourier_shells(image, truth, **cone)
                if not isinstance(found, str):
                    curves[f"shells{suffix}"] = (found.frequency, found.correlation)
        if self.known.labels is not None:
            labels = self._seen(self.known.labels)
            rows += error(image, labels) if self.cutoff else membrane_seg(image, labels)
            swept = error_curve(image, labels) if self.cutoff else "a projection has cells, not objects"
            if not isinstance(swept, str):
                curves["errors"] = (np.linspace(0, 1, len(swept[0])), swept[1])
        return tuple(rows), curves

    def agreement(self, volume: Volume, y: slice, x: slice) -> float:
        """Return the SSIM of a result of a part of the planes with the truth of that part; more is better."""
        assert self.known.truth is not None
        score = ssim(self._seen(volume), self._seen(self.known.truth[:, y, x]))[0].value
        return -np.inf if score is None else score

    def _seen(self, volume: NDArray[Any]) -> NDArray[Any]:
        """Return a volume as the metrics take it: a projection as a plane."""
        return np.asarray(volume if self.cutoff else volume[0])


Judge = Callable[[Volume, slice, slice], float]
"""From a result of a part of the planes, and where that is, to how well it agrees with the truth."""


def cutoff_of(volume: Volume, optics: Optics) -> Cutoff:
    """Return up to which frequency planes hold structure: 2 NA / wavelength, or where their power meets its floor.

    The floor is the median power from 0.45 cycles per pixel on. The cut-off is never above these.

    Args:
        volume: (Z, Y, X), planes as close as pixels.
        optics: what is known of the microscope.
    """
    pixel, na = optics.voxel_size[2], optics.numerical_aperture
    if pixel and na and optics.wavelengths:
        limit = 2 * na / (optics.wavelengths[0] / 1000) * pixel
        return Cutoff(min(limit, HIGHEST), f"2 NA / wavelength, NA {na:g} at {optics.wavelengths[0]:g} nm")
    how = "where the power along the planes meets its floor"
    found = wedge_spectra(volume, half_angle=HALF_ANGLE)
    if isinstance(found, str):
        return Cutoff(HIGHEST, how)
    beyond = found.frequency >= HIGHEST
    floor = float(np.median(found.lateral[beyond if beyond.any() else slice(-3, None)]))
    # From its brightest: what lies below is shading.
    first = int(np.nanargmax(found.lateral))
    met = np.flatnonzero(found.lateral[first:] < MET * floor)
    return Cutoff(min(float(found.frequency[first + met[0]]) if len(met) else HIGHEST, HIGHEST), how)
