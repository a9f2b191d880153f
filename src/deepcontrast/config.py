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

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from deepcontrast.errors import InputError, InputNotFoundError, nearest


class Table(BaseModel):
    """A table of the TOML file: frozen, no key it does not know, no number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)


class Net(Table):
    """The network.

    The paper names depth and features; kernel size and residual are CSBDeep's defaults where it is silent. ``context``
    is how many planes above, and as many below, a plane is restored with: as channels of a network in the plane, or,
    with ``dims = 3``, in slabs of so many planes that a network in space is trained on. ``pool_z`` is how many of the
    levels of such a network are pooled along Z too; with any, a slab has 2 ``context`` planes, or as many as a multiple
    of 2**``pool_z`` allows. ``last`` is done to the mean at the end: ``relu`` gives nothing below 0.
    ``narrow`` is how newer networks of Noise2Void differ: the first convolution of every upward level has few features.
    """

    name: str = "unet"
    depth: int = Field(3, ge=1, le=8)
    features: int = Field(16, ge=1)
    kernel: int = Field(3, ge=1)
    bias: bool = False
    residual: bool = True
    last: Literal["linear", "relu"] = "linear"
    narrow: bool = False
    context: int = Field(0, ge=0, le=64)
    dims: Literal[2, 3] = 2
    pool_z: int = Field(0, ge=0, le=8)

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: int) -> int:
        if kernel % 2 == 0:
            raise ValueError("must be odd")
        return kernel

    @field_validator("dims")
    @classmethod
    def _of_slabs(cls, dims: int, info: ValidationInfo) -> int:
        if dims == 3 and not info.data.get("context"):
            raise ValueError("slabs need net.context, planes above and below, of 1 or more")
        return dims

    @field_validator("pool_z")
    @classmethod
    def _in_space(cls, pool_z: int, info: ValidationInfo) -> int:
        if pool_z and info.data.get("dims") != 3:
            raise ValueError("needs a network in space, net.dims = 3")
        return pool_z


class Train(Table):
    """The schedule: ``steps`` is the total number of optimiser steps.

    ``keep`` says which weights the model file gets: those of the lowest validation loss, or the last ones.
    ``stop_after`` so many validations without a new minimum training ends early, which suits the schedules ``plateau``
    and ``constant``; with 0 it never does. ``epsilon`` is Adam's. ``precision`` is that of the convolutions; ``auto``
    takes what the device computes fastest. ``clip`` is the norm that a larger gradient, over all weights, is scaled
    down to; 0 leaves every gradient as it is. With the loss ``laplace`` the network predicts, beside the mean, the
    scale of a Laplace distribution.
    """

    steps: int = Field(2000, ge=1)
    batch: int = Field(16, ge=1)
    patch: int = Field(64, ge=8)
    learning_rate: float = Field(4e-4, gt=0)
    epsilon: float = Field(1e-8, gt=0)
    clip: float = Field(0.0, ge=0)
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    loss: Literal["mae", "mse", "laplace"] = "mae"
    augment: bool = True
    validation: float = Field(0.05, gt=0, lt=0.5)
    validate_every: int = Field(200, ge=1)
    stop_after: int = Field(0, ge=0)
    keep: Literal["best", "last"] = "best"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    seed: int = Field(0, ge=0, lt=2**63)


class Predict(Table):
    """How the trained network is applied: at most ``iterations`` times.

    ``orientations`` says in how many orientations of the planes every pass restores, to take their mean: as it is (1),
    also turned by half (2), also mirrored (4), also turned by a quarter (8). It takes as many times as long.
    ``tile_voxels`` is the most that one tile reads; by default what suits the device. ``precision`` is that of the
    convolutions; ``auto`` is float32 on the processor and float16 on a CUDA device.
    """

    iterations: int = Field(6, ge=1, le=20)
    orientations: int = 1
    tile_voxels: int | None = Field(None, ge=1024)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"

    @field_validator("orientations")
    @classmethod
    def _of_a_square(cls, orientations: int) -> int:
        if orientations not in (1, 2, 4, 8):
            raise ValueError("must be 1, 2, 4 or 8")
        return orientations


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


CHAIN, DRAW = "task.chain.", "task.draw."
"""What settings of the steps of a chain, and of a drawing, begin with."""
_TABLES: Mapping[str, type[Table]] = {"net": Net, "train": Train, "predict": Predict}


def recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    folder = files("deepcontrast").joinpath("recipes")
    return tuple(sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml")))


def task_of(recipe: str) -> str:
    """Return the name of the task of a recipe."""
    return str(_parse(_text(recipe), recipe).get("task_name", "contrast"))


def load_config(
    recipe: str,
    params: type[BaseModel] | None = None,
    settings: Iterable[str] | Mapping[str, Any] = (),
    **flags: Any,
) -> Config:
    """Return the settings of a recipe, with settings and then flags laid over it.

    Args:
        recipe: the name of a recipe of the package, or a path ending in ``.toml``.
        params: the schema of the ``[task]`` table.
        settings: ``"train.steps=500"`` and the like, values in TOML; or values by their dotted key.
        flags: dotted keys with ``__`` for the dot, e.g. ``train__seed=1``; ``None`` means not given.

    Raises:
        InputError: an unknown recipe or key (with the nearest match), or a value out of its range.
    """
    table = _parse(_text(recipe), recipe)
    table["recipe"] = Path(recipe).stem
    for name in ("task", *_TABLES):
        if not isinstance(table.setdefault(name, {}), dict):
            raise InputError(f"recipe '{recipe}': '{name}' must be a table, e.g. [{name}]; given {table[name]!r}")
    return _laid(table, params, settings, flags)


def laid_over(
    config: Config, params: type[BaseModel] | None = None, settings: Iterable[str] | Mapping[str, Any] = ()
) -> Config:
    """Return settings with others laid over them, checked as :func:`load_config` does.

    Raises:
        InputError: an unknown key (with the nearest match), or a value out of its range.
    """
    return _laid(config.model_dump(), params, settings, {})


def _laid(
    table: dict[str, Any],
    params: type[BaseModel] | None,
    settings: Iterable[str] | Mapping[str, Any],
    flags: Mapping[str, Any],
) -> Config:
    """Return a table of settings with others, and then flags, laid over it."""
    recipe = table["recipe"]
    schema = _keys(params)
    given = settings if isinstance(settings, Mapping) else dict(_setting(setting) for setting in settings)
    for key, value in given.items():
        if key.startswith(CHAIN) and "task.chain" in schema:
            _lay_in_chain(table, key, value)
            continue
        if key.startswith(DRAW) and "task.draw" in schema:
            table["task"]["draw"] = {**table["task"].get("draw", {}), key.removeprefix(DRAW): value}
            continue
        if key not in schema:
            raise InputError(f"unknown setting '{key}'; accepted: {', '.join(schema)}{nearest(key, schema)}")
        _lay(table, key, value)
    for name, value in flags.items():
        if value is not None:
            _lay(table, name.replace("__", "."), value)
    try:
        if params is not None:
            table["task"] = params(**table["task"]).model_dump()
        return Config(**table)
    except ValidationError as error:
        first = error.errors()[0]
        where = ("task", *first["loc"]) if params is not None and error.title == params.__name__ else first["loc"]
        key = ".".join(str(part) for part in where)
        if first["type"] == "extra_forbidden":
            raise InputError(f"recipe '{recipe}': unknown key '{key}'{nearest(key, schema)}") from None
        reason = first["msg"].removeprefix("Value error, ").lower()
        raise InputError(f"setting '{key}' = {first['input']!r}: {reason}") from None


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


def _setting(setting: str) -> tuple[str, Any]:
    key, _, text = setting.partition("=")
    if not text:
        raise InputError(f"--set '{setting}' is not of the form key=value")
    return key.strip(), _value(text)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _lay(table: dict[str, Any], key: str, value: Any) -> None:
    name, _, last = key.partition(".")
    table[name][last] = value


def _lay_in_chain(table: dict[str, Any], key: str, value: Any) -> None:
    """Lay a value over a parameter of a step of a chain, ``task.chain.STEP.PARAMETER``.

    The second step of a name is ``STEP_2``, the third ``STEP_3``.
    """
    wanted, _, parameter = key.removeprefix(CHAIN).partition(".")
    chain = [dict(step) for step in table["task"].get("chain", ())]
    names = [str(step.get("step")) for step in chain]
    known = [f"{name}_{names[:n].count(name) + 1}" if name in names[:n] else name for n, name in enumerate(names)]
    if wanted not in known or not parameter:
        accepted = ", ".join(f"{CHAIN}{name}.PARAMETER" for name in known)
        raise InputError(f"unknown setting '{key}'; accepted: {accepted}{nearest(wanted, known)}")
    chain[known.index(wanted)][parameter] = value
    table["task"]["chain"] = chain


def _keys(params: type[BaseModel] | None) -> tuple[str, ...]:
    keys = [f"{table}.{name}" for table, model in _TABLES.items() for name in model.model_fields]
    return tuple(keys + [f"task.{name}" for name in (params.model_fields if params else ())])
