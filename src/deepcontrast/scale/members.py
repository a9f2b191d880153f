"""Several models applied as one: the mean over all their networks, each with its own settings, scale and camera."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from deepcontrast import registry
from deepcontrast.config import Config
from deepcontrast.errors import InputError
from deepcontrast.joined import given, own_first
from deepcontrast.model import Channel, Model
from deepcontrast.normalize import Norm
from deepcontrast.prediction import Done, Plan, load_nets, make_plan, predict_pass
from deepcontrast.progress import Event
from deepcontrast.stack import Frame, Stack
from deepcontrast.task import Geometry
from deepcontrast.uncertainty import MAPS
from deepcontrast.valid import Survey, codes
from deepcontrast.views import AS_IT_IS, Viewed, seen, seen_back

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Member:
    """The networks of one model for one channel, ready to predict.

    Attributes:
        nets: the networks.
        fit: what the task estimated when they were trained.
        config: the settings they were trained with.
        share: of them in the mean over the ensemble.
        too_much: mean disagreement of a tile from which it is not to be trusted; ``None``: not known.
    """

    nets: Sequence[nn.Module]
    fit: Any
    config: Config
    share: float
    too_much: float | None = None


def check_models(models: Sequence[Model], stack: Stack, norm: str = "image") -> None:
    """Refuse models that cannot form an ensemble, or cannot be applied to a stack.

    Raises:
        InputError: the models restore different things, or other channels than the stack has; or ``norm`` is
            ``"stored"`` and one keeps none.
    """
    if norm == "stored" and not all(map(keeps_norms, models)):
        raise InputError("a converted CARE model keeps no norms of its training; leave --norm stored out")
    if len({(m.task, len(m.channels)) for m in models}) > 1:
        raise InputError("the models are of different tasks or channels; they cannot form one ensemble")
    if len(models[0].channels) != stack.size("C"):
        alone = len(models[0].channels) == 1
        raise InputError(
            f"the model has {len(models[0].channels)} channels, the image has {stack.size('C')}; "
            + ("--channel selects one" if alone else "accepted: an image of the same channels, without --channel")
        )


def keeps_norms(model: Model) -> bool:
    """Return whether a model knows how its training images were normalised; CSBDeep's files do not say."""
    return not (model.provenance.get("converted") and model.config.task.get("per_image"))


def merged(models: Sequence[Model]) -> Model:
    """Return the one model that several are: same data, same settings, other seeds.

    Together they may disagree more than each was seen to do: nothing is known of what is too much. Their distributions
    are set right as those of the first.

    Raises:
        InputError: they are not: their distributions are of different things.
    """
    first = models[0]
    if len(models) > 1 and any(model.provenance.get("converted") for model in models):
        raise InputError("converted models do not say what they learned from; give one of them")
    for other in models[1:]:
        same = (
            _without_seed(first.config) == _without_seed(other.config)
            and len(first.channels) == len(other.channels)
            and all(map(_same_fit, first.channels, other.channels))
        )
        if not same:
            raise InputError(
                "the models differ in more than their seeds, or learned from other images; their uncertainties cannot "
                "be put together. `deepcontrast train --ensemble M` trains M networks into one file"
            )
    if len(models) == 1:
        return first
    channels = [
        replace(channel, trust=None, members=tuple(member for model in models for member in model.channels[c].members))
        for c, channel in enumerate(first.channels)
    ]
    return replace(first, channels=tuple(channels))


def check_uncertain(models: Sequence[Model], iterations: int) -> None:
    """Refuse to say how sure models are that were not trained to say so.

    Raises:
        InputError: says what would do.
    """
    if iterations > 1:
        raise InputError("--uncertainty and --movie are of one pass; leave --iterations out")
    if models[0].task == "isotropic":
        raise InputError("a model of isotropic does not say how sure it is; leave --uncertainty and --movie out")
    for model in models:
        if model.config.train.loss != "laplace":
            raise InputError(
                f"the model was trained with the loss '{model.config.train.loss}' and predicts no uncertainty; train "
                "with --set train.loss=laplace"
            )
    merged(models)


def check_once(image: Stack, result: Stack, iterations: int) -> None:
    """Refuse to apply models again to a result that lies on another grid than the image.

    Raises:
        InputError: says so.
    """
    if iterations > 1 and result is not image:
        raise InputError("what has other planes than the image is made once; leave --iterations out")


def _without_seed(config: Config) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update={"seed": 0})})


