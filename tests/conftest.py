"""Small images and small networks for every test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings

from deepcontrast.stack import Optics, Stack
from deepcontrast.synth.tissue import tissue

# The machine may be busy, and a suite that passes must pass again: no deadline, the same examples every time.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

TINY = (
    "net.depth=1",
    "net.features=4",
    "train.steps=12",
    "train.batch=4",
    "train.patch=24",
    "train.validate_every=4",
    # Else every training begins with a trial of a second.
    "train.precision=float32",
    "predict.iterations=2",
    "predict.orientations=1",
)
"""Settings of a network that trains in about a second."""
RECIPES = {
    "aberration": "aberration",
    "contrast": "contrast",
    "denoise": "care",
    "isotropic": "isotropic",
    "project": "project",
    "structures": "semi-synthetic",
    "upsampling": "upsampling",
}
"""The default recipe of every task."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_stack() -> Stack:
    """A simulated stack (ZYX 10 x 64 x 72) of unknown camera and surface."""
    made = tissue(shape=(10, 64, 72), seed=5)
    return Stack(made.raw, "ZYX", Optics(voxel_size=(0.5, 0.3, 0.3)), source="tiny")


@pytest.fixture
def tiny_file(tiny_stack: Stack, tmp_path: Path) -> Path:
    """The same as an ImageJ TIFF."""
    from deepcontrast.io import write_stack

    path = tmp_path / "tiny.tif"
    write_stack(path, tiny_stack)
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
