"""Resizing as in the paper's MATLAB: `imresize`, bicubic, antialiased when it shrinks.

A resize is one matrix (n_out, n_in) per axis, whose rows sum to 1. So NumPy and torch can use the same weights. Pixel
centres are at half-integers: output i samples input ``(i + 0.5) * n_in / n_out - 0.5``, which keeps the field of view.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import scipy.sparse

Kernel = Callable[[np.ndarray], np.ndarray]


def cubic(x: np.ndarray) -> np.ndarray:
    """Evaluate Keys' cubic convolution kernel with a = -0.5 (Keys 1981, eq. 15), support 4."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1, near, np.where(x <= 2, far, 0.0))


def triangle(x: np.ndarray) -> np.ndarray:
    """Evaluate the kernel of linear interpolation, support 2."""
    return np.maximum(0.0, 1.0 - np.abs(x))


_SUPPORT: dict[Kernel, float] = {cubic: 4.0, triangle: 2.0}


@lru_cache(maxsize=64)
def weights(n_in: int, n_out: int, kernel: Kernel = cubic) -> scipy.sparse.csr_array:
    """Return the matrix that resizes one axis, (n_out, n_in), float64.

    If the axis shrinks, the kernel is widened by the same factor (antialiasing). Beyond the edge the signal is
    mirrored, edge pixel included, as in MATLAB.
    """
    ratio = n_out / n_in
    stretch = max(1.0, 1.0 / ratio)
    reach = _SUPPORT[kernel] * stretch
    centre = (np.arange(n_out) + 0.5) / ratio - 0.5
    first = np.floor(centre - reach / 2).astype(int)
    taps = first[:, None] + np.arange(int(np.ceil(reach)) + 2)
    value = kernel((centre[:, None] - taps) / stretch)
    value /= value.sum(axis=1, keepdims=True)
    mirrored = np.concatenate([np.arange(n_in), np.arange(n_in)[::-1]])[taps % (2 * n_in)]
    rows = np.broadcast_to(np.arange(n_out)[:, None], taps.shape)
    used = value != 0
    matrix = scipy.sparse.coo_array((value[used], (rows[used], mirrored[used])), shape=(n_out, n_in))
    return matrix.tocsr()


def imresize(image_HW: np.ndarray, shape: tuple[int, int], kernel: Kernel = cubic) -> np.ndarray:
    """Resize one slice, bicubic by default.

    Bicubic interpolation overshoots at edges; clip if the range matters.

    Returns:
        float32 of ``shape``.
    """
    height, width = image_HW.shape
    rows = weights(height, shape[0], kernel) @ image_HW.astype(np.float64)
    return (weights(width, shape[1], kernel) @ rows.T).T.astype(np.float32)


def nearest(label_HW: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a label slice: every output pixel takes the value of the nearest input pixel, in the same type."""
    height, width = label_HW.shape
    return label_HW.take(_nearest_index(height, shape[0]), axis=0).take(_nearest_index(width, shape[1]), axis=1)


@lru_cache(maxsize=64)
def _nearest_index(n_in: int, n_out: int) -> np.ndarray:
    centre = (np.arange(n_out) + 0.5) * n_in / n_out - 0.5
    return np.clip(np.floor(centre + 0.5).astype(int), 0, n_in - 1)
