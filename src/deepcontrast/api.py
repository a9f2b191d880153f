"""The package from Python: what ``import deepcontrast as dc`` offers."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast import __version__, accept, enhancing, learning, registry
from deepcontrast.config import Config
from deepcontrast.enhanced import Enhanced
from deepcontrast.errors import InputError
from deepcontrast.evaluation import depth_means, truth_rows
from deepcontrast.io import container_suffix, stem
from deepcontrast.jobs.hardware import hardware
from deepcontrast.jobs.images import is_image_name
from deepcontrast.jobs.predict_in_memory import predict_maps, predict_stack
from deepcontrast.jobs.results import save
from deepcontrast.model import Model, load_model, save_model
from deepcontrast.progress import Progress, silent
from deepcontrast.recipe import load_recipe
from deepcontrast.stack import Stack
from deepcontrast.valid import find_invalid
from deepcontrast.workdir import finish, working

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, eq=False)
class Restorer:
    """A trained model, ready to be applied.

    Attributes:
        model: weights, fit, settings and provenance.
    """

    model: Model

    def predict(
        self,
        stack: Stack,
        *,
        iterations: int = 1,
        norm: str = "image",
        device: str = "auto",
        progress: Progress = silent,
    ) -> Stack:
        """Return the stack, or single plane, restored ``iterations`` times, in float32.

        ``norm`` is ``"image"``, which normalises as in training (every image by itself where the model was trained so),
        or ``"stored"``, which takes the numbers of training.
        """
        where = accept.choose_device(device)
        return predict_stack([self.model], stack, iterations=iterations, norm=norm, device=where, progress=progress)

    def predict_with_uncertainty(
        self, stack: Stack, *, norm: str = "image", device: str = "auto", progress: Progress = silent
    ) -> Mapping[str, Stack]:
        """Return the stack restored once, and how sure the networks are, in float32.

        Of a model that was trained with the loss ``laplace``. Arguments as for :meth:`predict`.

        Returns:
            ``"mean"``; ``"scale"``, the absolute error that is expected of it; ``"lower"`` and ``"upper"``, the bounds
            of a 90 % interval; ``"entropy"``, in nats; ``"disagreement"`` of the networks, from 0 to 1.

        Raises:
            InputError: the model was trained with another loss.
        """
        where = accept.choose_device(device)
        return predict_maps([self.model], stack, norm=norm, uncertainty=True, device=where, progress=progress)

    def save(self, path: PathLike) -> None:
        """Write the model file (``.safetensors``)."""
        save_model(Path(path), self.model)


@dataclass(frozen=True, eq=False)
class Result:
    """An enhanced experiment.

    Attributes:
        enhanced: all that was computed: passes, choices, measurements.
        names: file names the results are written under, one per stack, no two with the same stem.
        config: the settings.
        device: what it was computed on.
    """

    enhanced: Enhanced
    names: tuple[str, ...]
    config: Config
    device: str = "cpu"

    @property
    def stack(self) -> Stack:
        """The (first) enhanced stack, in float32, with the axes of its input."""
        return self.enhanced.image()

    @property
    def stacks(self) -> tuple[Stack, ...]:
        """Every enhanced stack, in float32."""
        return tuple(self.enhanced.image(i) for i in range(len(self.names)))

    @property
    def restorer(self) -> Restorer:
        """The model, to be applied to more stacks of the experiment."""
        return Restorer(self.enhanced.model)

    def save(self, out: PathLike, *, overwrite: bool = False) -> None:
        """Write what the command line writes: enhanced stack, model, report, metrics.json, run.json."""
        run = {
            "version": __version__,
            "verb": "enhance",
            "config": self.config.model_dump(),
            "input": dict(zip(self.names, map(_fingerprint, self.enhanced.stacks), strict=True)),
            "sources": [stack.source for stack in self.enhanced.stacks],
            "seed": self.config.train.seed,
            "hardware": hardware(self.device, self.enhanced.model),
        }
        with working(Path(out), overwrite=overwrite, inputs=self._files()) as work:
            said = save(self.enhanced, work.result, [Path(name) for name in self.names])
            finish(work, {**run, "said": said})

    def _files(self) -> list[Path]:
        return [Path(stack.source) for stack in self.enhanced.stacks if Path(stack.source).exists()]


def enhance(
    stacks: Stack | Sequence[Stack],
    recipe: str = "contrast",
    *,
    settings: Mapping[str, Any] | None = None,
    restorer: Restorer | None = None,
    iterations: int | None = None,
    mask: NDArray[np.bool_] | None = None,
    surface: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Result:
    """Enhance deep stacks without ground truth; several share one model.

    Args:
        stacks: of Z, Y, X, and T and C where there are; see :func:`deepcontrast.open`.
        recipe: name of a recipe, or a path ending in ``.toml``.
        settings: any setting by its dotted key, e.g. ``{"train.steps": 500}``.
        restorer: a trained model, which skips training.
        iterations: how often the network is applied; ``None`` chooses it by depth.
        mask: structures of the first stack (Z, Y, X); chooses the iterations by IoU.
        surface: ``"first"``, ``"last"`` or ``"auto"``.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        progress: gets events; may raise Cancelled.

    Raises:
        InputError: a stack or setting that cannot be used; the message says what is accepted.
    """
    if mask is not None and iterations is not None:
        raise InputError("mask chooses the iterations, iterations fixes them; give one of them")
    given = [stacks] if isinstance(stacks, Stack) else list(stacks)
    config, where = load_recipe(recipe, settings or {}), accept.choose_device(device)
    if restorer:
        unused = [key for key in settings or {} if not key.startswith("predict.")]
        if unused or recipe != "contrast":
            raise InputError(f"{unused[0] if unused else 'recipe'} has no effect with a restorer, which brings its own")
        config = restorer.model.config.model_copy(update={"predict": config.predict})
    accept.check_unpaired(config)
    folder = Path(tempfile.mkdtemp(prefix="deepcontrast-"))
    try:
        found = enhancing.enhance(
            given,
            config,
            model=restorer.model if restorer else None,
            iterations=iterations,
            mask=mask,
            surface=surface,
            device=where,
            folder=folder,
            progress=progress,
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    # The passes are maps of files in there; they go with the result.
    weakref.finalize(found, shutil.rmtree, folder, ignore_errors=True)
    return Result(found, _names(given), config, where)


def train(
    stacks: Stack | Sequence[Stack] = (),
    recipe: str = "contrast",
    *,
    targets: Stack | Sequence[Stack] = (),
    settings: Mapping[str, Any] | None = None,
    surface: str = "auto",
    device: str = "auto",
    progress: Progress = silent,
) -> Restorer:
    """Train a model on stacks, or on what the recipe draws; arguments as for :func:`enhance`.

    Args:
        targets: registered, of every stack, for a recipe that learns from pairs (``care``).

    Raises:
        InputError: a stack, pair or setting that cannot be used.
    """
    given = [stacks] if isinstance(stacks, Stack) else list(stacks)
    truths = [targets] if isinstance(targets, Stack) else list(targets)
    config = accept.with_inputs(load_recipe(recipe, settings or {}), len(given))
    accept.check_paired(config, bool(truths))
    task: Any = registry.load("tasks", config.task_name)
    if truths:
        accept.check_counts(given, truths)
        pairs = [task.paired(image, target, config) for image, target in zip(given, truths, strict=True)]
        given, truths = [image for image, _ in pairs], [target for _, target in pairs]
        accept.check_pairs(given, truths)
    elif given:
        accept.check_stacks(given, flat=task.SIMULATED)
    else:
        given = [task.simulated(config)]
    if task.DEEP:
        placed = [accept.surfaced(stack, surface)[0] for stack in given]
    else:
        placed = [stack.with_optics(surface="first") for stack in given]
    with tempfile.TemporaryDirectory(prefix="deepcontrast-") as folder:
        model, _ = learning.learn(
            placed, config, targets=truths, device=accept.choose_device(device), folder=Path(folder), progress=progress
        )
    return Restorer(model)


def load(path: PathLike) -> Restorer:
    """Read a model file.

    Raises:
        ModelFileError: truncated, altered, of a newer format, or not a model.
    """
    return Restorer(load_model(Path(path)))


def predict(restorer: Restorer, stack: Stack, *, iterations: int = 1, device: str = "auto") -> Stack:
    """Return the stack, or single plane, restored ``iterations`` times, in float32."""
    return restorer.predict(stack, iterations=iterations, device=device)


def evaluate(
    result: Stack,
    *,
    truth: Stack | None = None,
    raw: Stack | None = None,
    mask: NDArray[np.bool_] | None = None,
    labels: NDArray[np.int_] | None = None,
) -> dict[str, float]:
    """Return the scores of a result (Z, Y, X) against truth, mask and labels: means over planes, or of the volume.

    With ``raw``, the voxels in which it holds no measurement (filled borders, saturation) are left out. A score
    that is not defined is NaN.
    """
    volume = result.volume().astype(np.float32)
    true = None if truth is None else truth.volume().astype(np.float32)
    valid = None if raw is None else find_invalid(raw.volume()).valid
    rows = truth_rows(
        volume, true, mask, labels=labels, method="result", k=None, depth_um=[None] * len(volume), valid=valid
    )
    whole = {row.metric: float("nan") if row.value is None else row.value for row in rows if row.z is None}
    return {**{name: float(v[0]) for name, v in depth_means(rows, len(volume), count=1).items()}, **whole}


def _names(stacks: Sequence[Stack]) -> tuple[str, ...]:
    """Return a file name for every stack: its own where it has one, with a number where two have the same."""
    names: dict[str, str] = {}
    for i, stack in enumerate(stacks):
        own = Path(stack.source).name
        name = own if is_image_name(Path(own)) else f"stack_{i}.tif"
        first, number = stem(name), 2
        while stem(name) in names:
            name, number = f"{first}_{number}{container_suffix(name)}", number + 1
        names[stem(name)] = name
    return tuple(names.values())


def _fingerprint(stack: Stack) -> str:
    """Return a hash of axes, type and values: what was enhanced, whether or not it is still what the file holds."""
    digest = hashlib.sha256(f"{stack.axes} {stack.shape} {stack.dtype.name}".encode())
    for t in range(stack.size("T")):
        for c in range(stack.size("C")):
            digest.update(np.ascontiguousarray(stack.volume(t, c)).tobytes())
    return f"sha256-values:{digest.hexdigest()}"


__all__ = ["Restorer", "Result", "enhance", "evaluate", "load", "predict", "train"]
