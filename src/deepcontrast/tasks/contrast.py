"""DeepContrast: learn to undo a further degradation of the raw stack, then apply that to the raw stack.

Martins et al., "DeepContrast: Deep Tissue Contrast Enhancement using Synthetic Data Degradations and
OOD Model Predictions", sections 3 and 4. Input is ``d(x)``, target is ``x``; no ground truth.

``_contrast_fit`` estimates, ``_contrast_bank`` reads; here is what is done with both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast.config import Config
from deepcontrast.degrade.blur import blur, blur_inside
from deepcontrast.degrade.scatter import scatter
from deepcontrast.depth import middle
from deepcontrast.noise.recorruption import recorrupt
from deepcontrast.noise.thinning import thin
from deepcontrast.normalize import Norm
from deepcontrast.stack import Frame
from deepcontrast.task import Source
from deepcontrast.tasks._as_it_is import on_grid, paired
from deepcontrast.tasks._contrast_bank import blur_planes, hazes_of, prepare
from deepcontrast.tasks._contrast_fit import Fit, Params, clean, cleaned, fit, windowed
from deepcontrast.tasks._planes import applied, build, geometry
from deepcontrast.uncertainty import BOUNDS
from deepcontrast.valid import Survey

__all__ = [
    "BESIDE",
    "DEEP",
    "PAIRED",
    "SIMULATED",
    "Fit",
    "Params",
    "bounds",
    "build",
    "clean",
    "cleaned",
    "degrade",
    "example",
    "fit",
    "geometry",
    "left",
    "of_pair",
    "on_grid",
    "own_norm",
    "paired",
    "prepare",
    "restore",
    "sample",
    "unlike",
    "windowed",
]

PAIRED = False
DEEP = True
SIMULATED = False
BESIDE: tuple[str, ...] = ()


def sample(
    batch: Mapping[str, Tensor], depth: Tensor, fit: Fit, generator: torch.Generator, config: Config
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return ``d(x)`` of planes with their neighbours (N, C, Y, X), ``x`` and weight of the planes alone (N, 1, Y, X).

    For a network in space all three are of slabs (N, 1, Z, Y, X), as many planes as the others have channels.
    Images are in network units. With ``thin``, ``d(x)`` is made of some of the photons and ``x`` is the others; where
    the noise is not of photons, noise was added to both so that they share none.
    """
    optics = fit.photons
    image = target = batch["raw"]
    hazes = [batch[name] for name in hazes_of(fit)]
    if fit.thin:
        image, target = _halves(batch["raw"], fit, generator)
        # Haze was made of the whole; this takes the noise that is the target's out of it.
        hazes = [haze + blur_inside(image - batch["raw"], s) for haze, s in zip(hazes, fit.sigmas, strict=True)]
    haze = _mixed(hazes, generator)
    alpha = _alpha(depth, fit, config).view(-1, 1, 1, 1)
    degraded = scatter(image, optics, generator=generator, alpha=alpha, blurred=haze)
    weight = batch.get("weight")
    if fit.in_space:
        slabs = (fit.norm(degraded).unsqueeze(1), fit.norm(target).unsqueeze(1))
        return *slabs, None if weight is None else weight.unsqueeze(1)
    middle = len(fit.layers) // 2
    weight = None if weight is None else weight.narrow(1, middle, 1)
    return fit.norm(degraded), fit.norm(target.narrow(1, middle, 1)), weight


def degrade(source: Source, fit: Fit, config: Config, generator: torch.Generator) -> NDArray[np.float32]:
    """Return ``d(x)`` of a whole volume (Z, Y, X), in grey levels; its haze has equal parts of all widths."""
    known = source.invalid.valid
    image = torch.from_numpy(clean(source.volume(), fit, source.invalid))
    haze = torch.zeros_like(image)
    for sigma in fit.sigmas:
        haze += blur_planes(image, sigma, None if known is None else torch.from_numpy(known)) / len(fit.sigmas)
    alpha = _alpha(torch.from_numpy(source.depth), fit, config).float()[:, None, None]
    return scatter(image, fit.photons, generator=generator, alpha=alpha, blurred=haze).numpy()


def example(source: Source, z: int, fit: Fit, config: Config) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return a plane of a source, or the middle of a large one, and its degradation, (Y, X) each, in grey levels."""
    image = torch.from_numpy(cleaned(source.frame, fit, source.survey)[z, *middle(source.frame.shape[1:])])
    depth = torch.from_numpy(source.depth[z : z + 1])
    alpha = float(_alpha(depth, fit, config))
    generator = torch.Generator().manual_seed(config.train.seed)
    haze = torch.stack([blur(image, fit.photons, sigma=sigma) for sigma in fit.sigmas]).mean(0)
    return image.numpy(), scatter(image, fit.photons, generator=generator, alpha=alpha, blurred=haze).numpy()


def restore(net: nn.Module, tile: Tensor, fit: Fit, config: Config) -> dict[str, Tensor]:
    """Apply the network once to a tile in grey levels: (Z + 2 context, Y, X), of which (Z, Y, X) are restored."""
    return applied(net, tile, fit, fit.norm)


def unlike(fit: Fit, frame: Frame, known: Survey) -> list[str]:
    """Return nothing: the camera and the structures of an image are looked at when it is enhanced."""
    return []


def own_norm(fit: Fit, frame: Frame, known: Survey) -> Norm | None:
    """Return ``None``: a model of one experiment has one norm for all its images."""
    return None


def of_pair(fit: Fit, source: Source) -> Fit:
    """Return the fit: targets are parts of the image, in its grey levels."""
    return fit


def bounds(fit: Fit) -> tuple[float, float]:
    """Return which shares of the predicted distribution lie below the bounds of its interval: nothing is known."""
    return BOUNDS


def left(fit: Fit, values: NDArray[Any]) -> NDArray[Any]:
    """Return values of the image that were not restored, as they stand in the result: the same."""
    return values


def _halves(raw: Tensor, fit: Fit, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return what the input is made of and the target, two images like ``raw`` whose noise is independent."""
    if fit.recorrupted:
        return recorrupt(raw, fit.camera.means, fit.camera.variances, generator=generator, share=fit.thin)
    return thin(raw, fit.photons, generator=generator, share=fit.thin)


def _alpha(depth: Tensor, fit: Fit, config: Config) -> Tensor:
    """Return alpha at depths (N,): linear between the shallowest and the deepest plane."""
    low, high = fit.depth_range
    share = ((depth - low) / max(high - low, 1e-6)).clamp(0, 1)
    surface, deep = config.task["alpha_surface"], config.task["alpha_deep"]
    alpha: Tensor = surface + (deep - surface) * share
    return alpha


def _mixed(hazes: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """Return a mixture of images (N, C, Y, X) for every patch, all mixtures being equally likely."""
    if len(hazes) == 1:
        return hazes[0]
    shape = (len(hazes), len(hazes[0]), 1, 1, 1)
    parts = -torch.rand(shape, generator=generator, device=hazes[0].device).log()
    mixed: Tensor = (torch.stack(list(hazes)) * (parts / parts.sum(0))).sum(0)
    return mixed
