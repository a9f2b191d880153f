"""Models of CSBDeep (CARE) and Noise2Void: a folder with config.json and weights, in Keras 2's or 3's layout.

The networks are the same U-Net, but for the width of some convolutions of Noise2Void's, so a model that is read here
predicts what Keras does, but for rounding. Keras orders a kernel as (Y, X, in, out) and names layers by their place;
the last ones, which have running numbers, come in the order mean, scale. Batch normalisation, which Noise2Void has, is
a product and a sum once it is trained, and is put into the convolution before it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deepcontrast import __version__
from deepcontrast.config import Config, Net, Predict, Train
from deepcontrast.errors import InputError, InputNotFoundError, ModelFileError
from deepcontrast.model import Channel, Model
from deepcontrast.normalize import Norm
from deepcontrast.tasks.denoise import Fit, Params, build, join

WEIGHTS = ("weights_best.h5", "weights_last.h5", "weights_now.h5")
"""In the order in which they are looked for."""

BATCH_NORM_EPSILON = 1e-3
"""Keras' default, which is not kept in the files."""

Layer = tuple[str, Sequence[NDArray[np.float32]]]
"""The name of a layer and its weights: kernel and bias, or gamma, beta, mean and variance."""


def read_csbdeep(folder: Path) -> Model:
    """Return the model of a CSBDeep or Noise2Void folder, as one of the task ``denoise``.

    A CARE model normalises every image by itself, from its percentile 2 to 99.8, as CSBDeep does by default; one of
    Noise2Void by the mean and the standard deviation that it was trained with.

    Args:
        folder: with ``config.json`` and ``weights_best.h5`` (or ``weights_last.h5``).

    Raises:
        InputNotFoundError: the folder, its config or its weights are not there.
        InputError: a network that is none of ours; h5py is not installed.
        ModelFileError: the weights do not fit the config.
    """
    table = _table(folder)
    file = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise InputNotFoundError(f"no weights in '{folder}'; looked for {', '.join(WEIGHTS)}")
    _refuse_unknown(table, folder)
    own = _norm(table, folder)
    dims, depth = int(table["n_dim"]), int(table["unet_n_depth"])
    probabilistic = bool(table.get("probabilistic"))
    half = max(1, 2**depth // 2)
    in_space, channels = dims == 3, int(table.get("n_channel_in", 1))
    config = Config(
        recipe="csbdeep",
        task_name="denoise",
        task=Params(norm="percentile", per_image=own is None, joint=channels > 1).model_dump(),
        net=Net(
            depth=depth,
            features=int(table["unet_n_first"]),
            kernel=int(table["unet_kern_size"]),
            bias=True,
            residual=bool(table["unet_residual"]),
            # Since Noise2Void 0.3.2, whose configs have these keys.
            narrow="skip_skipone" in table,
            last=table.get("unet_last_activation", "linear"),
            context=half if in_space else 0,
            dims=3 if in_space else 2,
            pool_z=depth if in_space else 0,
        ),
        train=Train(loss="laplace" if probabilistic else "mae"),
        predict=Predict(iterations=1),
    )
    norm = Norm() if own is None else own
    fit = Fit(
        norm=norm, target=norm, kind="percentile", low=2.0, high=99.8, per_image=own is None, patch=64,
        held_out=(), layers=tuple(range(-half, half)) if in_space else (0,), in_space=in_space,
    )  # fmt: skip
    fits = [fit] if channels == 1 else join([fit] * channels)
    weights = _named(list(_layers(file)), depth, probabilistic=probabilistic)
    expected = {name: tuple(weight.shape) for name, weight in build(fits[0], config).state_dict().items()}
    given = {name: tuple(weight.shape) for name, weight in weights.items()}
    if given != expected:
        wrong = next(name for name in expected if given.get(name) != expected[name])
        raise ModelFileError(
            f"'{file}' does not fit its config.json: {wrong} is {given.get(wrong)}, not {expected[wrong]}"
        )
    provenance = {"version": __version__, "converted": f"{folder.name}/{file.name}"}
    members = (weights,)
    named = tuple(Channel(str(c), *one.encode(), members) for c, one in enumerate(fits))
    return Model("denoise", config, named, provenance)


def _table(folder: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputNotFoundError(f"no config.json in '{folder}'; accepted: the folder of a CSBDeep model") from None
    except (OSError, ValueError) as error:
        raise InputError(f"'{folder / 'config.json'}' cannot be read: {error}") from None
    missing = [
        key for key in ("n_dim", "unet_n_depth", "unet_n_first", "unet_kern_size", "unet_residual") if key not in table
    ]
    if missing:
        raise InputError(f"'{folder / 'config.json'}' has no {missing[0]}; accepted: models of CSBDeep and Noise2Void")
    return table


def _refuse_unknown(table: Mapping[str, Any], folder: Path) -> None:
    """Refuse a network that is none of ours.

    Raises:
        InputError: says what it has.
    """
    channels = table.get("n_channel_in", 1), table.get("n_channel_out", 1)
    if channels[0] != channels[1]:
        raise InputError(
            f"the model in '{folder}' has {channels[0]} channels in and {channels[1]} out; accepted: as many out as in"
        )
    if channels[0] > 1 and any(key.startswith("n2v_") for key in table):
        raise InputError(f"the Noise2Void model in '{folder}' has {channels[0]} channels; accepted: 1")
    for key in ("blurpool", "skip_skipone", "proj_n_depth"):
        if table.get(key):
            raise InputError(f"the model in '{folder}' has {key}, which is not supported")
    last = table.get("unet_last_activation", "linear")
    if last not in ("linear", "relu"):
        raise InputError(f"the model in '{folder}' ends in '{last}'; accepted: linear, relu")


def _norm(table: Mapping[str, Any], folder: Path) -> Norm | None:
    """Return the norm that Noise2Void keeps; ``None`` of a CARE model, which normalises every image by itself.

    Raises:
        InputError: there is none.
    """
    for names in (("means", "stds"), ("mean", "std")):
        if all(name in table for name in names):
            offset, scale = (float(np.ravel(table[name])[0]) for name in names)
            return Norm(offset, scale)
    if any(key.startswith("n2v_") for key in table):
        raise InputError(f"the Noise2Void model in '{folder}' keeps no mean and standard deviation")
    return None


def _layers(file: Path) -> Iterator[Layer]:
    """Yield the layers of a file of Keras weights that have any, in the network's order."""
    try:
        import h5py
    except ImportError:
        raise InputError("reading Keras' weights needs h5py: pip install 'deepcontrast[csbdeep]'") from None
    try:
        with h5py.File(file, "r") as opened:
            root = opened.get("model_weights", opened)
            for name in _words(root.attrs["layer_names"]):
                arrays = [np.asarray(root[name][path], np.float32) for path in _words(root[name].attrs["weight_names"])]
                if arrays:
                    yield name, arrays
    except (OSError, KeyError) as error:
        raise ModelFileError(f"'{file}' is not a file of Keras weights: {error}") from None


def _words(names: Sequence[bytes | str]) -> list[str]:
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _named(layers: Sequence[Layer], depth: int, *, probabilistic: bool) -> dict[str, Tensor]:
    """Return the weights under the names that they have in our network."""
    ours = {"middle_0": "middle.0", "middle_2": "middle.1"}
    for level in range(depth):
        ours |= {f"down_level_{level}_no_{i}": f"down.{level}.{i}" for i in (0, 1)}
        ours |= {f"up_level_{level}_no_{n}": f"up.{depth - 1 - level}.{i}" for i, n in enumerate((0, 2))}
    found: dict[str, list[NDArray[np.float32]]] = {}
    heads: list[list[NDArray[np.float32]]] = []
    last: list[NDArray[np.float32]] = []
    for name, arrays in layers:
        if len(arrays) == 4:
            last[:] = _normalised(last, arrays)
            continue
        last = [arrays[0], arrays[1]]
        # Noise2Void has a network for every channel, of which there is one.
        name = name.removeprefix("channel_0")
        if name in ours:
            found[ours[name]] = last
        else:
            heads.append(last)
    found["last"] = [np.concatenate(parts, axis=-1) for parts in zip(*heads[: 1 + probabilistic], strict=True)]
    named = {}
    for name, (kernel, bias) in found.items():
        axes = (kernel.ndim - 1, kernel.ndim - 2, *range(kernel.ndim - 2))
        named[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(axes)))
        named[f"{name}.bias"] = torch.from_numpy(bias)
    return named


def _normalised(
    convolution: Sequence[NDArray[np.float32]], batch_norm: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Return kernel and bias that do a batch normalisation too."""
    (kernel, bias), (gamma, beta, mean, variance) = convolution, batch_norm
    factor = gamma / np.sqrt(variance + BATCH_NORM_EPSILON)
    return [kernel * factor, (bias - mean) * factor + beta]
