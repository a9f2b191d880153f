"""What a user would pick instead; each file one method, a function of a volume (Z, Y, X).

Beside the function, a file holds how it is tuned: ``suggested(scene)`` gives the settings that a user takes who
knows the scene but not the truth, and ``CHOICES`` the settings among which the best is taken where the truth is
known (tables mark that). A choice replaces some of the suggested settings, ``{**suggested(scene), **choice}``: what
the scene says of noise and optics stays, so that choices are pixels and multiples and hold for any stack. Where a
suggestion rests on a truth, ``NOTE`` says on which, and the table with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from deepcontrast.stack import Optics


@dataclass(frozen=True)
class Scene:
    """What a user knows of a stack when choosing the settings of a filter.

    Attributes:
        radius: of the structures, in pixels: half width at half maximum of their autocorrelation.
        anisotropy: spacing of planes over that of pixels; 1 where unknown.
        noise: standard deviation of the noise at the median grey level.
        background: grey level without light.
        gain: grey levels per photon.
        optics: voxel size, numerical aperture, refractive index and, first of the wavelengths, that of the channel
            at hand, where they are known.
    """

    radius: float
    anisotropy: float
    noise: float
    background: float
    gain: float
    optics: Optics
