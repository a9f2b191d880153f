"""The camera from the image alone: grey levels per photon and zero-variance intercept, and how far to trust them.

Method: photon transfer (variance against mean) of a high-pass residual. A product of differences along z, y and x
has zero response to smooth structure and to whatever is fixed from plane to plane; the squares of its weights give
the local mean that belongs to it, so that for white noise E[r^2] = gain (mean - intercept) holds also where the
signal varies. Follows the noise model of DeepContrast section 4.2 (Kalaidzidis, BIOCOMP 2017) and of Foi et al.,
IEEE TIP 17:1737 (2008).

In reading order: ``camera`` says what comes out and calls the rest; ``planes`` reads, ``grey_levels`` looks at their
layout, ``blocks`` averages the residual, ``line`` fits variance against mean, ``photon_noise`` judges the fit,
``dark_region`` finds the offset, ``lines`` what rows and columns of single planes share, ``fixed_pattern`` what all
planes do. ``thinning`` and ``recorruption`` make two images of one, whose noise is independent.
"""

from deepcontrast.noise.camera import Camera, estimate_camera
from deepcontrast.noise.fixed_pattern import remove_pattern
from deepcontrast.noise.lines import line_offsets, subtract_lines

__all__ = ["Camera", "estimate_camera", "line_offsets", "remove_pattern", "subtract_lines"]
