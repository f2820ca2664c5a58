"""The grid of a volume: every pixel of every image lies on it, or the series is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.dicom_files import read, volume, write_series
from helpers.dicom_frames import AXIAL, Plane, frames, only, refusal

from dvtplan.core.errors import DvtError
from dvtplan.dicom.frame import Frame
from dvtplan.dicom.slice_sorting import sort_into_volumes


def bent(cosine: float, shape: tuple[int, int] = (4, 6)) -> list[Frame]:
    """Return images whose rows and columns are not at right angles."""
    down = (cosine, float(np.sqrt(1 - cosine**2)), 0.0)
    return [replace(f, along_column=down, shape=shape) for f in frames()]


@pytest.mark.parametrize(("cosine", "shape", "bend"), [(0.3, (4, 6), "1.8"), (0.01, (960, 400), "19.2")])
def test_rows_and_columns_that_are_not_at_right_angles_are_refused(
    cosine: float, shape: tuple[int, int], bend: str
) -> None:
    message = refusal(bent(cosine, shape))
    assert "degrees in 0.dcm, expected 90" in message and f"by {bend} mm over its {shape[0]} rows" in message


def test_a_direction_that_was_rounded_is_made_perpendicular_with_half_of_the_error_on_each_side() -> None:
    images = bent(1e-4, (100, 80))
    stack = only(sort_into_volumes(images, "s"))
    directions = np.array(stack.grid.direction)
    assert np.abs(directions @ directions.T - np.eye(3)).max() < 1e-12
    corners = [[k, r, c] for k in range(5) for r in (0, 99) for c in (0, 79)]
    true = np.concatenate([frame.corners_mm() for frame in stack.frames])
    far_mm = np.linalg.norm(stack.grid.position_mm(np.array(corners)) - true, axis=1).max()
    assert far_mm < 0.3 * 1e-4 * 99 * 2.0  # one side alone would have all of it


def test_an_image_that_is_turned_against_the_others_is_refused() -> None:
    images = [replace(f, shape=(400, 600)) for f in frames()]
    turn = 5e-4
    images[2] = replace(images[2], along_row=(1.0, turn, 0.0), along_column=(-turn, 1.0, 0.0))
    assert "2.dcm lies up to 0.601 mm off the grid" in refusal(images)


def test_an_image_with_slightly_larger_pixels_is_refused() -> None:
    images = [replace(f, shape=(400, 600)) for f in frames()]
    images[4] = replace(images[4], spacing_mm=(2.001, 1.5))
    assert "4.dcm lies up to 0.399 mm off the grid" in refusal(images)


def test_distances_that_drift_are_refused_although_each_is_within_the_tolerance() -> None:
    """100 slices at 2 mm and 100 at 2.04 mm: evenly spaced ones would be 1 mm off in the middle."""
    z = np.cumsum([0.0, *[2.0] * 100, *[2.04] * 100])
    images = [replace(f, position_mm=(0.0, 0.0, float(place))) for f, place in zip(frames(201), z, strict=True)]
    assert "mm off the grid" in refusal(images)


def test_one_image_beside_the_others_is_not_called_a_tilted_gantry() -> None:
    images = frames()
    images[3] = replace(images[3], position_mm=(-75.0, -60.0, 19.0))
    message = refusal(images)
    assert "3.dcm lies 5 mm beside 0.dcm" in message and "gantry" not in message


def test_rows_and_columns_of_one_direction_are_refused(tmp_path: Path) -> None:
    write_series(tmp_path, volume(), change=lambda ds, k: setattr(ds, "ImageOrientationPatient", [1, 0, 0, 1, 0, 0]))
    with pytest.raises(DvtError, match="nearly the same direction"):
        read(tmp_path)


@pytest.mark.parametrize("length", [0.0, 0.95, 1.005])
def test_a_direction_that_has_not_the_length_1_is_refused(tmp_path: Path, length: float) -> None:
    write_series(
        tmp_path, volume(), change=lambda ds, k: setattr(ds, "ImageOrientationPatient", [length, 0, 0, 0, 0, -1])
    )
    with pytest.raises(DvtError, match=f"has the length {length:g}, expected 1"):
        read(tmp_path)


@pytest.mark.parametrize("step", [0.9766, 1.25, 3.0])
@pytest.mark.parametrize("plane", [AXIAL, ((0.8, 0.6, 0.0), (-0.36, 0.48, 0.8))], ids=["axial", "oblique"])
def test_positions_that_were_rounded_to_a_tenth_are_even(step: float, plane: Plane) -> None:
    true = frames(60, step, plane)
    rounded = [replace(f, position_mm=tuple(round(mm, 1) for mm in f.position_mm)) for f in true]  # type: ignore[arg-type]
    grid = only(sort_into_volumes(rounded, "s")).grid
    for k in (0, 30, 59):
        assert np.linalg.norm(grid.position_mm(np.array([k, 0, 0])) - true[k].position_mm) < 0.1


@pytest.mark.parametrize("shift", [0.1, 0.2])
@pytest.mark.parametrize("axis", [0, 2], ids=["beside", "along"])
def test_a_shift_is_not_taken_for_rounding(axis: int, shift: float) -> None:
    images = frames(20, 1.0)
    moved = list(images[10].position_mm)
    moved[axis] += shift
    images[10] = replace(images[10], position_mm=(moved[0], moved[1], moved[2]))
    assert "10.dcm" in refusal(images)


def test_a_slice_that_is_missing_is_not_taken_for_rounding() -> None:
    images = frames(40, 0.3)
    assert "gap" in refusal(images[:20] + images[21:])
