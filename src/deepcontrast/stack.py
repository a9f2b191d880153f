"""The one image that is handed from stage to stage: an array, its axes and its optics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.errors import InputError

AXES = "TCZYX"


@dataclass(frozen=True)
class Optics:
    """What is known of the microscope; ``None`` where it is not known.

    Attributes:
        voxel_size: size of a voxel (z, y, x) in micrometres; ``None`` for an axis of unknown spacing.
        numerical_aperture: of the objective.
        wavelengths: emission wavelengths in nanometres, one per channel.
        refractive_index: of the immersion medium.
        depth_um: depth of plane 0 below the surface in micrometres.
        origin_um: where the first voxel (z, y, x) lies in the image that this one was made of, in micrometres.
        surface: which end of Z lies at the surface of the tissue, ``"first"`` or ``"last"``.
        gain: grey levels per photon.
        offset: grey level of a voxel that no photon reached.
        read_noise: standard deviation of the camera in the dark, in grey levels.
    """

    voxel_size: tuple[float | None, float | None, float | None] = (None, None, None)
    numerical_aperture: float | None = None
    wavelengths: tuple[float, ...] = ()
    refractive_index: float | None = None
    depth_um: float = 0.0
    origin_um: tuple[float, float, float] = (0.0, 0.0, 0.0)
    surface: str | None = None
    gain: float | None = None
    offset: float | None = None
    read_noise: float | None = None


@dataclass(frozen=True, eq=False)
class Stack:
    """An image of one to five axes out of ``"TCZYX"``, in that order.

    Attributes:
        array: anything with ``shape``, ``dtype`` and NumPy indexing: an array, a zarr array, a memory map.
        axes: one letter per axis of the array, e.g. ``"ZYX"``.
        optics: voxel size, surface, camera.
        channels: names of the channels; empty where the file has none.
        source: the path it was read from, or a word for where it came from.
        notes: what had to be assumed while reading, one sentence each.
    """

    array: Any
    axes: str
    optics: Optics = field(default_factory=Optics)
    channels: tuple[str, ...] = ()
    source: str = "array"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        parse_axes(self.axes, self.array.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.array.dtype)
        return dtype

    def size(self, axis: str) -> int:
        """Return the length of an axis, 1 for an axis the stack does not have."""
        return self.shape[self.axes.index(axis)] if axis in self.axes else 1

    def index(self, t: int, c: int) -> tuple[int | slice, ...]:
        """Return the index of one time point and channel; axes the stack does not have are passed over."""
        return tuple({"T": t, "C": c}.get(axis, slice(None)) for axis in self.axes)

    def frame(self, t: int = 0, c: int = 0) -> Frame:
        """Return one time point and channel (Z, Y, X), unread."""
        return Frame(self, t, c)

    def volume(self, t: int = 0, c: int = 0) -> NDArray[Any]:
        """Return one time point and channel as an array (Z, Y, X); Z is 1 for a single plane."""
        volume = np.asarray(self.array[self.index(t, c)])
        return volume[None] if "Z" not in self.axes else volume

    def with_optics(self, **changes: Any) -> Stack:
        """Return the same stack with some fields of its optics replaced."""
        return replace(self, optics=replace(self.optics, **changes))

    def describe(self) -> str:
        """Return one line that says what was understood: shape, axes, type, voxel size, channels."""
        shape = " x ".join(f"{axis} {n}" for axis, n in zip(self.axes, self.shape, strict=True))
        sizes = self.optics.voxel_size
        voxel = (
            "voxel size unknown (working in pixels and planes)"
            if all(s is None for s in sizes)
            else "voxel " + " x ".join("?" if s is None else f"{s:.4g}" for s in sizes) + " um (z y x)"
        )
        names = f", channels {', '.join(self.channels)}" if self.channels else ""
        return f"{self.source}: {shape}, {self.dtype.name}, {voxel}{names}"


@dataclass(frozen=True, eq=False)
class Frame:
    """One time point and channel of a stack, (Z, Y, X), of which only what is sliced is read.

    Attributes:
        stack: where the voxels are.
        t: index of the time point.
        c: index of the channel.
    """

    stack: Stack
    t: int
    c: int

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.stack.size("Z"), self.stack.size("Y"), self.stack.size("X")

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stack.dtype

    @property
    def ndim(self) -> int:
        return 3

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Return a part, chosen by up to three numbers and forward slices, as NumPy would."""
        keys = key if isinstance(key, tuple) else (key,)
        keys = (*keys, *[slice(None)] * (3 - len(keys)))
        if "Z" not in self.stack.axes:
            rows = np.asarray(self.stack.array[self._place(0, *keys[1:])])
            whole: NDArray[Any] = rows[None][keys[0]]
            return whole
        return np.asarray(self.stack.array[self._place(*keys)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        volume = self.stack.volume(self.t, self.c)
        return volume.astype(dtype or volume.dtype, copy=bool(copy))

    def _place(self, *zyx: Any) -> tuple[Any, ...]:
        place = {"T": self.t, "C": self.c, **dict(zip("ZYX", zyx, strict=True))}
        return tuple(place[axis] for axis in self.stack.axes)


def parse_axes(axes: str, ndim: int) -> str:
    """Return ``axes`` if it names ``ndim`` axes out of TCZYX in that order and ends in YX.

    Raises:
        InputError: the string has another length, an unknown or repeated letter, or another order.
    """
    accepted = f"letters of {AXES} in that order, ending in YX"
    if len(axes) != ndim:
        raise InputError(f"axes '{axes}' name {len(axes)} axes, the image has {ndim}; accepted: {accepted}")
    ordered = "".join(axis for axis in AXES if axis in axes)
    if axes != ordered or not axes.endswith("YX"):
        hint = f"; did you mean '{ordered}'?" if sorted(ordered) == sorted(axes) else ""
        raise InputError(f"axes '{axes}' are not understood; accepted: {accepted}{hint}")
    return axes
