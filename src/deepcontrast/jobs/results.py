"""What lies in a result's folder: image, model, report and metrics.json."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepcontrast.atomic import write_json
from deepcontrast.depth import depths
from deepcontrast.enhanced import Enhanced
from deepcontrast.equalise import EQUALISED, to_record
from deepcontrast.evaluation import Row
from deepcontrast.io import container_suffix, stem
from deepcontrast.jobs.images import write_image
from deepcontrast.model import save_model
from deepcontrast.progress import Event, Progress, silent
from deepcontrast.report.page import write_report
from deepcontrast.story import report_data

METRICS_VERSION = 1


def save(
    result: Enhanced,
    out: Path,
    files: Sequence[Path],
    *,
    dtype: str | None = None,
    fidelity_map: bool = False,
    scores: tuple[tuple[str, ...], ...] | None = None,
    folders: bool | None = None,
    large: Mapping[int, str] | None = None,
    progress: Progress = silent,
) -> list[str]:
    """Write an enhanced experiment into an existing folder; return what there is to say about it.

    One image is written into the folder itself, several each into a folder named like the image; ``folders``
    says so for one that is left of several. ``fidelity_map`` writes that beside it. ``large`` has a note for every
    image that is written by others, shard by shard.
    """
    said = _found(result)
    save_model(out / "model.safetensors", result.model)
    for i, file in enumerate(files):
        folder = out / stem(file) if (len(files) > 1 if folders is None else folders) else out
        folder.mkdir(exist_ok=True)
        if large and i in large:
            note = large[i]
        else:
            target = folder / ("enhanced" + container_suffix(file))
            wanted = np.dtype(dtype) if dtype else result.stacks[i].dtype
            note = write_image(target, result.image(i), wanted, attributes_of(result, i))
        if fidelity_map:
            write_image(folder / ("fidelity_map" + container_suffix(file)), result.map(i), np.dtype(np.float32))
        said.append(f"{file.name}: {note}")
        rows = [row for channels in result.restored[i] for one in channels for row in one.rows]
        excerpt = result.excerpts[i]
        if excerpt is not None:
            said.append(f"{file.name}: {excerpt.describe()}")
            rows = [row if row.z is None else replace(row, z=int(excerpt.planes[row.z])) for row in rows]
        chosen = [shorten(choice.at(depths(result.stacks[i]))) for choice in result.choices]
        why = "; ".join(dict.fromkeys(choice.why for choice in result.choices))
        write_metrics(folder, rows, chosen[0] if len(chosen) == 1 else chosen, why)
        for c in range(len(result.fits)):
            data = report_data(result, i, c, title=file.name, note=note, scores=scores)
            # By number: a channel's name may hold what no file name can.
            write_report(folder / ("report.html" if c == 0 else f"report_channel_{c}.html"), data)
            said += [f"{file.name}: {sentence}" for sentence in data.summary]
        progress(Event("write", i + 1, len(files)))
    return said


def attributes_of(result: Enhanced, index: int) -> dict[str, float | str]:
    """Return what the file of an enhanced stack keeps: how its planes were equalised, where they were."""
    record = equalised_record(result, index)
    return {EQUALISED: json.dumps(record, sort_keys=True)} if record else {}


def equalised_record(result: Enhanced, index: int) -> dict[str, Any]:
    """Return offset and factors of the planes of an enhanced stack; nothing where they were not equalised."""
    return to_record(result.equalised[index], depths(result.stacks[index])) if result.equalised else {}


def write_metrics(folder: Path, rows: Sequence[Row], chosen: object = None, why: str = "") -> None:
    """Write metrics.json: the scores and, where it was chosen, how often the network was applied and why."""
    table = {
        "format_version": METRICS_VERSION,
        "rows": [asdict(row) for row in rows],
        "chosen_iterations": chosen,
        "why": why,
    }
    write_json(folder / "metrics.json", table)


def shorten(chosen: NDArray[np.float64]) -> float | list[float]:
    """Return one number where every plane has the same k, else one per plane."""
    values = [round(float(k), 4) for k in chosen]
    return values[0] if len(set(values)) == 1 else values


def _found(result: Enhanced) -> list[str]:
    """Return what was found of camera and blur, and how k was chosen."""
    said = []
    for channel, fit, choice in zip(result.model.channels, result.fits, result.choices, strict=True):
        name = f"channel {channel.name}: " if len(result.fits) > 1 else ""
        camera = fit.camera
        said.append(f"{name}camera: {camera.gain:.4g} grey levels per photon, none at {camera.intercept:.4g}")
        said += [f"{name}  {note}" for note in camera.notes]
        said.append(f"{name}blur: {fit.sigma_why}")
        said.append(f"{name}iterations: {choice.why}")
    return said
