"""Min-max normalization (Huang 2019, eq. 1) and the scopes it can take.

The paper's X is "images", in a paragraph about 2-D slices: scope 'slice' is the literal reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dvtplan.core.errors import require
from dvtplan.imaging import array_ops


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """Min-max scaling (Huang 2019, eq. 1) and what its minimum and maximum are taken over."""

    scope: str
    """'slice' or 'volume'."""
    clip_percentiles: tuple[float, float] | None = None
    """Percentiles of the scope that stand in for minimum and maximum; none: the true ones."""

    def __post_init__(self) -> None:
        require(self.scope in ("slice", "volume"), f"scope must be 'slice' or 'volume', not {self.scope!r}")
        if self.clip_percentiles is not None:
            low, high = self.clip_percentiles
            require(
                0 <= low < high <= 100,
                f"clip_percentiles must rise within 0..100, not {self.clip_percentiles}",
            )


def limits(image_SHW: np.ndarray, how: Normalization) -> np.ndarray:
    """The intensities that become 0 and 1, for every slice.

    Args:
        image_SHW: one channel, any real type, scanner units.
        how: scope, and whether percentiles stand in for the extremes.

    Returns:
        float64 (S, 2): low and high; the same row for all slices where the scope is the volume.
    """
    if how.scope == "volume":
        return np.tile(_range(image_SHW, how), (image_SHW.shape[0], 1))
    return np.stack([_range(image_HW, how) for image_HW in image_SHW])


def scale(image_SHW: np.ndarray, limits_S2: np.ndarray) -> np.ndarray:
    """Map each slice's limits to 0 and 1 and clip what lies outside.

    A slice without a range (low equals high) becomes all zeros.

    Returns:
        float32, same shape.
    """
    low, high = limits_S2[:, 0, None, None], limits_S2[:, 1, None, None]
    width = high - low
    # Not times 1 / width, which is infinite for the smallest of widths.
    scaled = (image_SHW - low) / np.where(width > 0, width, np.inf)
    return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32)


def min_max(image: np.ndarray) -> np.ndarray:
    """Scale intensities to [0, 1] (Huang 2019, eq. 1).

    A constant image has no range; it becomes all zeros.

    Args:
        image: any shape, any real dtype, arbitrary scanner units.

    Returns:
        float32, same shape; the minimum maps to 0, the maximum to 1.
    """
    flat = image.reshape(1, 1, -1)
    return scale(flat, limits(flat, Normalization(scope="volume"))).reshape(image.shape)


def _range(image: np.ndarray, how: Normalization) -> np.ndarray:
    if how.clip_percentiles is None:
        return np.array([image.min(), image.max()], float)
    return array_ops.percentiles(image, how.clip_percentiles)
