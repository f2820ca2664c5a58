"""Compare the knees and levels that are estimated from phantom images with those of their metadata."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.anatomy import knee
from dvtplan.anatomy.landmarks import Landmarks
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, to_slice_order

OFF_MM = 60.0
"""Distance from the knees at which an image is cropped to its thighs or calves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KneeErrors:
    """Errors of one image."""

    case_id: str
    errors_mm: dict[str, list[float]]
    """Estimate minus truth: of 'knee' and 'level' for each limb with an estimate, and of 'midline'."""
    declined: tuple[str, ...]
    """Limbs without an estimate, with the reason."""
    guesses: dict[str, int]
    """Part without a knee -> number of limbs with an estimate, which is then wrong."""


def measure(metadata: Path) -> KneeErrors:
    """Compare the estimates from one image with its metadata file."""
    truth = json.loads(metadata.read_text(encoding="utf-8"))
    image, grid = volume_io.read(metadata.parent.parent / "imagesTr" / f"{metadata.stem}_0000.nii.gz")
    estimated = knee.estimate(image, grid)
    errors: dict[str, list[float]] = {"knee": [], "level": [], "midline": []}
    declined = []
    for side, limb in (("left", estimated.left), ("right", estimated.right)):
        if limb.knee_mm is None or limb.level_mm is None:
            declined.append(f"{metadata.stem} {side}: {limb.reason}")
            continue
        errors["knee"].append(limb.knee_mm - truth["knee_mm"][side])
        errors["level"].append(limb.level_mm - truth["level_mm"][side])
    if estimated.midline_mm is not None:
        errors["midline"].append(estimated.midline_mm - truth["midline_mm"])
    guesses = {part: _limbs(knee.estimate(*cut)) for part, cut in _parts(image, grid, truth["knee_mm"].values())}
    return KneeErrors(case_id=metadata.stem, errors_mm=errors, declined=tuple(declined), guesses=guesses)


def summarize(found: Sequence[KneeErrors]) -> list[str]:
    """Return the summary of a cohort as lines to print."""
    limbs = 2 * len(found)
    lines = ["error in mm     n  median  95 %  worst   bias"]
    for name in ("knee", "level", "midline"):
        errors = np.array([error for one in found for error in one.errors_mm[name]])
        if len(errors):
            size = np.abs(errors)
            numbers = np.median(size), np.percentile(size, 95), size.max(), errors.mean()
            lines.append(f"{name:11} {len(errors):5}  " + "  ".join(f"{number:5.1f}" for number in numbers))
    declined = [line for one in found for line in one.declined]
    lines.append(f"declined: {len(declined)} of {limbs} limbs")
    for part in found[0].guesses:
        guesses = sum(one.guesses[part] for one in found)
        lines.append(f"{part} without a knee: wrong estimates in {guesses} of {limbs} limbs")
    return [*lines, *declined]


def _parts(image: np.ndarray, grid: Grid, knees_mm: Sequence[float]) -> Iterator[tuple[str, tuple[np.ndarray, Grid]]]:
    """Yield the names of parts without knees, with their cropped image and grid."""
    order = to_slice_order(grid, "SI")
    upright, whole = order.apply(image), order.grid(grid)
    z_mm = whole.position_mm(np.stack([np.arange(len(upright)), *np.zeros((2, len(upright)))], axis=-1))[:, 2]
    for part, inside in (("thighs", z_mm > max(knees_mm) + OFF_MM), ("calves", z_mm < min(knees_mm) - OFF_MM)):
        rows = np.flatnonzero(inside)
        cut = upright[rows[0] : rows[-1] + 1]
        yield part, (cut, whole.window(np.array([rows[0], 0, 0]), cut.shape))


def _limbs(found: Landmarks) -> int:
    """Return the number of limbs with an estimated knee."""
    return sum(limb.knee_mm is not None for limb in (found.left, found.right))
