"""The grid of a volume from its images in order, or why they are not the slices of one volume."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.dicom.frame import Frame
from dvtplan.imaging.geometry import Grid

SPACING_TOLERANCE = 0.02
"""Allowed deviation of a slice distance, as a fraction of the median. Scanners round positions."""
POSITION_TOLERANCE_MM = 0.02
"""Allowed deviation of a position in mm, in addition."""
ROUNDED_MM = 0.1
"""Digit to which some programs round positions."""
ROUNDING = 0.75
"""Largest distance of a rounded position from a line through all, as a fraction of the digit. Rounding gives 0.5, and
the line is not exactly the true one."""


def grid_of(frames: Sequence[Frame], name: str) -> Grid:
    """Return the grid of a volume. Each pixel of each image lies on it, within the tolerances.

    Positions that were rounded to 0.1 mm are replaced by even ones if they are too uneven otherwise.

    Args:
        frames: the images, in order along their normal.
        name: of the series, for messages.

    Raises:
        DvtError: if a slice is missing, distances are uneven, rows and columns are not at right angles, or images are
            shifted or turned against each other.
    """
    try:
        return _grid(frames, name)
    except DvtError:
        even = _without_rounding(frames)
        if even is None:
            raise
    return _grid(even, name)


def _without_rounding(frames: Sequence[Frame]) -> list[Frame] | None:
    """Return images at the even positions that were rounded; None if they are not even positions that were rounded."""
    positions = np.array([frame.position_mm for frame in frames])
    if not np.allclose(positions, np.round(positions / ROUNDED_MM) * ROUNDED_MM, rtol=0, atol=1e-6):
        return None
    number = np.arange(len(frames)) - (len(frames) - 1) / 2
    step_mm = float(number @ positions @ frames[0].normal / (number @ number))
    even = positions.mean(axis=0) + np.outer(number, step_mm * frames[0].normal)
    if np.abs(positions - even).max() > ROUNDING * ROUNDED_MM:
        return None
    return [replace(frame, position_mm=(x, y, z)) for frame, (x, y, z) in zip(frames, even.tolist(), strict=True)]


def _grid(frames: Sequence[Frame], name: str) -> Grid:
    """Return the grid of a volume; arguments and errors are those of ``grid_of``."""
    first, normal = frames[0], frames[0].normal
    places_mm = np.array([float(normal @ frame.position_mm) for frame in frames])
    median_mm = float(np.median(np.diff(places_mm)))
    tolerance_mm = _tolerance_mm(median_mm)
    _require_even_spacing(frames, places_mm, median_mm, tolerance_mm, name)
    _require_no_shift(frames, places_mm, tolerance_mm, name)
    _require_right_angles(first, name)
    down, across = perpendicular(first)
    centre_mm = first.corners_mm().mean(axis=0)
    half_mm = (np.array(first.shape) - 1) * first.spacing_mm / 2
    origin_mm = centre_mm - half_mm @ [down, across] if _cosine(first) else np.asarray(first.position_mm)
    grid = Grid(
        shape=(len(frames), *first.shape),
        spacing_mm=(float(places_mm[-1] - places_mm[0]) / (len(frames) - 1), *first.spacing_mm),
        origin_mm=tuple(float(mm) for mm in origin_mm),  # type: ignore[arg-type]
        direction=tuple(tuple(float(c) for c in v) for v in (normal, down, across)),  # type: ignore[misc]
    )
    _require_on_grid(frames, grid, tolerance_mm, name)
    return grid


def _tolerance_mm(step_mm: float) -> float:
    return SPACING_TOLERANCE * step_mm + POSITION_TOLERANCE_MM


def is_even(places_mm: np.ndarray) -> bool:
    """Return whether images at these places, in order, are equally far apart."""
    steps_mm = np.diff(places_mm)
    median_mm = float(np.median(steps_mm))
    return bool(np.abs(steps_mm - median_mm).max() <= _tolerance_mm(median_mm))


def continues(frame: Frame, grid: Grid) -> bool:
    """Return whether an image lies exactly where the slice before the first of a grid would lie, or after the last."""
    if frame.shape != grid.shape[1:]:
        return False
    rows, columns = grid.shape[1] - 1, grid.shape[2] - 1
    ends = [[[k, 0, 0], [k, 0, columns], [k, rows, 0], [k, rows, columns]] for k in (-1, grid.shape[0])]
    expected_mm = grid.position_mm(np.array(ends).reshape(-1, 3)).reshape(2, 4, 3)
    far_mm = np.linalg.norm(frame.corners_mm() - expected_mm, axis=2).max(axis=1)
    return bool(far_mm.min() <= _tolerance_mm(grid.spacing_mm[0]))


def perpendicular(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Return the perpendicular unit vectors nearest to ``along_column`` and ``along_row``.

    Each is turned by half of what the angle between them lacks to 90 degrees.
    """
    across, down = np.asarray(frame.along_row), np.asarray(frame.along_column)
    if not _cosine(frame):
        return down, across
    between, beside = across + down, across - down  # perpendicular, because both have the same length
    between, beside = between / np.linalg.norm(between), beside / np.linalg.norm(beside)
    return (between - beside) / np.sqrt(2), (between + beside) / np.sqrt(2)


