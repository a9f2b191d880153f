"""The folders are the registry: a new degradation, task, metric, baseline, network is a new file.

A file holds one public thing named like the file (a task is the module itself). Names are listed from the
file names without importing anything, and a file is imported when its name is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from importlib.resources import files
from typing import Any

from deepcontrast.errors import InputError, nearest

FOLDERS = ("baselines", "degrade", "experiments", "metrics", "nets", "projections", "synth", "tasks", "upsamplers")


def names(folder: str) -> tuple[str, ...]:
    """Return the names that a folder of the package offers, sorted."""
    entries = (entry.name for entry in files("deepcontrast").joinpath(folder).iterdir())
    return tuple(sorted(n[:-3] for n in entries if n.endswith(".py") and not n.startswith("_")))


def load(folder: str, name: str) -> Any:
    """Return the function named ``name`` of a folder; for ``tasks``, the module.

    Raises:
        InputError: the folder has no such file; the message lists what it has.
    """
    found = module(folder, name)
    return found if folder == "tasks" else getattr(found, name)


def module(folder: str, name: str) -> Any:
    """Return the module of a name, with what stands in it beside the function.

    Raises:
        InputError: the folder has no such file; the message lists what it has.
    """
    accepted = names(folder)
    if name not in accepted:
        listed = ", ".join(accepted)
        raise InputError(f"no '{name}' in {folder}; accepted: {listed}{nearest(name, accepted)}")
    return import_module(f"deepcontrast.{folder}.{name}")
