"""Every setting of a run, in one frozen object: a TOML file, with ``--set key=value`` on top.

The ``[task]`` table belongs to the task: its module's frozen ``Params`` are the schema.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deepcontrast.errors import InputError, InputNotFoundError, nearest


class Table(BaseModel):
    """A table of the TOML file: frozen, and no key it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Net(Table):
    """The network.

    The paper names depth and features; kernel size and residual are CSBDeep's defaults where it is silent.
    """

    name: str = "unet"
    depth: int = Field(3, ge=1, le=8)
    features: int = Field(16, ge=1)
    kernel: int = Field(3, ge=1)
    bias: bool = False
    residual: bool = True


class Train(Table):
    """The schedule: ``steps`` is the total number of optimiser steps.

    ``keep`` says which weights the model file gets: those of the lowest validation loss, or the last ones.
    """

    steps: int = Field(2000, ge=1)
    batch: int = Field(16, ge=1)
    patch: int = Field(64, ge=8)
    learning_rate: float = Field(4e-4, gt=0)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    loss: Literal["mae", "mse"] = "mae"
    augment: bool = True
    validation: float = Field(0.05, gt=0, lt=0.5)
    validate_every: int = Field(200, ge=1)
    keep: Literal["best", "last"] = "best"
    seed: int = Field(0, ge=0)


class Predict(Table):
    """How the trained network is applied: at most ``iterations`` times, in tiles of ``tile_voxels``."""

    iterations: int = Field(6, ge=1, le=20)
    tile_voxels: int = Field(400_000, ge=1024)


class Config(Table):
    """All settings of a run. ``task`` is checked by the task's own ``Params``."""

    recipe: str = "contrast"
    task_name: str = "contrast"
    task: dict[str, Any] = Field(default_factory=dict)
    net: Net = Net()
    train: Train = Train()
    predict: Predict = Predict()

    def json(self) -> str:  # type: ignore[override]
        """Return the settings as JSON with sorted keys: equal settings give equal text."""
        return json.dumps(self.model_dump(), sort_keys=True)


def recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    folder = files("deepcontrast").joinpath("recipes")
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def task_of(recipe: str) -> str:
    """Return the name of the task of a recipe."""
    return str(_parse(_text(recipe), recipe).get("task_name", "contrast"))


def load_config(
    recipe: str, params: type[BaseModel] | None = None, settings: Iterable[str] = (), **flags: Any
) -> Config:
    """Return the settings of a recipe, with ``key=value`` settings and then flags laid over it.

    Args:
        recipe: the name of a recipe of the package, or a path ending in ``.toml``.
        params: the schema of the ``[task]`` table.
        settings: ``"train.steps=500"`` and the like, values in TOML.
        flags: dotted keys with ``__`` for the dot, e.g. ``train__seed=1``; ``None`` means not given.

    Raises:
        InputError: an unknown recipe or key (with the nearest match), or a value out of its range.
    """
    table = _parse(_text(recipe), recipe)
    table["recipe"] = Path(recipe).stem
    schema = _keys(params)
    for setting in settings:
        key, _, text = setting.partition("=")
        if not text:
            raise InputError(f"--set '{setting}' is not of the form key=value")
        key = key.strip()
        if key not in schema:
            raise InputError(f"--set: unknown key '{key}'; accepted: {', '.join(schema)}{nearest(key, schema)}")
        _lay(table, key, _value(text))
    for name, value in flags.items():
        if value is not None:
            _lay(table, name.replace("__", "."), value)
    try:
        if params is not None:
            table["task"] = params(**table.get("task", {})).model_dump()
        return Config(**table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            near = nearest(key, [*schema, *(k.partition(".")[2] for k in schema)])
            raise InputError(f"recipe '{recipe}': unknown key '{key}'{near}") from None
        raise InputError(f"setting '{key}' = {first['input']!r}: {first['msg'].lower()}") from None


def _text(recipe: str) -> str:
    if recipe.endswith(".toml"):
        try:
            return Path(recipe).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputNotFoundError(f"no recipe file '{recipe}'") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"recipe file '{recipe}' cannot be read: {error}") from None
    known = recipes()
    if recipe not in known:
        hint = nearest(recipe, known)
        raise InputError(f"no recipe '{recipe}'; accepted: {', '.join(known)}, or a path ending in .toml{hint}")
    return files("deepcontrast").joinpath("recipes", f"{recipe}.toml").read_text(encoding="utf-8")


def _parse(text: str, recipe: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"recipe '{recipe}' is not TOML: {error}") from None


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _lay(table: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        table = table.setdefault(parent, {})
    table[last] = value


def _keys(params: type[BaseModel] | None) -> tuple[str, ...]:
    tables: Mapping[str, type[BaseModel]] = {"net": Net, "train": Train, "predict": Predict}
    keys = [f"{table}.{name}" for table, model in tables.items() for name in model.model_fields]
    return tuple(keys + [f"task.{name}" for name in (params.model_fields if params else ())])
