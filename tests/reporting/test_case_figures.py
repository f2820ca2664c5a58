"""Which slices are shown, where the levels run in them, and what is said of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.volumes import write_volume

from dvtplan.anatomy.landmarks import Landmarks, Limb
from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid
from dvtplan.rendering.views import level_lines
from dvtplan.reporting import case_figures
from dvtplan.reporting.case_figures import best_and_worst, slice_dsc

CORONAL = Grid(
    shape=(3, 10, 8),
    spacing_mm=(5.0, 2.0, 1.0),
    origin_mm=(-3.5, 0.0, 100.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""Rows go down from z 100 to 82, columns from x -3.5 (right) to 3.5 (left); the middle is x 0."""


def masks(*slices: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of some slices, as voxels of (truth only, both, prediction only)."""
    truth, prediction = np.zeros((2, len(slices), 1, 30), bool)
    for s, (missed, both, false) in enumerate(slices):
        truth[s, 0, : missed + both] = True
        prediction[s, 0, missed : missed + both + false] = True
    return truth, prediction


def test_a_slice_dsc_counts_its_slice_only() -> None:
    dsc = slice_dsc(*masks((1, 4, 1), (0, 0, 0), (3, 0, 0), (0, 0, 2), (0, 5, 0)))
    assert dsc[[0, 2, 3, 4]].tolist() == [0.8, 0.0, 0.0, 1.0] and np.isnan(dsc[1])


def test_the_worst_and_the_best_slice_are_found() -> None:
    assert best_and_worst(*masks((0, 0, 0), (1, 4, 1), (1, 1, 1), (0, 5, 1))) == [("worst", 2), ("best", 3)]


def test_of_equal_slices_the_one_with_the_most_thrombus_is_shown() -> None:
    assert best_and_worst(*masks((1, 0, 0), (0, 0, 4), (0, 2, 0), (0, 6, 0))) == [("worst", 1), ("best", 3)]


def test_slices_without_truth_and_prediction_are_never_shown() -> None:
    assert best_and_worst(*masks((0, 0, 0), (0, 0, 0))) == []
    assert best_and_worst(*masks((0, 0, 0), (1, 1, 0))) == [("only", 1)]


def test_where_nothing_is_right_there_is_no_best_slice() -> None:
    assert best_and_worst(*masks((0, 0, 1), (0, 0, 3))) == [("worst", 1)]


def test_each_limb_has_its_level_from_the_midline_outwards() -> None:
    left, right = level_lines(CORONAL, Levels(left_mm=90.0, right_mm=96.0), 1)
    assert (left.name, right.name) == ("level L", "level R")
    shown = np.isfinite(left.columns)
    assert np.nanmin(left.rows) == np.nanmax(left.rows) == 5.0  # z 90 is the sixth row
    assert left.columns[shown].min() == 3.5 and left.columns[shown].max() == 7.5
    assert np.nanmax(right.rows) == 2.0 and np.nanmin(right.columns) == -0.5 and np.nanmax(right.columns) < 3.5


def test_one_known_level_serves_both_limbs_and_the_midline_may_be_set() -> None:
    left, right = level_lines(CORONAL, Levels(right_mm=94.0, midline_mm=2.0), 0)
    assert np.nanmax(left.rows) == np.nanmax(right.rows) == 3.0
    assert np.nanmin(left.columns) == 5.5


def test_a_level_outside_the_slice_and_no_levels_draw_nothing() -> None:
    assert [line.name for line in level_lines(CORONAL, Levels(left_mm=200.0, right_mm=90.0), 0)] == ["level R"]
    assert level_lines(CORONAL, None, 0) == []


def test_axial_slices_have_no_level_line() -> None:
    axial = Grid(
        shape=(3, 4, 4), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0),
        direction=((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)),
    )  # fmt: skip
    assert level_lines(axial, Levels(left_mm=-1.0), 1) == []


def test_a_level_follows_z_through_an_oblique_slice() -> None:
    """Columns rise by 0.6 mm a millimetre, rows fall by 0.8: the line falls by 0.75 rows a column, never level."""
    oblique = Grid(
        shape=(1, 40, 9), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(-4.0, 0.0, 0.0),
        direction=((0.0, 1.0, 0.0), (0.6, 0.0, -0.8), (0.8, 0.0, 0.6)),
    )  # fmt: skip
    for line in level_lines(oblique, Levels(left_mm=-10.0, midline_mm=-100.0), 0):
        rows, columns = line.rows, line.columns
        z = -0.8 * rows + 0.6 * columns
        assert np.nanmax(np.abs(z + 10.0)) < 1e-9 and np.isfinite(rows).all()


def request(folder: Path, truth: np.ndarray, prediction: np.ndarray, **changes: object) -> case_figures.Request:
    image = np.random.default_rng(0).normal(100, 20, truth.shape).astype(np.float32)
    files = {"image": image, "truth": truth.astype(np.uint8), "prediction": prediction.astype(np.uint8)}
    paths = {name: write_volume(folder / f"{name}.nii.gz", array, (2.0, 5.0, 2.0)) for name, array in files.items()}
    settings = {
        "case_id": "c1", **paths, "levels": None, "slice_axis": "AP", "channel": "", "subject": ", net",
        "folder": folder / "report", "most_bytes": 50_000,
    }  # fmt: skip
    return case_figures.Request(**{**settings, **changes})  # type: ignore[arg-type]


def volume(*boxes: tuple[int, slice, slice]) -> np.ndarray:
    """A mask with axes z, y, x of 20 x 4 x 16; each box is a coronal slice, rows and columns."""
    mask = np.zeros((20, 4, 16), bool)
    for y, rows, columns in boxes:
        mask[rows, y, columns] = True
    return mask


def test_a_case_gets_its_worst_and_best_slice_and_a_projection(tmp_path: Path) -> None:
    truth = volume((0, slice(2, 6), slice(2, 4)), (2, slice(2, 6), slice(2, 4)))
    prediction = volume((0, slice(2, 6), slice(2, 4)), (2, slice(5, 7), slice(2, 4)))
    worst, best, projected = case_figures.draw(request(tmp_path, truth, prediction))
    assert "worst slice: coronal slice 3 of 4, counted from the front. Slice DSC 0.33" in worst.caption
    assert "best slice: coronal slice 1 of 4" in best.caption and "Slice DSC 1.00" in best.caption
    assert all("not comparable with a patient's DSC" in p.caption for p in (worst, best))
    assert "truth (8 pixels) and prediction (4 pixels, 2 of them true)" in worst.alt
    assert "maximum intensity projection from the front" in projected.caption
    assert all(p.image.startswith(b"\xff\xd8\xff") and len(p.image) <= 50_000 for p in (worst, best, projected))
    names = sorted(path.name for path in (tmp_path / "report").iterdir())
    assert names == [f"case_c1_{kind}.{end}" for kind in ("best", "projection", "worst") for end in ("pdf", "png")]
    assert sorted(file.name for p in (worst, best, projected) for file in p.files) == names


def test_an_empty_case_gets_a_projection_only(tmp_path: Path) -> None:
    (projected,) = case_figures.draw(request(tmp_path, volume(), volume()))
    assert "projection" in projected.caption


def test_axial_slices_are_counted_from_the_head_and_still_projected_from_the_front(tmp_path: Path) -> None:
    truth = volume((1, slice(17, 18), slice(2, 9)))
    only, projected = case_figures.draw(request(tmp_path, truth, truth, slice_axis="SI"))
    assert "only slice with truth or prediction: axial slice 3 of 20, counted from the head" in only.caption
    assert "from the front" in projected.caption


def test_levels_are_named_where_they_are_drawn(tmp_path: Path) -> None:
    truth = volume((1, slice(4, 9), slice(2, 9)))
    drawn = case_figures.draw(request(tmp_path, truth, truth, levels=Levels(left_mm=10.0)))
    assert all(picture.caption.endswith("Dotted: the level of each limb.") for picture in drawn)


def test_levels_that_no_table_gives_are_found_in_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Landmarks(left=Limb(knee_mm=75.0, sharpness=3.0), right=Limb(reason="no second leg in view"))
    monkeypatch.setattr("dvtplan.anatomy.knee.estimate", lambda image, grid: found)
    truth = volume((1, slice(4, 9), slice(2, 9)))
    drawn = case_figures.draw(request(tmp_path, truth, truth))
    assert all(p.caption.endswith("Dotted: the level of each limb, estimated from the image.") for p in drawn)


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    made = request(tmp_path, volume(), volume())
    _, grid = volume_io.read(made.truth)
    moved = Grid(shape=grid.shape, spacing_mm=grid.spacing_mm, origin_mm=(9.0, 0.0, 0.0), direction=grid.direction)
    volume_io.write_mask(made.prediction, np.zeros(grid.shape, np.uint8), moved)
    with pytest.raises(DvtError, match=f"{made.prediction}: is not on the grid of {made.image}"):
        case_figures.draw(made)
