"""A recipe with its task's own settings checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from deepcontrast import registry
from deepcontrast.config import Config, laid_over, load_config, task_of


def load_recipe(recipe: str, settings: Iterable[str] | Mapping[str, Any] = (), **flags: Any) -> Config:
    """Return the settings of a recipe (a name, or a path ending in .toml); see :func:`load_config`."""
    params = registry.load("tasks", task_of(recipe)).Params
    return load_config(recipe, params, settings, **flags)


def changed(config: Config, settings: Iterable[str] | Mapping[str, Any]) -> Config:
    """Return settings with others laid over them; see :func:`laid_over`."""
    return laid_over(config, registry.load("tasks", config.task_name).Params, settings)
