"""What the words of an option mean; refused in one line where they mean nothing."""

from __future__ import annotations

import math
import tomllib
from typing import Any

from deepcontrast.errors import InputError


def settled(
    recipe: str, settings: list[str] | None, *, seed: int | None, gain: float | None, offset: float | None
) -> Any:
    if gain is not None and not gain > 0:
        raise InputError(f"--gain {gain:g}: grey levels per photon must be above 0; leave it out to estimate it")
    from deepcontrast.recipe import load_recipe

    return load_recipe(recipe, settings or (), train__seed=seed, task__gain=gain, task__offset=offset)


def iterations_of(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdigit() or not 1 <= int(text) <= 20:
        raise InputError(f"--iterations '{text}' is not understood; accepted: auto, or a number from 1 to 20")
    return int(text)


def refuse_training_options(
    recipe: str, settings: list[str], *, gain: float | None, offset: float | None, seed: int | None, ensemble: int
) -> None:
    """Refuse beside --model what only training or fitting looks at: the model brings its own.

    Raises:
        InputError: names the first such option.
    """
    trained = [f"--set {s}" for s in settings if s.strip().startswith(("train.", "net.", "task."))]
    for option, given in (
        (f"--recipe {recipe}", recipe != "contrast"),
        ("--gain", gain is not None),
        ("--offset", offset is not None),
        ("--seed", seed is not None),
        (f"--ensemble {ensemble}", ensemble > 1),
        *((option, True) for option in trained),
    ):
        if given:
            raise InputError(f"{option} has no effect with --model, which brings its own; leave one of them out")


def reading_of(axes: str | None, voxel_size: str | None, channel: str | None, surface: str = "auto") -> Any:
    from deepcontrast.jobs.images import Reading

    return Reading(axes, voxel_size_of(voxel_size), channel, surface)


def resources_of(memory: str | None, workers: int | None, scheduler: str | None) -> Any:
    if scheduler is not None and workers is not None:
        raise InputError("--workers are local processes, --scheduler has workers of its own; give one of them")
    from deepcontrast.compute.memory import parse_memory
    from deepcontrast.scale.resources import Resources

    return Resources(None if memory is None else parse_memory(memory), workers or 1, scheduler)


def voxel_size_of(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    z, y, x = numbers(text, 3, "--voxel-size")
    if min(z, y, x) <= 0:
        raise InputError(f"--voxel-size '{text}': sizes must be above 0")
    return z, y, x


def optics_of(na: float | None, wavelength: float | None, index: float | None) -> dict[str, Any]:
    """Return those fields of Optics that are given."""
    found: dict[str, Any] = {}
    if na is not None:
        found["numerical_aperture"] = above_zero(na, "--na")
    if wavelength is not None:
        found["wavelengths"] = (above_zero(wavelength, "--wavelength"),)
    if index is not None:
        found["refractive_index"] = above_zero(index, "--index")
    return found


def psf_of(given: str | None, recipe: str) -> list[str]:
    """Return the setting that a point-spread function is, of a recipe that makes its pairs or of another."""
    if given is None:
        return []
    from deepcontrast.config import task_of

    if task_of(recipe) != "structures":
        return [f"task.psf='{given}'"]
    return [f"task.chain.convolve.{'kind' if given in ('widefield', 'confocal') else 'file'}='{given}'"]


def zernike_of(text: str | None) -> dict[int, float] | None:
    """Return amounts by OSA index, of words like 12=0.5,5=0.3."""
    if text is None:
        return None
    amounts: dict[int, float] = {}
    for part in text.split(","):
        index, _, amount = part.partition("=")
        try:
            j, radians = int(index), float(amount)
        except ValueError:
            j, radians = -1, math.nan
        if not math.isfinite(radians) or j in amounts:
            raise InputError(
                f"--zernike '{text}' is not understood; accepted: OSA index=radians, each once, with commas, e.g. "
                "12=0.5,5=0.3"
            )
        amounts[j] = radians
    return amounts


def above_zero(value: float, option: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{option} {value:g} is not understood; accepted: a number above 0")
    return value


def numbers(text: str, count: int | None, option: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(map(math.isfinite, found)) or (count is not None and len(found) != count):
        wanted = f"{count} numbers" if count else "numbers"
        raise InputError(f"{option} '{text}' is not understood; accepted: {wanted} with commas, e.g. 1,2,3")
    return found


def whole_numbers(text: str, count: int | None, option: str) -> list[int]:
    found = numbers(text, count, option)
    if any(n < 0 or n != int(n) for n in found):
        raise InputError(f"{option} '{text}' is not understood; accepted: whole numbers from 0, e.g. 1,2,3")
    return [int(n) for n in found]


def grid_of(tried: list[str] | None) -> dict[str, list[Any]] | None:
    """Return the values to try by the key of their setting; ``None`` where nothing is given."""
    found: dict[str, list[Any]] = {}
    for text in tried or ():
        key, _, values = text.partition("=")
        if not values:
            raise InputError(f"--try '{text}' is not of the form key=value,value, e.g. train.patch=32,64")
        try:
            found[key.strip()] = tomllib.loads(f"values = [{values}]")["values"]
        except tomllib.TOMLDecodeError:
            found[key.strip()] = [value.strip() for value in values.split(",")]
    return found or None


def one_of(word: str, accepted: tuple[str, ...], option: str) -> str:
    if word not in accepted:
        raise InputError(f"{option} '{word}' is not understood; accepted: {', '.join(accepted)}")
    return word


def dtype_of(name: str | None) -> str | None:
    accepted = ("uint8", "uint16", "float32")
    if name is not None and name not in accepted:
        raise InputError(f"--dtype '{name}' is not understood; accepted: {', '.join(accepted)}")
    return name
