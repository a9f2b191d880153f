"""Filters whose licence keeps them out of the dependencies: used where the user has installed them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from deepcontrast.errors import InputError


def own_package(name: str) -> Callable[..., Any]:
    """Return the function ``name`` of the package ``name``.

    Raises:
        InputError: the package is not installed; the message says how to.
    """
    try:
        found: Callable[..., Any] = getattr(import_module(name), name)
    except ImportError as error:
        raise InputError(
            f"{name} needs the package '{name}', which is not installed here ({error}); where its licence, "
            f"non-commercial use only, suits you: pip install {name}"
        ) from None
    return found
