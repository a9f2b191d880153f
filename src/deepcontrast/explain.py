"""Does a result explain the raw? Its structure, blurred again and scaled, against the raw's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, ndimage, optimize

REBLUR = (0.0, 1.0, 2.0, 4.0)
"""Widths in pixels by which a result may be blurred again to explain the raw."""

FINE, WIDE = 1.0, 20.0
"""The structure band: Gaussian of 1 px minus Gaussian of 20 px, per plane."""


def band(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the structure band of a plane (Y, X)."""
    return (ndimage.gaussian_filter(plane, FINE) - ndimage.gaussian_filter(plane, WIDE)).astype(np.float32)


def copies(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the structure band of a plane re-blurred by every width of ``REBLUR``, (widths, Y, X)."""
    plane = np.asarray(plane, np.float32)
    wide = ndimage.gaussian_filter(plane, WIDE)
    return np.stack([ndimage.gaussian_filter(plane, np.hypot(FINE, s)) - wide for s in REBLUR])


def explained(target: NDArray[np.float32], of: NDArray[np.float32]) -> float:
    """Return the correlation of a target (N,) with its best non-negative mixture of copies (M, N)."""
    t = target.astype(np.float64) - target.mean(dtype=np.float64)
    mixed = mixture(t, of)
    scale = float(np.sqrt((mixed @ mixed) * (t @ t)))
    return float(mixed @ t) / scale if scale > 0 else 0.0


def mixture(target: NDArray[np.float64], of: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the non-negative mixture (N,) of copies (M, N), each less its mean, nearest to a target of mean 0."""
    c = of.astype(np.float64) - of.mean(axis=1, keepdims=True, dtype=np.float64)
    size = np.sqrt(np.maximum((c**2).mean(axis=1), 1e-30))
    gram = (c @ c.T) / len(target) / np.outer(size, size)
    # Least squares through the normal equations: |L' w - L^-1 b| has the same minimum and is 4 x 4.
    root = linalg.cholesky(gram + 1e-6 * np.eye(len(gram)), lower=True)
    right = linalg.solve_triangular(root, (c @ target) / len(target) / size, lower=True)
    weights, _ = optimize.nnls(root.T, right)
    mixed: NDArray[np.float64] = (weights / size) @ c
    return mixed
