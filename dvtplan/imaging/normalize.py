"""Min-max normalization (Huang 2019, eq. 1), per slice or per volume.

The paper's X is "images", in a paragraph about 2-D slices. So scope 'slice' is the literal reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dvtplan.core.errors import require
from dvtplan.imaging import array_ops


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """Settings of the min-max scaling (Huang 2019, eq. 1)."""

    scope: str
    """'slice' or 'volume': the voxels over which minimum and maximum are taken."""
    clip_percentiles: tuple[float, float] | None = None
    """Percentiles that replace minimum and maximum; None for the true extremes."""

    def __post_init__(self) -> None:
        require(self.scope in ("slice", "volume"), f"scope must be 'slice' or 'volume', not {self.scope!r}")
        if self.clip_percentiles is not None:
            low, high = self.clip_percentiles
            require(
                0 <= low < high <= 100,
                f"clip_percentiles must rise within 0..100, not {self.clip_percentiles}",
            )


def limits(image_SHW: np.ndarray, how: Normalization) -> np.ndarray:
    """Return the intensities that become 0 and 1, for every slice.

    Args:
        image_SHW: one channel, any real type, scanner units.
        how: the settings.

    Returns:
        float64 (S, 2): low and high; with scope 'volume' all rows are equal.
    """
    if how.scope == "volume":
        return np.tile(_range(image_SHW, how), (image_SHW.shape[0], 1))
    return np.stack([_range(image_HW, how) for image_HW in image_SHW])


def scale(image_SHW: np.ndarray, limits_S2: np.ndarray) -> np.ndarray:
    """Scale each slice so that its limits become 0 and 1, and clip.

    A slice whose limits are equal becomes all zeros.

    Args:
        image_SHW: one channel, any real type.
        limits_S2: low and high of each slice.

    Returns:
        float32, same shape.
    """
    low, high = limits_S2[:, 0, None, None], limits_S2[:, 1, None, None]
    width = high - low
    # Dividing, because 1 / width is infinite for the smallest widths.
    scaled = (image_SHW - low) / np.where(width > 0, width, np.inf)
    return np.clip(scaled, 0.0, 1.0, out=scaled).astype(np.float32)


def _range(image: np.ndarray, how: Normalization) -> np.ndarray:
    if how.clip_percentiles is None:
        return np.array([image.min(), image.max()], float)
    return array_ops.percentiles(image, how.clip_percentiles)
