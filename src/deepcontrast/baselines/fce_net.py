"""FCE-Net trained on the stack itself to do what a classical enhancer does, and applied once or repeatedly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from deepcontrast.baselines import Scene
from deepcontrast.baselines._fce_network import STEP
from deepcontrast.baselines._fce_network import fce_net as network
from deepcontrast.baselines.clahe_2d import clahe_2d
from deepcontrast.baselines.clahe_3d import clahe_3d
from deepcontrast.errors import InputError, nearest
from deepcontrast.losses import mse
from deepcontrast.normalize import Norm
from deepcontrast.progress import Event, Progress, silent

CHOICES: tuple[Mapping[str, Any], ...] = tuple({"iterations": iterations} for iterations in (1, 2, 3))

_TARGETS = {"clahe_2d": clahe_2d, "clahe_3d": clahe_3d}
_PERCENTILES = (0.1, 99.9)


def fce_net(
    volume: NDArray[np.float32],
    *,
    iterations: int = 1,
    steps: int = 600,
    features: int = 16,
    trunk: int = 32,
    target: str = "clahe_2d",
    patch: int = 128,
    batch: int = 8,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Return the volume after ``iterations`` passes through an FCE-Net trained on it.

    Args:
        volume: (Z, Y, X), finite.
        iterations: passes, each fed with the result of the one before.
        steps, features, trunk, target, patch, batch, learning_rate, seed, device, progress: as in :func:`passes`,
            whose last volume this is.

    Source: Zhang et al. 2022, iterated as in DeepContrast section 4.4.
    """
    return passes(
        volume,
        iterations=iterations,
        steps=steps,
        features=features,
        trunk=trunk,
        target=target,
        patch=patch,
        batch=batch,
        learning_rate=learning_rate,
        seed=seed,
        device=device,
        progress=progress,
    )[-1]


def passes(
    volume: NDArray[np.float32],
    *,
    iterations: int = 3,
    steps: int = 600,
    features: int = 16,
    trunk: int = 32,
    target: str = "clahe_2d",
    patch: int = 128,
    batch: int = 8,
    learning_rate: float = 1e-3,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress = silent,
) -> tuple[NDArray[np.float32], ...]:
    """Train an FCE-Net once on pairs (plane, enhanced plane) of the volume and return the result of every pass.

    As published: mean squared error, Adam at a constant rate (the schedule in the authors' code is created and
    never stepped), no augmentation, values in 0 .. 1 at the input, clipped to 0 .. 1 at the output, also
    between passes. Different here:

    - Grey levels. The authors divide 8-bit images by 255. Here the volume's percentiles 0.1 and 99.9 become
      0 and 1, and what lies beyond is clipped, as in a conversion to 8 bits; one pair of numbers for the whole
      volume, so that planes keep their relative brightness.
    - Target. The authors' targets come from ACE (automatic colour equalisation), a local equaliser of contrast.
      Here it is CLAHE with Fiji's settings: a local equaliser too, the one microscopists have, and a baseline
      of its own, which shows what the network adds to its teacher.
    - Amount. Minutes on a laptop: random patches of 128 pixels instead of images of 512, 600 steps of 8 instead
      of 100 epochs of 4500 pairs in batches of 16, 16 features instead of 64, half of ResNet-18's maps. On
      simulated tissue, in equal time, half the maps came nearer to the target than all of them, and a rate of
      1e-3 nearer than the authors' 1e-4, which is far from converged after a few hundred steps. No pairs are
      held out: the network is applied to the stack it was trained on.
    - Start. Random weights (He et al. 2015), not ImageNet's.

    Each plane is applied whole, mirrored at its far ends to a multiple of 32, because the network looks further
    than most planes are wide; batch normalisation uses the statistics gathered in training. Memory: about
    ``25 * features`` bytes for each pixel of a plane, and three volumes beside the results.

    Args:
        volume: (Z, Y, X), finite.
        iterations: passes, each fed with the result of the one before.
        steps: training steps.
        features: maps of the spatial path; the authors trained with 64.
        trunk: maps of the first stage of the ResNet; 64 as published.
        target: the enhancer to learn from, ``"clahe_2d"`` or ``"clahe_3d"``.
        patch: side of a training patch in pixels, a multiple of 32; cut down where planes are smaller.
        batch: patches in a step, at least 2.
        learning_rate: of Adam; the authors' is 1e-4.
        seed: of the weights and the patches. Equal arguments give equal results on the same kind of processor
            with the same number of threads.
        device: ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets an event every training step and every plane; may raise Cancelled.

    Returns:
        ``iterations`` volumes (Z, Y, X) in grey levels within the percentiles 0.1 and 99.9 of the input. A
        volume between whose percentiles there is nothing is left as it is.

    Raises:
        InputError: a setting out of range, an unknown target, a volume or a loss that is not finite.

    Source: Zhang et al. 2022, Biomed. Opt. Express 13, 3521; iterated as in DeepContrast, section 4.4.
    """
    if target not in _TARGETS:
        raise InputError(f"no target '{target}'; accepted: {', '.join(_TARGETS)}{nearest(target, _TARGETS)}")
    if patch < STEP or patch % STEP:
        raise InputError(f"patch is {patch}; it must be a positive multiple of {STEP}")
    for name, given, least in (("iterations", iterations, 1), ("steps", steps, 1), ("batch", batch, 2)):
        if given < least:
            raise InputError(f"{name} is {given}; it must be at least {least}")
    volume = np.asarray(volume, np.float32)
    if not np.isfinite(volume).all():
        raise InputError("the volume has values that are not finite; every voxel must be a number")
    low, high = (float(p) for p in np.percentile(volume, _PERCENTILES))
    if high <= low:
        return tuple(volume.copy() for _ in range(iterations))
    norm = Norm(low, high - low)
    unit = np.clip(norm(volume), 0, 1)
    pairs = torch.stack([_padded(unit), _padded(np.clip(_TARGETS[target](unit), 0, 1))])

    generator = torch.Generator().manual_seed(seed)
    net = network(features=features, trunk=trunk)
    _initialise(net, generator)
    net.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    _train(net, pairs, steps, patch, batch, learning_rate, generator, device, progress)
    results = []
    for k in range(iterations):
        unit = _applied(net, unit, device, k, iterations, progress)
        results.append(np.asarray(norm.invert(unit), np.float32))
    return tuple(results)


