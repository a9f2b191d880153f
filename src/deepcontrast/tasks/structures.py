"""Learn from pairs that are made: of structures drawn by a model, or of images of high quality, distorted.

What is below the resolution limit but well known (tubules, granules) is drawn, what is too complex to be drawn is taken
from good images; both go through the distortion chain of the recipe (:mod:`deepcontrast.distortion`). From there on
everything is as with pairs that were measured (:mod:`deepcontrast.tasks.denoise`). No pair is kept: every round of
training has others.

Source: CARE, figure 4, and its supplement, section 2.5; semi-synthetic data, section 3.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.distortion import CLEANING, Pair, Part, Ranges, Step, check_shifted, distort, draw, steps_of
from deepcontrast.errors import InputError
from deepcontrast.progress import Progress, silent
from deepcontrast.stack import Optics, Stack
from deepcontrast.task import Bank, Source
from deepcontrast.tasks import denoise
from deepcontrast.tasks._as_it_is import clean, cleaned, on_grid, paired, windowed
from deepcontrast.tasks.denoise import (
    Fit,
    bounds,
    build,
    geometry,
    left,
    normed,
    of_pair,
    own_norm,
    restore,
    sample,
    unlike,
)

__all__ = [
    "BESIDE",
    "DEEP",
    "PAIRED",
    "SIMULATED",
    "Fit",
    "Params",
    "assumed",
    "bounds",
    "build",
    "clean",
    "cleaned",
    "fit",
    "geometry",
    "left",
    "normed",
    "of_pair",
    "on_grid",
    "own_norm",
    "paired",
    "pairs",
    "prepare",
    "restore",
    "sample",
    "simulated",
    "unlike",
    "windowed",
]

PAIRED = False
DEEP = False
SIMULATED = True
BESIDE: tuple[str, ...] = ()


class Params(denoise.Params):
    """The ``[task]`` table: that of the task ``denoise``, and how its pairs are made.

    structure: that is drawn, a name of ``synth/`` whose file has a ``draw``; none where images of high quality are
        distorted.
    draw: parameters of the drawing, each a number or a range; those of several numbers as the drawing takes them.
    size: side of a drawn image in pixels.
    pixel: side of a pixel in micrometres, of drawn images, and of others whose files do not say.
    images: drawn for every round.
    empty: share of them that show nothing but glow and noise, so that nothing is made of that.
    sets: pairs that are made of every image of high quality, in every round.
    shifted: parameters, ``step.parameter``, whose range is cut into as many parts as there are sets.
    chain: the steps, see :mod:`deepcontrast.distortion`.
    """

    joint: Literal[False] = False
    alike: bool = True
    empty: float = Field(0.1, ge=0, lt=1)
    round_steps: int = Field(250, ge=1)
    structure: str = ""
    draw: dict[str, Any] = Field(default_factory=dict)
    size: int = Field(256, ge=16)
    pixel: float = Field(0.1, gt=0)
    images: int = Field(32, ge=1)
    sets: int = Field(3, ge=1)
    shifted: tuple[str, ...] = ()
    chain: tuple[dict[str, Any], ...] = ()


def fit(sources: Sequence[Source], config: Config, *, progress: Progress = silent) -> Fit:
    """Measure the norms of pairs like those that will be made, and choose what is held out of every image.

    Raises:
        InputError: a step or a range of the chain that is not understood, or images that are too small.
    """
    return denoise.fit(pairs(sources, config), _of_pairs(config), progress=progress)


def prepare(sources: Sequence[Source], fit: Fit, config: Config, *, seed: int, round: int) -> Bank:
    """Return the planes of new pairs; what is held out is the same in every round.

    Raises:
        InputError: as the task ``denoise``.
    """

    def filled(number: int) -> Bank:
        made = pairs(sources, config, seed=seed, round=number)
        return denoise.prepare(made, fit, _of_pairs(config), seed=seed, round=number)

    bank = filled(round)
    first = filled(0) if round else bank
    return replace(bank, validation=first.validation, validation_depth=first.validation_depth, complete=False)


def pairs(sources: Sequence[Source], config: Config, *, seed: int | None = None, round: int = 0) -> list[Source]:
    """Return the pairs of a round: of every image as many as there are sets, or those of drawn structures.

    Args:
        sources: images of high quality; not looked at where structures are drawn.
        config: the settings.
        seed: of everything random; that of the settings where it is ``None``.
        round: its number.

    Raises:
        InputError: as :func:`fit`.
    """
    params, own = Params(**config.task), config.train.seed if seed is None else seed
    steps = chain_of(params)
    if params.structure:
        made = [drawn_pair(params, steps, own, f"round {round}", number) for number in range(params.images)]
        optics = drawn_optics(params)
        return [source for n, one in enumerate(made) for source in _sources([one], optics, f"{params.structure} {n}")]
    shown: list[Source] = []
    for n, source in enumerate(sources):
        optics = optics_of(source.stack, params)
        name = f"round {round} image {n}"
        made = [distorted(source.volume(), optics, steps, params, own, name, part) for part in range(params.sets)]
        shown += _sources(made, optics, source.stack.source)
    return shown


def simulated(config: Config) -> Stack:
    """Return the first of the images that training draws, in place of images that are read.

    Raises:
        InputError: the recipe draws nothing: it needs images.
    """
    params = Params(**config.task)
    if not params.structure:
        raise InputError(f"recipe '{config.recipe}' distorts images of high quality; give some with --input")
    pair = drawn_pair(params, chain_of(params), config.train.seed, "round 0", 0)
    return Stack(pair.image, "ZYX", drawn_optics(params), source=f"drawn {params.structure}")


def chain_of(params: Params) -> tuple[Step, ...]:
    """Return the steps of the chain.

    Raises:
        InputError: a step, a parameter or a range that is not understood, or images whose grey levels stay what they
            are: light and noise are in units of structures.
    """
    steps = steps_of(params.chain)
    check_shifted(steps, params.shifted)
    if not params.structure and not any(step.name == "black_level" for step in steps):
        raise InputError(
            "a chain for images needs the step 'black_level', which makes them 0 where black and 1 where bright; the "
            "recipe semi-synthetic has it"
        )
    return steps


def drawn_pair(params: Params, steps: Sequence[Step], seed: int, name: str, number: int) -> Pair:
    """Return the pair of a drawn structure, by seed, name and number alone.

    Raises:
        InputError: a structure that cannot be drawn.
    """
    rng = generator_of(seed, name, number)
    module = registry.module("synth", params.structure)
    if not hasattr(module, "draw"):
        able = [kind for kind in registry.names("synth") if hasattr(registry.module("synth", kind), "draw")]
        raise InputError(f"'{params.structure}' cannot be drawn for training; accepted: {', '.join(able)}")
    ranges = Ranges.of(module.draw, params.structure, params.draw)
    chosen, voxel = ranges.draw(rng), (params.pixel,) * 3
    truth = module.draw(rng, (1, params.size, params.size), voxel_um=voxel, **chosen, **ranges.several)
    if rng.uniform() < params.empty:
        truth = np.zeros_like(truth)
    # Nothing has neither noise nor a black level of its own.
    kept = steps if truth.any() else [step for step in steps if step.name not in CLEANING]
    drawn = draw(steps, rng, Part(number % params.sets, params.sets, params.shifted))
    pair = distort(truth, drawn_optics(params), kept, drawn)
    several = {key: " to ".join(f"{value:g}" for value in values) for key, values in ranges.several.items()}
    return replace(pair, drawn={**{f"draw.{key}": value for key, value in {**chosen, **several}.items()}, **drawn})


def distorted(
    volume: NDArray[Any], optics: Optics, steps: Sequence[Step], params: Params, seed: int, name: str, part: int
) -> Pair:
    """Return a pair of an image of high quality (Z, Y, X), by seed, name and set alone."""
    rng = generator_of(seed, name, part)
    return distort(volume, optics, steps, draw(steps, rng, Part(part, params.sets, params.shifted)))


def generator_of(seed: int, name: str, number: int) -> np.random.Generator:
    """Return the generator of one pair, whichever others are made."""
    return np.random.default_rng((seed, zlib.crc32(name.encode()), number))


def drawn_optics(params: Params) -> Optics:
    """Return what is known of the microscope of drawn images: the size of its pixels."""
    return Optics(voxel_size=(params.pixel,) * 3)


def optics_of(stack: Stack, params: Params) -> Optics:
    """Return what is known of the microscope of an image; the recipe says what its file does not."""
    z, y, x = (length or params.pixel for length in stack.optics.voxel_size)
    return replace(stack.optics, voxel_size=(z, y, x))


def assumed(stack: Stack, config: Config) -> list[str]:
    """Return in words that the size of an image's pixels is taken from the settings, where its file does not say it."""
    if all(stack.optics.voxel_size[1:]):
        return []
    return [f"  its pixels are taken to be {config.task['pixel']:g} um, task.pixel; --voxel-size says it better"]


def _of_pairs(config: Config) -> Config:
    """Return the settings as those of the task ``denoise``, which knows nothing of how its pairs are made."""
    return config.model_copy(update={"task": {key: config.task[key] for key in denoise.Params.model_fields}})


def _sources(made: Sequence[Pair], optics: Optics, name: str) -> list[Source]:
    """Return pairs of one place as time points of one stack: what is held out of one is held out of all."""
    image, target = (
        Stack(np.stack(volumes), "TZYX", optics, source=name)
        for volumes in ([one.image for one in made], [one.target for one in made])
    )
    depth = np.zeros(image.size("Z"))
    return [Source(image, t, 0, depth, target) for t in range(len(made))]
