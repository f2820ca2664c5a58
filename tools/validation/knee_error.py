"""TODO"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.anatomy import knee
from dvtplan.anatomy.knee import Landmarks
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid, to_slice_order

OFF_MM = 60.0
"""How far above the higher knee thighs are cut off, and below the lower one calves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one image gave, whole and in parts."""

    case_id: str
    errors_mm: dict[str, list[float]]
    """Estimate less truth: of the 'knee', the 'level', per limb that was found, and of the 'midline'."""
    declined: tuple[str, ...]
    """Limbs without an estimate, with the reason."""
    guesses: dict[str, int]
    """Part without a knee -> limbs for which one was found all the same."""


def measure(metadata: Path) -> Found:
    """Compare what one image gives with what is known of it."""
    truth = json.loads(metadata.read_text(encoding="utf-8"))
    image, grid = volume_io.read(metadata.parent.parent / "imagesTr" / f"{metadata.stem}_0000.nii.gz")
    made = knee.estimate(image, grid)
    errors: dict[str, list[float]] = {"knee": [], "level": [], "midline": []}
    declined = []
    for side, limb in (("left", made.left), ("right", made.right)):
        if limb.knee_mm is None or limb.level_mm is None:
            declined.append(f"{metadata.stem} {side}: {limb.reason}")
            continue
        errors["knee"].append(limb.knee_mm - truth["knee_mm"][side])
        errors["level"].append(limb.level_mm - truth["level_mm"][side])
    if made.midline_mm is not None:
        errors["midline"].append(made.midline_mm - truth["midline_mm"])
    guesses = {part: _limbs(knee.estimate(*cut)) for part, cut in _parts(image, grid, truth["knee_mm"].values())}
    return Found(case_id=metadata.stem, errors_mm=errors, declined=tuple(declined), guesses=guesses)


def told(found: Sequence[Found]) -> list[str]:
    """The lines to print."""
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
        lines.append(f"{part} without a knee: guessed in {sum(one.guesses[part] for one in found)} of {limbs} limbs")
    return [*lines, *declined]


def _parts(image: np.ndarray, grid: Grid, knees_mm: Sequence[float]) -> Iterator[tuple[str, tuple[np.ndarray, Grid]]]:
    order = to_slice_order(grid, "SI")
    upright, whole = order.apply(image), order.grid(grid)
    z_mm = whole.position_mm(np.stack([np.arange(len(upright)), *np.zeros((2, len(upright)))], axis=-1))[:, 2]
    for part, there in (("thighs", z_mm > max(knees_mm) + OFF_MM), ("calves", z_mm < min(knees_mm) - OFF_MM)):
        rows = np.flatnonzero(there)
        cut = upright[rows[0] : rows[-1] + 1]
        yield part, (cut, whole.window(np.array([rows[0], 0, 0]), cut.shape))


def _limbs(found: Landmarks) -> int:
    return sum(limb.knee_mm is not None for limb in (found.left, found.right))
