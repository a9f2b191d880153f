"""Richardson-Lucy deconvolution with a theoretical or a given point-spread function."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.fft import next_fast_len
from torch import Tensor

from deepcontrast.baselines import Scene
from deepcontrast.errors import InputError
from deepcontrast.psf import check_psf, confocal, medium, support, widefield

CHOICES: tuple[Mapping[str, Any], ...] = tuple(
    {"regularisation": regularisation, "iterations": iterations, "tolerance": 0.0, "gain": None}
    for regularisation, iterations in product((0.0, 0.01, 0.03), (5, 20))
)

NOTE = "regularisation chosen on simulated tissue of seeds 1 and 2 by the truth"
"""What the table says beside the suggested settings."""

_SEEN = 0.001
"""Share of its light that a voxel outside the field must send into it to be reconstructed (Bertero & Boccacci)."""


def richardson_lucy(
    volume: NDArray[np.float32],
    *,
    psf: ArrayLike | None = None,
    na: float = 1.3,
    wavelength_um: float = 0.52,
    excitation_um: float | None = 0.488,
    index: float = 1.45,
    voxel_um: tuple[float, float, float] = (0.3, 0.3, 0.3),
    offset: float = 0.0,
    background: float = 0.0,
    gain: float | None = None,
    read_noise: float = 0.0,
    regularisation: float = 0.0,
    iterations: int = 60,
    tolerance: float = 1e-3,
    slab: int | None = None,
    device: str = "cpu",
) -> NDArray[np.float32]:
    """Return the most likely x >= 0 of the model volume = h * x + offset + background with photon noise.

    The model is the classic maximum-likelihood estimation (CMLE) of Huygens as the paper used it: theoretical PSF,
    at most 60 iterations, background (100 there) kept in the model, where subtracting it first would clip the
    noise of dark voxels. It stops where an iteration lowers the I-divergence by less than ``tolerance`` of it or,
    given ``gain``, where the squared residual is down to the variance of the noise: beyond, iterations fit noise.
    The object reaches out of the field by half a PSF and only the data inside count (Bertero & Boccacci), so that
    nothing wraps around and no border is invented.

    Args:
        volume: (Z, Y, X).
        psf: (Z, Y, X), measured or computed, at the voxel size of the volume; used instead of the optics, after
            `psf.check_psf`. Cut to what the volume can hold: of a single plane only the focus.
        na: numerical aperture.
        wavelength_um: emission, in micrometres.
        excitation_um: laser of a confocal microscope (pinhole 1 Airy unit); ``None`` for a widefield microscope.
        index: refractive index of the immersion medium.
        voxel_um: size of a voxel (z, y, x).
        offset: grey level without light.
        background: light that is everywhere and no structure, in grey levels above the offset.
        gain: grey levels per photon, for the second stopping rule; ``None`` leaves that out.
        read_noise: standard deviation of the camera in the dark in grey levels, for the same rule.
        regularisation: weight of the total variation, 0 to 0.1; 0 is plain Richardson-Lucy. 0.01 takes away most
            of the noise that 60 iterations would grow.
        iterations: at most so many.
        tolerance: relative change of the I-divergence at which to stop; 0 for no such rule.
        slab: planes restored at a time, with a PSF of neighbours on either side; ``None`` for all at once. All
            slabs stop where the brightest one does.
        device: "cpu" or "cuda".

    Returns:
        (Z, Y, X), non-negative, in grey levels above offset and background. Memory: on the device about 16
        times the float32 volume (or slab) with half a PSF on each side.

    Raises:
        InputError: a PSF without light, optics that cannot be, a setting out of its range.

    Source: Richardson 1972; Lucy 1974; Bertero & Boccacci 2005, Astron. Astrophys. 437, 369, for the borders; Dey et
    al. 2006, Microsc. Res. Tech. 69, 260, for the total variation.
    """
    for name, value, low, high in (
        ("iterations", iterations, 1, np.inf),
        ("slab", slab, 1, np.inf),
        ("background", background, 0, np.inf),
        ("read_noise", read_noise, 0, np.inf),
        ("tolerance", tolerance, 0, np.inf),
        ("regularisation", regularisation, 0, 0.1),
    ):
        if value is not None and not low <= value <= high:
            raise InputError(f"{name} of richardson_lucy is {value}; accepted: {low} to {high}")
    spot = check_psf(psf) if psf is not None else _theory(na, wavelength_um, excitation_um, index, voxel_um)
    spot = _cut(spot, volume.shape)
    slabs = _slabs(len(volume), slab or len(volume), 2 * (len(spot) // 2))
    light = [float(np.sum(volume[read], dtype=np.float64)) / (read.stop - read.start) for read, _, _ in slabs]
    rule = _Rule(iterations, tolerance, gain, read_noise)
    # A model of counts has no place below 0: where even darkness is there, it is moved up.
    below = min(offset, 0.0)
    out = np.empty(volume.shape, np.float32)
    for place in np.argsort(light)[::-1]:
        read, crop, write = slabs[place]
        data = torch.as_tensor(np.asarray(volume[read], np.float32) - np.float32(below), device=device)
        kernel = torch.as_tensor(spot, device=device)
        estimate, done = _maximise(data, kernel, offset - below, background, regularisation, rule)
        out[write] = estimate[crop].cpu().numpy()
        rule = _Rule(done, 0.0, None, 0.0)
    return out


def suggested(scene: Scene) -> dict[str, Any]:
    """Return what optics and camera know, weak regularisation, 60 iterations with early stopping.

    What they do not know is the paper's microscope: confocal, 63x / 1.3 in glycerol (index 1.45), 488 nm excitation,
    emission 0.52 um (its window is 489 to 551 nm), voxels of 0.3 um. An aperture without its medium is taken for
    air up to 0.95, water to 1.2, glycerol to 1.3, oil above; a laser has 488 / 520 of the emission's wavelength.
    The regularisation stands for the SNR of 5 that the paper told Huygens: without it 60 iterations grow more noise
    than contrast at this many photons. Its 0.01 was chosen on simulated tissue (seeds 1 and 2) by the truth: there
    it is more than a user could know, and favours the method.
    """
    optics = scene.optics
    na = 1.3 if optics.numerical_aperture is None else optics.numerical_aperture
    emission = optics.wavelengths[0] / 1000 if optics.wavelengths else 0.52
    index = optics.refractive_index or 0.0
    if index <= na:
        index = medium(na)
    z, y, x = optics.voxel_size
    y, x = y or x or 0.3, x or y or 0.3
    return {
        "na": na,
        "wavelength_um": emission,
        "excitation_um": emission * 0.488 / 0.52,
        "index": index,
        "voxel_um": (z or scene.anisotropy * x, y, x),
        "offset": scene.background,
        "gain": scene.gain,
        "read_noise": optics.read_noise or 0.0,
        "regularisation": 0.01,
    }


def _theory(
    na: float,
    wavelength_um: float,
    excitation_um: float | None,
    index: float,
    voxel_um: tuple[float, float, float],
) -> NDArray[np.float32]:
    shape = support(na=na, wavelength_um=wavelength_um, index=index, voxel_um=voxel_um)
    if excitation_um is None:
        return widefield(shape, na=na, wavelength_um=wavelength_um, index=index, voxel_um=voxel_um)
    return confocal(
        shape, na=na, excitation_um=excitation_um, emission_um=wavelength_um, index=index, voxel_um=voxel_um
    )


def _cut(psf: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the middle of a PSF, as far as it can carry light from one voxel of the volume to another."""
    halves = [min(n // 2, size - 1) for n, size in zip(psf.shape, shape, strict=True)]
    kept = psf[tuple(slice(n // 2 - half, n // 2 + half + 1) for n, half in zip(psf.shape, halves, strict=True))]
    return check_psf(kept)


class _Slab(NamedTuple):
    """Planes to read, those of them that are kept, and where they go."""

    read: slice
    crop: slice
    write: slice


def _slabs(planes: int, slab: int, margin: int) -> list[_Slab]:
    cut = []
    for start in range(0, planes, slab):
        stop = min(start + slab, planes)
        first, last = max(start - margin, 0), min(stop + margin, planes)
        cut.append(_Slab(slice(first, last), slice(start - first, stop - first), slice(start, stop)))
    return cut


class _Rule(NamedTuple):
    """When to stop."""

    iterations: int
    tolerance: float
    gain: float | None
    read_noise: float

    def fits(self, residual: Tensor, light: Tensor) -> bool:
        """Return whether the residual is as small as the noise of this much light above the offset."""
        if self.gain is None:
            return False
        noise = self.gain * light.clamp(min=0).sum(dtype=torch.float64) + self.read_noise**2 * light.numel()
        return bool((residual**2).sum(dtype=torch.float64) <= noise)


def _maximise(
    volume: Tensor, psf: Tensor, offset: float, background: float, regularisation: float, rule: _Rule
) -> tuple[Tensor, int]:
    """Return the estimate inside the field (Z, Y, X) and the number of iterations done."""
    half = [n // 2 for n in psf.shape]
    grid = [next_fast_len(n + 2 * h, real=True) for n, h in zip(volume.shape, half, strict=True)]
    field = tuple(slice(h, h + n) for n, h in zip(volume.shape, half, strict=True))
    spot = volume.new_zeros(grid)
    spot[tuple(slice(n) for n in psf.shape)] = psf
    transfer = torch.fft.rfftn(spot.roll([-h for h in half], dims=(0, 1, 2)))
    del spot

    def through(image: Tensor, otf: Tensor) -> Tensor:
        blurred: Tensor = torch.fft.irfftn(torch.fft.rfftn(image) * otf, s=grid)
        return blurred

    def back(inside: Tensor) -> Tensor:
        whole = inside.new_zeros(grid)
        whole[field] = inside
        return through(whole, transfer.conj())

    seen = back(torch.ones_like(volume))
    weight = torch.where(seen > _SEEN, 1 / seen.clamp(min=_SEEN), 0.0)
    del seen
    dark = offset + background
    y = volume.clamp(min=0)
    level = float((y - dark).clamp(min=0).mean())
    # A floor far below one grey level's rounding keeps the quotient finite where there is no light at all.
    floor = 1e-6 * max(level + dark, 1e-6)
    x = level * (weight > 0)
    before = float("inf")
    done = 0
    while True:
        model = (through(x, transfer)[field] + dark).clamp(min=floor)
        ratio = y / model
        divergence = float((torch.special.xlogy(y, ratio) - y + model).sum(dtype=torch.float64))
        slow = rule.tolerance > 0 and before - divergence < rule.tolerance * divergence
        if done == rule.iterations or slow or rule.fits(y - model, model - offset):
            return x[field], done
        before = divergence
        gradient = _variation(x, 1e-3 * level) if regularisation and level else 0.0
        x = ((x * back(ratio) * weight) / (1 - regularisation * gradient)).clamp(min=0)
        done += 1


def _variation(x: Tensor, smooth: float) -> Tensor:
    """Return the divergence of the direction of the gradient, between -6 and 6."""
    axes = range(x.ndim)
    slopes = [torch.diff(x, dim=axis, append=x.narrow(axis, x.shape[axis] - 1, 1)) for axis in axes]
    length = torch.stack(slopes).square_().sum(0).add_(smooth**2).sqrt_()
    out = torch.zeros_like(x)
    for axis, slope in zip(axes, slopes, strict=True):
        slope /= length
        out += torch.diff(slope, dim=axis, prepend=torch.zeros_like(slope.narrow(axis, 0, 1)))
    return out