def _cosine(frame: Frame) -> float:
    return float(np.dot(frame.along_row, frame.along_column))


def _require_right_angles(frame: Frame, name: str) -> None:
    """Raise a DvtError if rows and columns are so oblique to each other that pixels would be misplaced."""
    extent_mm = (np.array(frame.shape) - 1) * frame.spacing_mm
    misplaced_mm = abs(_cosine(frame)) / 2 * float(np.linalg.norm(extent_mm)) / 2
    if misplaced_mm > POSITION_TOLERANCE_MM + SPACING_TOLERANCE * min(frame.spacing_mm):
        angle = np.degrees(np.arccos(np.clip(_cosine(frame), -1, 1)))
        raise DvtError(
            f"{name}: rows and columns are at {angle:.4g} degrees in {frame.name}, expected 90: the image is bent by "
            f"{abs(_cosine(frame)) * extent_mm[0]:.3g} mm over its {frame.shape[0]} rows. ImageOrientationPatient is "
            "wrong: export it again."
        )


def _require_no_shift(frames: Sequence[Frame], places_mm: np.ndarray, tolerance_mm: float, name: str) -> None:
    """Raise a DvtError if images do not lie straight behind each other."""
    positions = np.array([frame.position_mm for frame in frames])
    sideways = positions - positions[0] - np.outer(places_mm - places_mm[0], frames[0].normal)
    shift_mm = np.linalg.norm(sideways, axis=1)
    if shift_mm.max() <= tolerance_mm:
        return
    worst = int(shift_mm.argmax())
    steps = np.diff(sideways, axis=0)
    if np.linalg.norm(steps - np.median(steps, axis=0), axis=1).max() <= tolerance_mm:  # each by the same distance
        raise DvtError(
            f"{name}: slices are shifted against each other, by {shift_mm.max():.3g} mm in {frames[worst].name}, as "
            "with a tilted gantry. Resample it to perpendicular axes."
        )
    raise DvtError(
        f"{name}: {frames[worst].name} lies {shift_mm.max():.3g} mm beside {frames[0].name}, expected slices straight "
        "behind each other. Remove the images that do not belong to the volume, or export it again."
    )


def _require_on_grid(frames: Sequence[Frame], grid: Grid, tolerance_mm: float, name: str) -> None:
    """Raise a DvtError if the corners of an image do not lie on the grid: turned, or of another pixel size."""
    rows, columns = grid.shape[1] - 1, grid.shape[2] - 1
    corners = np.array([[0, 0], [0, columns], [rows, 0], [rows, columns]])
    index = np.concatenate([np.insert(corners, 0, k, axis=1) for k in range(len(frames))])
    expected_mm = grid.position_mm(index).reshape(-1, 4, 3)
    found_mm = np.array([frame.corners_mm() for frame in frames])
    far_mm = np.linalg.norm(found_mm - expected_mm, axis=2).max(axis=1)
    worst = int(far_mm.argmax())
    if far_mm[worst] > tolerance_mm:
        raise DvtError(
            f"{name}: {frames[worst].name} lies up to {far_mm[worst]:.3g} mm off the grid of the volume (tolerance "
            f"{tolerance_mm:.2g} mm): images differ in direction, pixel size or distance. Export the series again."
        )


def _require_even_spacing(
    frames: Sequence[Frame], places_mm: np.ndarray, median_mm: float, tolerance_mm: float, name: str
) -> None:
    """Raise a DvtError if a slice is missing, or slice distances differ by more than the tolerance."""
    steps_mm = np.diff(places_mm)
    worst = int(np.abs(steps_mm - median_mm).argmax())
    if abs(steps_mm[worst] - median_mm) <= tolerance_mm:
        return
    between = f"between {frames[worst].name} and {frames[worst + 1].name}"
    if steps_mm[worst] > 1.5 * median_mm:
        missing = round(float(steps_mm[worst]) / median_mm) - 1
        raise DvtError(
            f"{name}: a gap of {steps_mm[worst]:.4g} mm {between}, expected a slice every {median_mm:.4g} mm: "
            f"{plural(missing, 'slice')} missing. Export the complete series again."
        )
    raise DvtError(
        f"{name}: slice distances are uneven, {steps_mm[worst]:.4g} mm {between} and {median_mm:.4g} mm elsewhere. "
        "Export the series again, or resample it."
    )
