"""``deepcontrast degrade``: an image as training shows it to the network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from deepcontrast import registry
from deepcontrast.accept import check_stacks, check_unpaired, surfaced
from deepcontrast.config import Config
from deepcontrast.depth import depths
from deepcontrast.io import container_suffix
from deepcontrast.jobs.images import Reading, check_target, write_image
from deepcontrast.jobs.say import Say, looked_at
from deepcontrast.task import Source
from deepcontrast.valid import find_invalid


def degrade_image(
    path: Path,
    out: Path,
    config: Config,
    *,
    reading: Reading,
    overwrite: bool = False,
    say: Say = print,
) -> None:
    """Write ``d(x)`` of a stack: what training would show the network."""
    check_unpaired(config)
    container_suffix(out)
    check_target(out, [path], overwrite=overwrite)
    stack = reading.open(path)
    stack, why = surfaced(stack, reading.surface)
    check_stacks([stack])
    say(stack.describe())
    for line in looked_at(path.name, stack, why):
        say(line)
    task = registry.load("tasks", config.task_name)
    generator = torch.Generator().manual_seed(config.train.seed)
    result = np.empty(stack.shape, np.float32)
    for c in range(stack.size("C")):
        sources = [Source(stack, t, c, depths(stack)) for t in range(stack.size("T"))]
        fit = task.fit(sources, config)
        say(f"blur {fit.sigma_why}; gain {fit.camera.gain:.4g} grey levels per photon")
        for source in sources:
            volume = source.volume()
            degraded = task.degrade(source, fit, config, generator)
            valid = find_invalid(volume).valid
            result[stack.index(source.t, c)] = degraded if valid is None else np.where(valid, degraded, volume)
    out.parent.mkdir(parents=True, exist_ok=True)
    say(f"{out}: {write_image(out, replace(stack, array=result), stack.dtype)}")
