"""Stitching of stations: positions, gains, and masks back to the stations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.stations import NAMES, ROWS, WHOLE, legs, station
from scipy import ndimage

from dvtplan.core.errors import DvtError
from dvtplan.imaging.geometry import Grid
from dvtplan.imaging.stitching import stitch, to_station


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_stations_of_one_volume_give_it_back_in_any_order(order: tuple[int, ...]) -> None:
    image = legs()
    made = stitch([station(image, ROWS[k]) for k in order], [NAMES[k] for k in order])
    assert [order[k] for k in made.order] == [0, 1, 2]
    assert made.grid.shape == WHOLE.shape and np.abs(made.grid.corners_mm() - WHOLE.corners_mm()).max() < 1e-9
    np.testing.assert_allclose(made.image, image, rtol=1e-5)
    assert made.gains == pytest.approx((1, 1, 1))
    # Rows 28 to 35 and 56 to 63 overlap: their middles are rows 31.5 and 59.5.
    assert made.seams_mm == pytest.approx((700 - 31.5 * 1.5, 700 - 59.5 * 1.5))


def test_gains_are_matched_to_the_middle_station() -> None:
    image = legs()
    made = stitch([station(image, rows, g) for rows, g in zip(ROWS, (1.3, 1.0, 0.6), strict=True)], NAMES)
    assert made.gains == pytest.approx((1 / 1.3, 1, 1 / 0.6), rel=1e-3)
    np.testing.assert_allclose(made.image, image, rtol=1e-3)


def test_a_local_difference_fades_across_the_overlap() -> None:
    """The lower station sees a bright fringe at its end; the middle of the overlap is half of each."""
    image = np.full(WHOLE.shape, 100.0, np.float32)
    lower = station(image, ROWS[1])
    lower[0][:, :8, :4] += 90.0
    made = stitch([station(image, ROWS[0]), lower], NAMES[:2])
    fringe = made.image[0, 28:36, 0]
    assert (np.diff(fringe) > 0).all() and 100 < fringe[0] < 115 and 175 < fringe[-1] < 190


def test_a_shifted_and_rotated_station_is_put_in_its_position() -> None:
    """The lower slab is tilted by 4 degrees; a ball stays at its position."""
    centre = WHOLE.position_mm(np.array([3.5, 60.0, 12.0]))

    def ball(grid: Grid) -> np.ndarray:
        places = grid.position_mm(np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1))
        return (300 * np.exp(-np.sum((places - centre) ** 2, axis=-1) / 50) + 20).astype(np.float32)

    upper = replace(WHOLE, shape=(8, 40, 24))
    cos, sin = np.cos(np.radians(4)), np.sin(np.radians(4))
    lower = replace(
        WHOLE,
        shape=(8, 60, 24),
        origin_mm=(-99.3, -22.0, 655.2),
        direction=((0.0, cos, sin), (0.0, sin, -cos), (1.0, 0.0, 0.0)),
    )
    made = stitch([(ball(lower), lower), (ball(upper), upper)], ["lower", "upper"])
    reached = made.image > 0
    np.testing.assert_allclose(made.image[reached], ball(made.grid)[reached], atol=12)
    assert np.unravel_index(made.image.argmax(), made.image.shape) == pytest.approx(
        np.linalg.solve(
            (np.array(made.grid.direction) * np.array(made.grid.spacing_mm)[:, None]).T, centre - made.grid.origin_mm
        ),
        abs=1,
    )


def test_a_lesion_across_a_seam_is_one_and_is_resampled_to_both_stations() -> None:
    parts = [station(legs(), rows) for rows in ROWS]
    made = stitch(parts, NAMES)
    mask = np.zeros(made.grid.shape, np.uint8)
    mask[2:5, 25:45, 10:13] = 1
    assert ndimage.label(mask)[1] == 1
    for (_, grid), (top, bottom) in zip(parts, ROWS, strict=True):
        assert np.array_equal(to_station(mask, made.grid, grid), mask[:, top:bottom])


def test_stations_without_overlap_and_of_other_planes_are_named() -> None:
    image = legs()
    with pytest.raises(DvtError, match="pelvis, calf: do not overlap"):
        stitch([station(image, ROWS[0]), station(image, ROWS[2])], ["pelvis", "calf"])
    array, grid = station(image, ROWS[1])
    axial = replace(grid, direction=((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))
    with pytest.raises(DvtError, match="is rotated by 90 degrees"):
        stitch([station(image, ROWS[0]), (array, axial)], NAMES[:2])
    with pytest.raises(DvtError, match="found one station"):
        stitch([station(image, ROWS[0])], NAMES[:1])
