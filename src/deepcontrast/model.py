"""The model file: weights, fit, settings and provenance in one ``.safetensors`` file, checked by a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from deepcontrast.atomic import write_atomic
from deepcontrast.config import Config
from deepcontrast.errors import InputNotFoundError, ModelFileError

FORMAT_VERSION = 1
_KEY = "deepcontrast"


@dataclass(frozen=True, eq=False)
class Channel:
    """What was learned of one channel.

    Attributes:
        name: of the channel, or its number.
        fit: the task's numbers, as JSON.
        arrays: the task's images, e.g. the camera's fixed pattern.
        members: weights of the networks; several form an ensemble.
        trust: of networks that predict a scale, what held-out patches say of them, as JSON.
    """

    name: str
    fit: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    members: tuple[Mapping[str, Tensor], ...]
    trust: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model: everything that prediction needs.

    Attributes:
        task: name of the task.
        config: the settings it was trained with.
        channels: one entry per channel of the images it was trained on.
        provenance: version, fingerprints of the training images, how training went.
    """

    task: str
    config: Config
    channels: tuple[Channel, ...]
    provenance: Mapping[str, Any]


def save_model(path: Path, model: Model) -> None:
    """Write a model; equal models give equal bytes."""
    tensors: dict[str, Tensor] = {}
    for c, channel in enumerate(model.channels):
        for name, array in channel.arrays.items():
            tensors[f"channel{c}.fit.{name}"] = torch.from_numpy(np.ascontiguousarray(array))
        if _networks_of(model, c) == c:
            for m, member in enumerate(channel.members):
                for name, tensor in member.items():
                    tensors[f"channel{c}.member{m}.{name}"] = tensor
    channels = [
        {
            "name": channel.name,
            "fit": channel.fit,
            "members": len(channel.members),
            "networks": _networks_of(model, c),
            "trust": channel.trust,
        }
        for c, channel in enumerate(model.channels)
    ]
    save_tensors(
        path,
        tensors,
        {
            "task": model.task,
            "config": model.config.model_dump(),
            "channels": channels,
            "provenance": model.provenance,
        },
    )


def _networks_of(model: Model, c: int) -> int:
    """Return the first channel that has the networks of a channel: those that restore several are kept once."""
    own = model.channels[c].members
    return next(
        n
        for n, other in enumerate(model.channels)
        if len(other.members) == len(own) and all(a is b for a, b in zip(other.members, own, strict=True))
    )


def load_model(path: Path) -> Model:
    """Read a model.

    Raises:
        InputNotFoundError: there is no such file.
        ModelFileError: truncated, altered, of a newer format, or not a model.
    """
    tensors, table = load_tensors(path)
    try:
        channels = list[Channel]()
        for c, channel in enumerate(table["channels"]):
            of = channel.get("networks", c)
            members = tuple(_strip(tensors, f"channel{c}.member{m}.") for m in range(channel["members"]))
            members = channels[of].members if of < c else members
            arrays = {k: v.numpy() for k, v in _strip(tensors, f"channel{c}.fit.").items()}
            channels.append(Channel(channel["name"], channel["fit"], arrays, members, channel.get("trust")))
        return Model(table["task"], Config(**table["config"]), tuple(channels), table["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(f"'{path}' is not a DeepContrast model: {error!r}") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], table: Mapping[str, Any]) -> None:
    """Write tensors and a JSON table as one safetensors file, with a hash over both.

    safetensors itself loads a file with flipped bytes in silence, and orders several metadata keys at random:
    hence the hash, and one key.
    """
    ordered = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    full = {**table, "format_version": FORMAT_VERSION}
    full["sha256"] = _hash(ordered, full)
    text = json.dumps(full, sort_keys=True, allow_nan=False)
    write_atomic(path, safetensors.torch.save(ordered, {_KEY: text}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote, and check it.

    Raises:
        InputNotFoundError: there is no such file.
        ModelFileError: truncated, altered, of a newer format, or another kind of file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputNotFoundError(f"no model file '{path}'") from None
    except OSError as error:
        raise ModelFileError(f"model file '{path}' cannot be read: {error.strerror or error}") from None
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        table = json.loads(header["__metadata__"][_KEY])
        version = table["format_version"]
    except (ValueError, KeyError, TypeError):
        raise ModelFileError(f"'{path}' is truncated, altered, or not a DeepContrast file") from None
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise ModelFileError(
            f"'{path}' has format {version}; this version reads up to {FORMAT_VERSION}: update deepcontrast"
        )
    try:
        tensors = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError):
        raise ModelFileError(f"'{path}' is truncated or altered") from None
    stored = table.pop("sha256", None)
    if stored != _hash(dict(sorted(tensors.items())), table):
        raise ModelFileError(f"'{path}' was altered: its contents do not match its hash")
    return tensors, table


def _hash(tensors: Mapping[str, Tensor], table: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(table, sort_keys=True, allow_nan=False).encode())
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _strip(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}
