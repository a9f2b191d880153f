"""A recipe with its task's own settings checked."""

from __future__ import annotations

import json
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


def recipe_text(config: Config, said: Iterable[str] = ()) -> str:
    """Return settings as the text of a recipe file, below lines of comment; what is ``None`` is left out."""
    table = config.model_dump()
    lines = [f"# {line}" for line in said] + [f"task_name = {_toml(config.task_name)}"]
    for name in ("net", "train", "task", "predict"):
        lines += ["", f"[{name}]"]
        lines += [f"{key} = {_toml(value)}" for key, value in table[name].items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """Return a value in TOML: JSON but for tables within tables."""
    if isinstance(value, Mapping):
        inner = (f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items() if one is not None)
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value)