def _same_fit(one: Channel, other: Channel) -> bool:
    """Return whether two channels were learned from the same images, of which other parts may be held out."""
    own = ("held_out", "widened", "levels")
    fits = [{key: value for key, value in channel.fit.items() if key not in own} for channel in (one, other)]
    alike = one.arrays.keys() == other.arrays.keys()
    return fits[0] == fits[1] and alike and all(np.array_equal(one.arrays[k], other.arrays[k]) for k in one.arrays)


def open_members(task: Any, models: Sequence[Model], c: int, device: str) -> list[Member]:
    """Return every model's networks for one channel."""
    total = sum(len(model.channels[c].members) for model in models)
    members = []
    for model in models:
        channel = model.channels[c]
        fit = task.Fit.decode(channel.fit, channel.arrays)
        nets = load_nets(task, channel.members, fit, model.config, device)
        too_much = None if channel.trust is None else channel.trust["too_much"]
        members.append(Member(nets, fit, model.config, len(nets) / total, too_much))
    return members


def own_norms(task: Any, members: Sequence[Member], frame: Frame, known: Survey, norm: str) -> list[Norm | None]:
    """Return with which norm of its own, if any, each member is applied to a channel of an image.

    Args:
        task: what the models restore.
        members: of the ensemble, for the channel.
        frame: the image (Z, Y, X).
        known: its survey.
        norm: ``"stored"`` takes that of training; ``"image"`` that of the image, where the model was trained so.

    Raises:
        InputError: some were trained so and some not: their results are in different grey levels.
    """
    norms = [None if norm == "stored" else task.own_norm(member.fit, frame, known) for member in members]
    if None in norms and any(norms):
        raise InputError(
            "some of the models normalise every image by itself and some do not; they form one ensemble only with "
            "--norm stored"
        )
    return norms


def left(task: Any, members: Sequence[Member], values: NDArray[Any]) -> NDArray[Any]:
    """Return what stands in a result for values of the image that were not restored, the mean over the ensemble."""
    if len(members) == 1:
        alone: NDArray[Any] = task.left(members[0].fit, values)
        return alone
    mean: NDArray[Any] = sum(member.share * task.left(member.fit, values) for member in members)
    return mean


def normed(task: Any, members: Sequence[Member], norms: Sequence[Sequence[Norm | None]], c: int) -> list[Member]:
    """Return the members for a channel of an image, given the norms of all its channels."""
    fitted = []
    for member, own in zip(members, zip(*norms, strict=True), strict=True):
        fitted.append(member if None in own else replace(member, fit=task.normed(member.fit, own, c)))
    return fitted


def volumes_for(task: Any, members: Sequence[Member], c: int, volume_of: Callable[[Member, int], Any]) -> list[Any]:
    """Return what each member is given to restore a channel: what is called for it, or for all channels together."""
    return [given(c, geometry_of(task, member).channels, partial(volume_of, member)) for member in members]


def unmeasured(
    task: Any,
    members: Sequence[Member],
    stack: Stack,
    surveys: Mapping[tuple[int, int], Survey],
    t: int,
    c: int,
    box: Box,
) -> NDArray[np.bool_] | None:
    """Return which voxels of a box hold no measurement, in any channel that is given to restore one; ``None``: none."""
    channels = own_first(c, max(geometry_of(task, member).channels for member in members))
    known = [(n, surveys[t, n]) for n in channels if not surveys[t, n].all_valid]
    found = [codes(stack.frame(t, n), survey, box) > 0 for n, survey in known]
    return np.asarray(np.logical_or.reduce(found)) if found else None


def geometry_of(task: Any, member: Member) -> Geometry:
    """Return how the networks of a member may be applied."""
    found: Geometry = task.geometry(member.nets[0], member.fit, member.config)
    return found


def halo_of(geometry: Geometry) -> tuple[int, int, int]:
    """Return how far networks look along Z, Y, X, in whichever of their views."""
    z, y, x = np.max([seen_back(geometry.halo, view) for view in geometry.views], axis=0).tolist()
    return z, y, x


def grid_of(models: Sequence[Model]) -> Callable[[Stack], Stack]:
    """Return what takes an image to the grid of its result, see ``Task.on_grid``; it can be pickled."""
    task: Any = registry.load("tasks", models[0].task)
    fits = (task.Fit.decode(model.channels[0].fit, model.channels[0].arrays) for model in models)
    return partial(_on_one_grid, task.on_grid, tuple(fits))