def suggested(scene: Scene) -> dict[str, Any]:  # noqa: ARG001  (training finds what the scene would tell)
    """Return one pass; everything else as it is, which trains in about two minutes on two processor cores."""
    return {"iterations": 1}


def _padded(volume: NDArray[np.float32]) -> Tensor:
    """Return the planes (Z, Y, X) mirrored at their far ends to multiples of the network's step."""
    widths = [(0, 0), *((0, -side % STEP) for side in volume.shape[1:])]
    return torch.from_numpy(np.pad(volume, widths, mode="symmetric"))


def _initialise(net: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of convolutions (He et al. 2015, normal); batch normalisation starts as 1 and 0.

    Convolutions with a bias are those without ReLU: they keep the variance with half of the others' weight.
    """
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.Conv2d):
                variance = (2 if part.bias is None else 1) / part.weight[0].numel()
                part.weight.copy_(torch.randn(part.weight.shape, generator=generator) * math.sqrt(variance))
                if part.bias is not None:
                    part.bias.zero_()


def _train(
    net: nn.Module,
    pairs: Tensor,
    steps: int,
    patch: int,
    batch: int,
    learning_rate: float,
    generator: torch.Generator,
    device: str,
    progress: Progress,
) -> None:
    """Train the network on patches of the pairs (2, Z, Y, X)."""
    _, planes, *sides = pairs.shape
    height, width = (min(patch, side) for side in sides)
    room = torch.tensor([planes, sides[0] - height + 1, sides[1] - width + 1])
    optimizer = torch.optim.Adam(net.parameters(), lr=learning_rate)
    net.train()
    for step in range(1, steps + 1):
        corners = (torch.rand((batch, 3), generator=generator, dtype=torch.float64) * room).long().tolist()
        patches = torch.stack([pairs[:, z, y : y + height, x : x + width] for z, y, x in corners], dim=1)
        image, enhanced = patches[:, :, None].to(device)
        loss = mse(net(image), enhanced, None)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(f"the loss is not finite at step {step}; lower learning_rate, now {learning_rate:g}")
        progress(Event("train", step, steps, {"loss": value}))


def _applied(
    net: nn.Module, unit: NDArray[np.float32], device: str, k: int, iterations: int, progress: Progress
) -> NDArray[np.float32]:
    """Return the volume of values in 0 .. 1 after one more pass, clipped to 0 .. 1."""
    out = np.empty_like(unit)
    planes, height, width = unit.shape
    net.eval()
    with torch.no_grad():
        for z, plane in enumerate(_padded(unit)):
            result = net(plane[None, None].to(device))[0, 0, :height, :width]
            out[z] = result.clamp(0, 1).cpu().numpy()
            progress(Event("predict", k * planes + z + 1, iterations * planes))
    return out
