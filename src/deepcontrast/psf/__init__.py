"""Point-spread functions from the numbers of the optics, and from beads; lengths in micrometres, axes (Z, Y, X)."""

from __future__ import annotations

from deepcontrast.psf.aberrated import aberrated
from deepcontrast.psf.confocal import confocal
from deepcontrast.psf.fwhm import fwhm
from deepcontrast.psf.light_sheet import light_sheet, sheet_width
from deepcontrast.psf.measured import Measured, check_psf, measured, of_bead
from deepcontrast.psf.support import medium, nyquist, support
from deepcontrast.psf.two_photon import two_photon
from deepcontrast.psf.widefield import widefield
from deepcontrast.psf.zernike import orders, zernike

__all__ = [
    "Measured",
    "aberrated",
    "check_psf",
    "confocal",
    "fwhm",
    "light_sheet",
    "measured",
    "medium",
    "nyquist",
    "of_bead",
    "orders",
    "sheet_width",
    "support",
    "two_photon",
    "widefield",
    "zernike",
]