def _on_one_grid(on_grid: Callable[[Stack, Any], Stack], fits: Sequence[Any], stack: Stack) -> Stack:
    """Return an image on the grid of its result.

    Raises:
        InputError: of several models, their results have different grids.
    """
    first, *others = (on_grid(stack, fit) for fit in fits)
    for other in others:
        if (other.shape, other.optics.voxel_size) != (first.shape, first.optics.voxel_size):
            raise InputError(f"the models make {first.shape} and {other.shape} of it; accepted: models of one grid")
    return first


def maps_of(models: Sequence[Model], *, uncertain: bool) -> tuple[str, ...]:
    """Return the names of what is written beside the result of models."""
    beside: tuple[str, ...] = registry.load("tasks", models[0].task).BESIDE
    return (*beside, *(MAPS if uncertain else ()))


def plan_members(
    task: Any,
    members: Sequence[Member],
    shape: Sequence[int],
    *,
    device: str,
    memory: int,
    besides: int = 0,
    block: Sequence[int],
    maps: Sequence[str] = (),
    planes: int = 1,
) -> list[Plan]:
    """Return how each member will be applied to volumes (Z, Y, X), block by block and view by view."""
    plan = partial(make_plan, task, device=device, memory=memory, besides=besides, maps=maps, planes=planes)
    return [
        plan(nets=one.nets, shape=seen(shape, view), fit=one.fit, config=one.config, block=seen(block, view))
        for one in members
        for view in geometry_of(task, one).views
    ]


def restore(
    task: Any,
    members: Sequence[Member],
    volumes: Sequence[Any],
    *,
    device: str,
    report: Callable[[float], None],
    box: Box | None = None,
    plans: Sequence[Plan | None] | None = None,
    beside: Sequence[str] = (),
) -> tuple[dict[str, NDArray[np.float32]], list[Done]]:
    """Return one pass over a volume (Z, Y, X), or a box of it, and how each member did.

    Of the pass there is the ``"mean"`` over the ensemble, and what is asked for beside it; the maps of
    :mod:`deepcontrast.uncertainty` are those of a single model, the others means over all.

    Args:
        task: what the models restore.
        members: of the ensemble.
        volumes: what each member is applied to, in grey levels; only sliced.
        device: where the networks are.
        report: takes the share that is done.
        box: what is restored of it; by default the whole.
        plans: of the tiles, for each view of each member; by default made here.
        beside: names of the maps that are wanted, see :func:`maps_of`.
    """
    box = box or (slice(0, volumes[0].shape[0]), slice(0, volumes[0].shape[1]), slice(0, volumes[0].shape[2]))
    shape = [part.stop - part.start for part in box]
    maps: dict[str, NDArray[np.float32]] = {}
    views = [geometry_of(task, member).views for member in members]
    total, done, given_plans = sum(map(len, views)), list[Done](), iter(plans or ())
    for member, volume, orders in zip(members, volumes, views, strict=True):
        parts = []
        found = {name: np.empty(shape, np.float32) for name in beside}
        for view in orders:

            def progress(event: Event) -> None:
                if event.total:
                    report((len(done) + event.done / event.total) / total)

            parts.append(np.empty(shape, np.float32))
            one = predict_pass(
                task,
                member.nets,
                volume if view == AS_IT_IS else Viewed(volume, view),
                member.fit,
                member.config,
                out=parts[-1].transpose(view),
                beside=found,
                box=seen(box, view),
                plan=next(given_plans, None),
                device=device,
                progress=progress,
            )
            done.append(replace(one, seam=one.seam.of_volume(view)))
        found["mean"] = _merged(parts, geometry_of(task, member).above)
        for name, image in found.items():
            if len(members) > 1:
                image *= np.float32(member.share)
            if name in maps:
                maps[name] += image
            else:
                maps[name] = image
    return maps, done


def _merged(views: Sequence[NDArray[np.float32]], above: float | None) -> NDArray[np.float32]:
    """Return the mean of what was restored in several views, in the first of them; see :class:`Geometry`."""
    first, *others = views
    if not others:
        return first
    if above is None:
        for other in others:
            first += other
        first /= len(views)
        return first
    first -= np.float32(above)
    np.maximum(first, 0, out=first)
    for other in others:
        first *= np.maximum(other - np.float32(above), 0)
    np.power(first, 1 / len(views), out=first)
    first += np.float32(above)
    return first
