"""What a report is made of: numbers, planes and sentences; nothing that has to be computed with a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything the page shows of one time point of one channel.

    Attributes:
        title: heading of the page, e.g. ``"liver.tif, channel 1"``.
        summary: plain sentences for the top: what was gained, what was lost, how far to trust it.
        facts: what was understood of the input: shape, voxel size, surface and why, axes.
        depth_um: (Z,) depth of each plane below the surface; falls with z where the surface is the last
            plane. In planes where the spacing is unknown, see ``depth_unit``.
        depth_unit: ``"um"`` or ``"planes"``.
        voxel_size: (z, y, x) in um, ``None`` where unknown.
        passes: raw, then the result of k = 1 .. K, each (Z, Y, X); read plane by plane.
        enhanced: (Z, Y, X), what was written, before it was equalised or converted to integers.
        chosen: (Z,) the k that was written, fractional where two passes are blended.
        why: the rule for k in words.
        selection: what the rule for k looked at: name to values (B, K + 1), raw first; may be empty.
        selection_depth: depth of its bins (B,).
        selection_best: k it took in each (B,).
        contrast: ``wci`` and ``pci``, each (stacks, K + 1, Z), NaN where undefined; index 0 is this stack.
        contrast_tiles: ``wci`` (and ``pci``) per xy tile, (K + 1, Z', tiles), with the planes ``z`` (Z',).
        camera: the fields of the camera estimate: ``gain``, ``intercept``, ``offset``, ``read_noise``,
            ``poissonian``, ``whiteness`` (z, y, x), ``fixed_pattern`` (correlation of the noise between
            distant planes), ``pattern_kind``, ``notes``, ``means``, ``variances``; any may be missing.
        pattern: (Y, X) fixed pattern of the camera that was removed, in grey levels.
        invalid: reason to number of voxels per plane (Z,).
        degradation: ``sigma_px``, ``sigma_um``, ``why``, ``alpha_surface``, ``alpha_deep``, all but ``why`` ``None``
            where no haze is added; ``sigmas_px`` that haze is mixed from; ``thin``, the share of the photons in the
            input; ``recorrupted``, whether noise was added instead of sharing them out; ``layers``, the planes in it,
            ``in_space`` whether as a slab.
        degraded_example: a raw plane and what training made of it, each (Y, X).
        training: ``step``, ``loss``, ``val_step``, ``val_loss``.
        fidelity: checks that the result is still the raw's, each (name, value in words).
        provenance: what is needed to do it again, each (name, value).
        scores: a table of scores against truth, header row first.
        valid: (Z, Y, X) voxels that hold a measurement; display ranges and intensities leave the others out.
        fidelity_map: (Z, Y, X) where structure was lost (+) and added (-), in standard deviations of the noise.
        flagged_from: size of its values from which a voxel is flagged.
        equalised: where planes were multiplied to be equally bright: ``factor`` (Z,), ``measured``, depth and
            brightness of structures above the offset (2, N), and ``words``.
    """

    title: str
    summary: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    depth_um: Array
    depth_unit: str
    voxel_size: tuple[float | None, float | None, float | None]
    passes: Sequence[NDArray[np.float32]]
    enhanced: NDArray[np.float32]
    chosen: Array
    why: str
    selection: Mapping[str, Array]
    selection_depth: Array
    selection_best: Array
    contrast: Mapping[str, Array]
    contrast_tiles: Mapping[str, Array] | None
    camera: Mapping[str, Any]
    pattern: NDArray[np.float32] | None
    invalid: Mapping[str, Array]
    degradation: Mapping[str, Any]
    degraded_example: tuple[Array, Array] | None
    training: Mapping[str, Array]
    fidelity: tuple[tuple[str, str], ...]
    provenance: tuple[tuple[str, str], ...]
    scores: tuple[tuple[str, ...], ...] | None = None
    valid: NDArray[np.bool_] | None = None
    fidelity_map: NDArray[np.float32] | None = None
    flagged_from: float = 4.0
    equalised: Mapping[str, Any] | None = None
