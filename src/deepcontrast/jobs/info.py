"""``deepcontrast info``: what an image or a model is."""

from __future__ import annotations

from pathlib import Path

from deepcontrast.io import find_images
from deepcontrast.jobs.images import open_image
from deepcontrast.model import load_model
from deepcontrast.trust import Trust


def describe(path: Path) -> list[str]:
    """Return what an image or a model file is, in lines."""
    if path.suffix == ".safetensors":
        model = load_model(path)
        lines = [f"{path}: model of task {model.task}, recipe {model.config.recipe}"]
        for channel in model.channels:
            count, networks = sum(t.numel() for t in channel.members[0].values()), len(channel.members)
            own = "network" if networks == 1 else "networks"
            same = ", the same as of all channels" if channel.fit.get("together") else ""
            lines.append(f"  channel {channel.name}: {networks} {own} of {count} weights{same}")
            if "axial" in channel.fit:
                axial = channel.fit["axial"]
                lines.append(f"    planes {channel.fit['factor']:g} pixels apart; {axial['how']}")
            if channel.trust is not None:
                lines += [f"    {line}" for line in Trust.decode(channel.trust).describe()]
        return lines + [f"  {key}: {value}" for key, value in sorted(model.provenance.items())]
    lines = []
    for file in find_images(path):
        stack = open_image(file)
        lines += [stack.describe(), *(f"  {note}" for note in stack.notes)]
    return lines
