"""The distortion chain: from an image of high quality, or a drawn structure, to a pair that a network learns from.

Every step is a degradation (a file of ``degrade/``) with its parameters, in the order in which a recipe lists them: a
number, or a pair of numbers to draw from. Source: semi-synthetic data, section 3.1; CARE
supplement, section 2.5.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from deepcontrast import registry
from deepcontrast.errors import InputError, nearest
from deepcontrast.stack import Optics

CLEANING = ("minimum", "black_level")
"""Steps that make a truth of an image: what they return is the target too."""

GIVEN = ("generator", "voxel_um", "valid")
"""Parameters that no recipe sets."""

Value = float | str
Range = Value | tuple[float, float]
Drawn = Mapping[str, Value]
"""The parameters of one pair, by ``step.parameter``, and the ``seed`` of its noise."""


@dataclass(frozen=True)
class Ranges:
    """What the parameters of a function are drawn from.

    Attributes:
        values: a number or word as it is, a pair of numbers to draw from, by parameter.
        whole: parameters that are whole numbers.
        several: parameters of several numbers, which are passed on as they are.
    """

    values: Mapping[str, Range]
    whole: frozenset[str]
    several: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, function: Callable[..., object], name: str, table: Mapping[str, object]) -> Self:
        """Return the ranges that a table of a recipe gives for the keyword-only parameters of a function.

        Raises:
            InputError: a parameter that the function does not have, or a range that is none.
        """
        known = inspect.signature(function).parameters.values()
        free = {p.name: p.annotation for p in known if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN}
        for key in table:
            if key not in free:
                raise InputError(f"'{name}' has no '{key}'; accepted: {', '.join(free)}{nearest(key, free)}")
        several = {key: _numbers(f"{name}.{key}", value) for key, value in table.items() if "tuple" in str(free[key])}
        values = {
            key: _range(f"{name}.{key}", value, str(free[key])) for key, value in table.items() if key not in several
        }
        return cls(values, frozenset(key for key in values if free[key] in (int, "int")), several)

    def draw(
        self, rng: np.random.Generator, parts: Mapping[str, tuple[int, int]] = MappingProxyType({})
    ) -> dict[str, Value]:
        """Return one value of each; of some only from one of so many equal parts of its range, given as both numbers.

        A range above zero is drawn from evenly in its logarithm, so that 5 to 10 photons are as frequent as 50 to 100;
        any other evenly. Whole numbers include both ends.
        """
        drawn: dict[str, Value] = {}
        for key, of in self.values.items():
            if not isinstance(of, tuple):
                drawn[key] = of
                continue
            number, count = parts.get(key, (0, 1))
            drawn[key] = _between(*of, (number + float(rng.uniform())) / count, whole=key in self.whole)
        return drawn


@dataclass(frozen=True)
class Step:
    """A degradation of the chain.

    Attributes:
        key: its name in tables: that of the degradation, numbered from the second of a kind on (``background_2``).
        name: of the degradation.
        ranges: of its parameters.
    """

    key: str
    name: str
    ranges: Ranges


@dataclass(frozen=True)
class Part:
    """Which of several sets of pairs is made: parameters that are ``shifted`` are drawn from its part of their range.

    Attributes:
        number: of the set, from 0.
        count: of sets.
        shifted: parameters, ``step.parameter``, whose range is cut into as many equal parts as there are sets.
    """

    number: int = 0
    count: int = 1
    shifted: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Pair:
    """What a network learns from: images (Z, Y, X), float32, and how the one was made of the other."""

    image: NDArray[np.float32]
    target: NDArray[np.float32]
    drawn: Drawn


def steps_of(chain: Sequence[Mapping[str, object]]) -> tuple[Step, ...]:
    """Return the steps that the tables of a recipe describe, each ``{step = NAME, PARAMETER = NUMBER or [LOW, HIGH]}``.

    Raises:
        InputError: a step that is no degradation, a parameter that it does not have, or a range that is none.
    """
    steps: list[Step] = []
    for table in chain:
        name = str(table.get("step", ""))
        settings = {key: value for key, value in table.items() if key != "step"}
        ranges = Ranges.of(registry.load("degrade", name), name, settings)
        before = sum(step.name == name for step in steps)
        steps.append(Step(f"{name}_{before + 1}" if before else name, name, ranges))
    return tuple(steps)


def check_shifted(steps: Sequence[Step], shifted: Sequence[str]) -> None:
    """Refuse parameters to shift that no step of the chain sets; one that is fixed is the same in all sets.

    Raises:
        InputError: names the first.
    """
    known = [f"{step.key}.{key}" for step in steps for key in step.ranges.values]
    for name in shifted:
        if name not in known:
            raise InputError(
                f"no '{name}' to shift from set to set (task.shifted); accepted: {', '.join(known)}"
                f"{nearest(name, known)}"
            )


def draw(steps: Sequence[Step], rng: np.random.Generator, part: Part = Part()) -> dict[str, Value]:
    """Return parameters of one pair, and the seed of its noise; see :meth:`Ranges.draw`."""
    drawn: dict[str, Value] = {}
    for step in steps:
        parts = {key: (part.number, part.count) for key in step.ranges.values if f"{step.key}.{key}" in part.shifted}
        drawn |= {f"{step.key}.{key}": value for key, value in step.ranges.draw(rng, parts).items()}
    return {**drawn, "seed": int(rng.integers(2**31))}


def distort(truth: NDArray[np.floating], optics: Optics, steps: Sequence[Step], drawn: Drawn) -> Pair:
    """Return the pair that parameters make of an image; the same parameters give the same bytes.

    The target is the image after the steps of ``CLEANING``, as bright as the input: multiplied where ``exposure``
    multiplies, and with the ``level`` of a ``background`` as its black. It is neither blurred nor noisy, and has no
    glow.

    Args:
        truth: (Z, Y, X), of high quality, or the density of a structure.
        optics: its voxel size is that of point-spread functions.
        steps: of the chain.
        drawn: see :func:`draw`.
    """
    image = target = torch.from_numpy(np.ascontiguousarray(truth, np.float32))
    generator = torch.Generator().manual_seed(int(drawn["seed"]))
    for step in steps:
        parameters = {key: drawn[f"{step.key}.{key}"] for key in step.ranges.values}
        image = registry.load("degrade", step.name)(image, optics, generator=generator, **parameters)
        if step.name in CLEANING:
            target = image
        elif step.name == "exposure":
            target = target * float(parameters.get("factor", 1.0))
        elif step.name == "background":
            target = target + float(parameters.get("level", 0.0))
    return Pair(image.numpy(), target.numpy(), drawn)


def _range(name: str, value: object, kind: str) -> Range:
    """Return what a parameter of a kind (int, float or str) is drawn from.

    Raises:
        InputError: a value of another kind.
    """
    if "str" in kind:
        if not isinstance(value, str):
            raise InputError(f"'{name}' = {value!r}; accepted: a word")
        return value
    whole = "int" in kind
    ends: list[Any] = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(ends) != 2 or not all(_is_number(end, whole=whole) for end in ends) or ends[0] > ends[1]:
        what = "a whole number" if whole else "a number"
        raise InputError(f"'{name}' = {value!r}; accepted: {what}, or [low, high] to draw from, low first")
    if isinstance(value, list | tuple):
        return float(ends[0]), float(ends[1])
    return int(ends[0]) if whole else float(ends[0])


def _is_number(value: Any, *, whole: bool) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and math.isfinite(value)
        and (not whole or value == int(value))
    )


def _numbers(name: str, value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, int | float) for one in value):
        raise InputError(f"'{name}' = {value!r}; accepted: a list of numbers")
    return tuple(map(float, value))


def _between(low: float, high: float, share: float, *, whole: bool) -> float:
    if whole:
        return min(int(high), int(low) + int(share * (int(high) - int(low) + 1)))
    if low > 0:
        # Rounding must not leave the range.
        return min(high, max(low, low * math.exp(share * math.log(high / low))))
    return low + share * (high - low)
