"""Measure on a phantom cohort how far estimated knee joint lines and levels are off, and when there is none.

    python tools/level_error.py --root . --dataset Phantom

The estimate sees the image and its grid; only the comparison sees the metadata. Each image is tried whole, and cut to
its thighs and to its calves, where there is nothing to be found and a guess would be a fault.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan import landmarks, volumes, workers
from dvtplan.errors import DvtError
from dvtplan.geometry import Grid, to_slice_order
from dvtplan.landmarks import Landmarks

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


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0],
        epilog="example: python tools/level_error.py --root . --dataset Phantom",
    )
    parser.add_argument("--root", type=Path, required=True, help="folder that holds datasets_raw/")
    parser.add_argument("--dataset", default="Phantom", help="its name (default: Phantom)")
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time (default: 1)")
    options = parser.parse_args(arguments)
    folder = options.root / "datasets_raw" / options.dataset
    try:
        cases = sorted((folder / "metadata").glob("*.json"))
        if not cases:
            raise DvtError(f"{folder}: holds no phantoms. Make some with tools/make_phantom.py.")
        names = [path.stem for path in cases]
        found = workers.over_cases(measure, cases, names, title="Find knees", jobs=options.jobs)
    except DvtError as error:
        print(f"level_error: {error}", file=sys.stderr)
        return 1
    print("\n".join(told(found)))
    return 0


def measure(metadata: Path) -> Found:
    """Compare what one image gives with what is known of it."""
    truth = json.loads(metadata.read_text(encoding="utf-8"))
    image, grid = volumes.read(metadata.parent.parent / "imagesTr" / f"{metadata.stem}_0000.nii.gz")
    made = landmarks.estimate(image, grid)
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
    guesses = {part: _limbs(landmarks.estimate(*cut)) for part, cut in _parts(image, grid, truth["knee_mm"].values())}
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


if __name__ == "__main__":
    sys.exit(main())
