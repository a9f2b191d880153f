"""Make the models that `test_convert.py` reads, and what Keras predicts with them.

    python -m venv KERAS
    KERAS/bin/pip install tensorflow-cpu tensorboard tf-keras n2v && KERAS/bin/pip install --no-deps csbdeep==0.8.2
    KERAS/bin/python tests/csbdeep_models/make_references.py
    TF_USE_LEGACY_KERAS=1 KERAS/bin/python tests/csbdeep_models/make_references.py

Small networks with random weights, written by csbdeep and n2v themselves, with Keras 3 and, the second time, Keras 2.
Beside each lies what they predict for one image.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
IMAGES = {2: (40, 56), 3: (12, 24, 32)}


def image(dims: int, channels: int = 1) -> Any:
    """Return an image of smooth structures and noise, in grey levels; of several channels they come first."""
    rng = np.random.default_rng(dims)
    grid = np.meshgrid(*[np.arange(n) for n in IMAGES[dims]], indexing="ij")
    smooth = sum(np.sin(axis / (3.0 + n)) for n, axis in enumerate(grid))
    some = [(200 + 50 * smooth + rng.normal(0, 10, IMAGES[dims])).astype(np.float32) for _ in range(channels)]
    return some[0] if channels == 1 else np.stack([(1 + c) * one for c, one in enumerate(some)])


def shuffled(model: Any, seed: int = 0) -> None:
    """Set all weights to random numbers, biases and batch normalisation too, that neither vanish nor explode."""
    rng = np.random.default_rng(seed)
    for layer in model.keras_model.layers:
        arrays = layer.get_weights()
        if len(arrays) == 4:
            layer.set_weights(
                [
                    rng.uniform(0.5, 1.5, a.shape) if n in (0, 3) else rng.normal(0, 0.1, a.shape)
                    for n, a in enumerate(arrays)
                ]
            )
        elif arrays:
            kernel, bias = arrays
            spread = np.sqrt(2 / np.prod(kernel.shape[:-1]))
            layer.set_weights([rng.normal(0, spread, kernel.shape), rng.normal(0, 0.1, bias.shape)])


def care(name: str, dims: int, **settings: Any) -> None:
    from csbdeep.models import CARE, Config

    channels = settings.get("n_channel_in", 1)
    axes = ("C" if channels > 1 else "") + ("YX" if dims == 2 else "ZYX")
    # In the network they come last, in the image first.
    config = Config(axes.removeprefix("C") + "C", unet_n_first=4, **settings)
    with tempfile.TemporaryDirectory() as folder:
        model = CARE(config, name, basedir=folder)
        # Of a network that gives nothing below 0, with weights of which something is left.
        shuffled(model, seed=2 * (name == "plane_positive"))
        model.keras_model.save_weights(str(Path(folder, name, "weights_best.h5")))
        if settings.get("probabilistic"):
            found = model.predict_probabilistic(image(dims, channels), axes)
            maps = [found.mean(), found.scale()]
        else:
            maps = [model.predict(image(dims, channels), axes)]
        keep(Path(folder, name), name, maps)


def noise2void(name: str) -> None:
    from n2v.models import N2V, N2VConfig

    patches = image(2)[None, :32, :32, None]
    config = N2VConfig(
        patches, unet_n_depth=3, unet_kern_size=3, unet_n_first=2, batch_norm=True, n2v_patch_shape=(16, 16)
    )
    with tempfile.TemporaryDirectory() as folder:
        model = N2V(config, name, basedir=folder)
        shuffled(model)
        model.keras_model.save_weights(str(Path(folder, name, "weights_best.h5")))
        keep(Path(folder, name), name, [model.predict(image(2), "YX")])


def keep(folder: Path, name: str, maps: list[Any]) -> None:
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for file in ("config.json", "weights_best.h5"):
        shutil.copy(folder / file, out / file)
    np.savez_compressed(out / "expected.npz", *[np.asarray(one, np.float32) for one in maps])


if __name__ == "__main__":
    if os.environ.get("TF_USE_LEGACY_KERAS") == "1":
        care("plane_keras_2", 2, unet_n_depth=1, unet_kern_size=3, probabilistic=True)
        noise2void("noise2void")
    else:
        care("plane", 2, unet_n_depth=2, unet_kern_size=3)
        care("plane_probabilistic", 2, unet_n_depth=1, unet_kern_size=5, probabilistic=True)
        care("plane_positive", 2, unet_n_depth=1, unet_kern_size=3, unet_residual=False, unet_last_activation="relu")
        care("space", 3, unet_n_depth=2, unet_kern_size=3)
        care("space_probabilistic", 3, unet_n_depth=1, unet_kern_size=3, probabilistic=True)
        two: dict[str, Any] = {"n_channel_in": 2, "n_channel_out": 2, "unet_n_depth": 1, "unet_kern_size": 3}
        care("plane_channels_probabilistic", 2, **two, probabilistic=True)
        care("space_channels", 3, **two)
