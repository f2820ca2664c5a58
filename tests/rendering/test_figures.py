"""Figures are drawn and saved, also without any data."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from dvtplan.core.errors import DvtError
from dvtplan.rendering import charts, output, page_layout, slices
from dvtplan.rendering.charts import learning_curve
from dvtplan.rendering.slices import Line

FULL = np.ones((40, 20), np.uint8)
EMPTY = np.zeros((40, 20), np.uint8)
PATCH = np.pad(np.ones((6, 4), np.uint8), ((10, 24), (3, 13)))
CORNER = np.pad(np.ones((1, 1), np.uint8), ((39, 0), (0, 19)))
NOISE = np.random.default_rng(0).random((40, 20))


def row(epoch: int, loss: float) -> dict[str, object]:
    return {"epoch": epoch, "loss": f"{loss:.6g}", "learning_rate": "0.001"}


def view(
    image: np.ndarray,
    truth: np.ndarray,
    prediction: np.ndarray,
    pixel_mm: tuple[float, float] = (1.0, 1.0),
    **more: Any,
) -> slices.View:
    return slices.View(image_HW=image, truth_HW=truth, prediction_HW=prediction, pixel_mm=pixel_mm, **more)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def draw(path: Path, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # also an empty contour must not warn
        output.save(slices.panels(view(image, truth, prediction, (1.45, 1.45)), "case c0"), path)


@pytest.mark.parametrize("losses", [[0.3], [0.3, 0.1, 0.05], [0.0, 0.0], [0.2, 0.2]])
def test_a_learning_curve_is_drawn_from_one_epoch_on_and_at_loss_zero(tmp_path: Path, losses: list[float]) -> None:
    path = tmp_path / "progress.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learning_curve([row(k, loss) for k, loss in enumerate(losses)], path, "gn_unet, fold 0")
    assert is_png(path) and [p.name for p in tmp_path.iterdir()] == ["progress.png"]


@pytest.mark.parametrize("truth", [PATCH, EMPTY, FULL, CORNER], ids=["patch", "empty", "full", "corner"])
@pytest.mark.parametrize("prediction", [PATCH.T[:20].T, EMPTY], ids=["patch", "empty"])
def test_panels_are_drawn_for_any_masks(tmp_path: Path, truth: np.ndarray, prediction: np.ndarray) -> None:
    draw(tmp_path / "c0.png", NOISE, truth, prediction)
    assert is_png(tmp_path / "c0.png")


def test_panels_of_an_image_that_is_zero_everywhere(tmp_path: Path) -> None:
    draw(tmp_path / "c0.png", np.zeros((40, 20)), PATCH, EMPTY)
    assert is_png(tmp_path / "c0.png")


@pytest.mark.parametrize(("height", "width"), [(961, 345), (8, 200), (3, 3)])
def test_slices_of_any_format_are_drawn(tmp_path: Path, height: int, width: int) -> None:
    mask = np.zeros((height, width), bool)
    mask[height // 2, width // 2] = True
    image = np.arange(height * width).reshape(height, width)
    output.save(slices.panels(view(image, mask, mask, (0.5, 2.0)), "c0"), tmp_path / "c0.png")
    assert is_png(tmp_path / "c0.png")


@pytest.mark.parametrize(("ending", "begin"), [(".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_ending_decides_the_format(tmp_path: Path, ending: str, begin: bytes) -> None:
    draw(tmp_path / f"c0{ending}", NOISE, PATCH, PATCH)
    assert (tmp_path / f"c0{ending}").read_bytes().startswith(begin)


def test_a_path_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DvtError, match="cannot be written"):
        draw(tmp_path / "file" / "c0.png", NOISE, PATCH, PATCH)


# --- charts of the report -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def strict() -> Iterator[None]:
    """Nothing here may warn: neither empty data, nor one point, nor a missing glyph."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def points(figure: Figure) -> list[tuple[float, float]]:
    """Return every drawn mark of the first axes, in order."""
    lines = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", None, "")]
    return [(float(x), float(y)) for line in lines for x, y in zip(*line.get_data(), strict=True)]


def written(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_learning_curves_have_one_line_per_fold_that_differs_in_more_than_colour(tmp_path: Path) -> None:
    rows = {k: [row(e, 0.1 / (e + k + 1)) for e in range(3)] for k in range(8)}
    figure = charts.learning_curves(rows, "gn_unet")
    loss, rate = figure.axes
    assert [line.get_label() for line in loss.lines] == [f"fold {k}" for k in range(8)]
    assert loss.lines[2].get_ydata().tolist() == [float(r["loss"]) for r in rows[2]]  # type: ignore[arg-type]
    assert loss.get_yscale() == rate.get_yscale() == "log" and len(rate.lines) == 8
    looks = {(line.get_color(), line.get_linestyle()) for line in loss.lines}
    assert len(looks) == 8 and len({line.get_linestyle() for line in loss.lines}) == 4
    output.save(figure, tmp_path / "a.png")


@pytest.mark.parametrize("losses", [[0.3], [0.0, 0.0]])
def test_one_epoch_and_a_loss_of_zero_can_be_seen(tmp_path: Path, losses: list[float]) -> None:
    figure = charts.learning_curves({0: [row(k, loss) for k, loss in enumerate(losses)]}, "t")
    assert (figure.axes[0].lines[0].get_marker() == "None") == (len(losses) > 1)
    assert output.save_both(figure, tmp_path, "a") == (tmp_path / "a.png", tmp_path / "a.pdf")


def test_volume_against_dsc_has_one_point_per_patient_on_a_logarithmic_axis() -> None:
    figure = charts.volume_against_dsc([0.5, 5.0, 50.0], [0.2, 0.7, 0.9], {0: "p1"}, "t")
    axes = figure.axes[0]
    assert sorted(points(figure)) == [(0.5, 0.2), (5.0, 0.7), (50.0, 0.9)]
    assert axes.get_xscale() == "log" and axes.get_ylim() == (-0.02, 1.02)
    assert written(figure) == ["p1"]
    others, named = (line for line in axes.lines)
    assert named.get_data()[0].tolist() == [0.5] and named.get_marker() != others.get_marker()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.5", "1", "2", "5", "10", "20", "50"]


def test_names_of_close_points_do_not_overlap() -> None:
    n = 12
    figure = charts.volume_against_dsc(
        [10 + 0.2 * k for k in range(n)],
        [0.5 + 0.001 * k for k in range(n)],
        {k: f"patient_{k}" for k in range(n)},
        "t",
    )
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in figure.axes[0].texts]
    frame = figure.axes[0].get_window_extent()
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)


def test_charts_of_no_patient_and_of_one_patient_are_drawn(tmp_path: Path) -> None:
    for k, (volume, dsc) in enumerate((([], []), ([3.0], [0.5]))):
        output.save(
            charts.volume_against_dsc(volume, dsc, dict.fromkeys(range(len(dsc)), "p"), "t"), tmp_path / "v.png"
        )
        made = charts.bland_altman(volume, volume, 0.0, (math.nan, math.nan), "t")
        assert [line.get_ydata()[0] for line in made.axes[0].lines if line.get_linestyle() != "None"] == [0, 0.0]
        output.save(made, tmp_path / f"b{k}.png")
        output.save(charts.boxes([("all", {"net": dsc})], "t"), tmp_path / "x.png")
    output.save(charts.boxes([], "t"), tmp_path / "none.png")


def test_bland_altman_draws_difference_over_mean_with_bias_and_limits() -> None:
    figure = charts.bland_altman([10.0, 20.0], [12.0, 18.0], 0.0, (-5.5, 5.5), "t")
    assert points(figure) == [(11.0, 2.0), (19.0, -2.0)]
    levels = {
        (line.get_ydata()[0], line.get_linestyle()) for line in figure.axes[0].lines if len(line.get_xdata()) == 2
    }
    assert {(0.0, "-"), (-5.5, "--"), (5.5, "--")} <= levels
    assert written(figure) == ["bias +0.0", "limit -5.5", "limit +5.5"]


def test_boxes_have_a_row_per_region_and_network_with_every_point_and_n() -> None:
    scores = [0.1, 0.5, 0.6, 0.7, 0.9]
    figure = charts.boxes([("proximal", {"a": scores, "b": scores[:2]}), ("all", {"a": [0.5], "b": []})], "t")
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["proximal, a (n 5)", "proximal, b (n 2)", "all, a (n 1)", "all, b (n 0)"]
    assert sorted(x for x, _ in points(figure)) == sorted([*scores, *scores[:2], 0.5])
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    assert (boxes[0].x0, boxes[0].x1) == (0.5, 0.7)  # quartiles of five values
    assert [patch.get_hatch() for patch in axes.patches] == ["", "////", ""]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first region on top


# --- pictures of the report ---------------------------------------------------------------------------


def extent(axes: Axes) -> tuple[float, float, float, float]:
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return left, right, top, bottom


def test_panels_show_the_whole_slice_and_its_box_twice() -> None:
    line = Line(name="level L", columns=np.array([10.0, 19.5]), rows=np.array([30.0, 30.0]))
    figure = slices.panels(view(NOISE, PATCH, EMPTY, (2.0, 2.0), lines=[line]), "c0\nworst")
    whole, plain, outlined = figure.axes
    assert extent(whole) == (-0.5, 19.5, -0.5, 39.5)
    assert extent(plain) == extent(outlined)
    left, right, top, bottom = extent(plain)
    assert (
        right - left == pytest.approx(bottom - top) == pytest.approx((1.3 * 12 + 6) / 2)
    )  # 6 rows of 2 mm, 15 % of 40
    assert left <= 2.5 and right >= 6.5 and top <= 9.5 and bottom >= 15.5  # rows 10 to 15, columns 3 to 6
    (box,) = whole.patches
    assert (box.get_x(), box.get_y(), box.get_width()) == pytest.approx((left, top, right - left))
    assert {"R", "L", "level L"} <= {text.get_text() for text in whole.texts}
    assert [len(axes.collections) for axes in figure.axes] == [1, 0, 1]  # one mask, its outline
    assert [text.get_text() for text in figure.legends[0].texts] == [
        "truth (solid)", "prediction (dashed)", "level (dotted)",
    ]  # fmt: skip


def test_an_outline_follows_the_borders_of_pixels() -> None:
    figure = slices.panels(view(NOISE, PATCH, EMPTY), "c0")
    corners = figure.axes[0].collections[0].get_paths()[0].get_extents()
    assert (corners.x0, corners.x1, corners.y0, corners.y1) == pytest.approx((2.5, 6.5, 9.5, 15.5), abs=0.1)


def test_truth_and_prediction_differ_in_line_as_in_colour() -> None:
    truth, prediction = slices.panels(view(NOISE, PATCH, PATCH), "c0").axes[0].collections
    assert to_hex(truth.get_edgecolor()[0]) == slices.TRUTH_COLOUR
    assert to_hex(prediction.get_edgecolor()[0]) == slices.PREDICTION_COLOUR
    assert truth.get_linestyle()[0][1] is None and prediction.get_linestyle()[0][1] is not None
    assert truth.get_linewidth()[0] > prediction.get_linewidth()[0]  # visible on both sides of the dashes


def test_the_box_contains_the_largest_component_or_the_one_with_the_most_error() -> None:
    truth, prediction = np.zeros((2, 120, 60), bool)
    truth[10:30, 10:14] = prediction[10:30, 10:14] = True  # large, and right
    truth[100:104, 50:52] = True  # small, and missed
    for focus, row_, column, other in (("lesion", 20, 12, 102), ("error", 102, 51, 20)):
        drawn = slices.panels(view(1.0 * truth, truth, prediction, (2.0, 2.0)), "c", focus=focus)
        left, right, top, bottom = extent(drawn.axes[1])
        assert left < column < right and top < row_ < bottom
        assert not top < other < bottom


@pytest.mark.parametrize("truth", [EMPTY, FULL, CORNER], ids=["empty", "full", "corner"])
@pytest.mark.parametrize("pixel_mm", [(1.0, 1.0), (0.2, 3.0)], ids=["tall", "wide"])
def test_panels_are_drawn_for_any_mask_and_format(
    tmp_path: Path, truth: np.ndarray, pixel_mm: tuple[float, float]
) -> None:
    figure = slices.panels(view(NOISE, truth, EMPTY, pixel_mm, sides=("A", "P")), "c0")
    assert figure.get_size_inches()[0] == output.WIDTH_IN
    assert is_png(output.save_both(figure, tmp_path, "c0")[0])
    assert {"A", "P"} <= {text.get_text() for text in figure.axes[0].texts}


def test_a_projection_is_shown_without_and_with_outlines() -> None:
    plain, outlined = slices.projection(view(NOISE, PATCH, PATCH), "c0").axes
    assert (len(plain.collections), len(outlined.collections)) == (0, 2)
    assert extent(plain) == extent(outlined) == (-0.5, 19.5, -0.5, 39.5)


def test_a_bar_is_the_longest_round_length_in_a_third_of_the_width() -> None:
    figure = slices.panels(view(np.zeros((90, 70)), np.zeros((90, 70)), np.zeros((90, 70)), (7.0, 7.0)), "c")
    assert "10 cm" in written(figure)  # 490 mm
    (bar,) = (line for line in figure.axes[0].lines if line.get_linewidth() == 2)
    assert np.ptp(bar.get_xdata()) * 490 == pytest.approx(100)


def test_the_quality_of_a_jpeg_is_reduced_until_it_fits_and_the_figure_is_unchanged() -> None:
    noise, empty = np.random.default_rng(1).random((400, 200)), np.zeros((400, 200))
    figure = slices.panels(view(noise, empty, empty), "c")
    fine = output.encode(figure, "jpeg")
    limit = int(0.7 * len(fine))
    coarse = output.encode(figure, "jpeg", limit)
    assert fine.startswith(b"\xff\xd8\xff") and len(coarse) <= limit
    assert len(output.encode(figure, "jpeg", 1)) < len(coarse)  # the lowest quality
    assert output.encode(figure, "png").startswith(b"\x89PNG") and figure.dpi == 100


def test_files_are_the_same_in_every_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        output.save_both(charts.bland_altman([1.0, 2.0], [2.0, 1.0], 0.0, (-1.0, 1.0), "t"), tmp_path, name)
    for ending in ("png", "pdf"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


@settings(deadline=None)
@given(st.text(alphabet="abc WXyz.", max_size=80), st.floats(8, 60))
def test_a_wrapped_text_keeps_its_letters_and_its_width(text: str, width_mm: float) -> None:
    lines = page_layout.wrap(text, 8, width_mm).split("\n")
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(page_layout.text_width_mm(line, 8) <= width_mm or len(line) == 1 for line in lines)


def test_numbers_next_to_a_picture_do_not_overlap_and_stay_inside() -> None:
    """Twenty lesions at one position at the foot of the picture."""
    tags = tuple(page_layout.Tag(text=str(k), row=98, column=60) for k in range(20))
    panel = page_layout.Panel(
        image_HW=np.eye(100), segmented_HW=np.zeros((100, 100)), pixel_mm=(1.0, 1.0), sides=("R", "L"), ends=("H", "F"),
        tags=tags,
    )  # fmt: skip
    sheet = page_layout.PageLayout(100, 100)
    sheet.picture(panel, 0, 0, 100, 100)
    (axes,) = sheet.figure.axes
    heights = sorted(text.xyann[1] for text in axes.texts if isinstance(text, Annotation))
    assert len(heights) == 20 and heights[0] > 0 and heights[-1] < 1
    assert min(np.diff(heights)) > 0.99 * page_layout.TAG_APART_MM / 100


BACKEND = """
import importlib, pathlib, sys
import matplotlib
for name in ("rendering", "reporting", "findings"):
    folder = pathlib.Path(importlib.import_module(f"dvtplan.{name}").__file__).parent
    for path in sorted(folder.glob("[!_]*.py")):
        importlib.import_module(f"dvtplan.{name}.{path.stem}")
assert "matplotlib.pyplot" not in sys.modules
assert matplotlib.get_backend(auto_select=False) == sys.argv[2], matplotlib.get_backend(auto_select=False)
from dvtplan.rendering import charts, output
figure = charts.bland_altman([1.0, 2.0], [2.0, 1.0], 0.0, (-1.0, 1.0), "t")
output.save_both(figure, pathlib.Path(sys.argv[1]), "a")
assert output.encode(figure, "jpeg")[:3] == bytes([255, 216, 255])
assert matplotlib.get_backend(auto_select=False) == sys.argv[2]
"""


@pytest.mark.parametrize("backend", ["svg", "tkagg"])
def test_imports_leave_the_backend_of_the_user_and_figures_save_without_a_display(tmp_path: Path, backend: str) -> None:
    environment = {k: v for k, v in os.environ.items() if k != "DISPLAY"} | {"MPLBACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", BACKEND, tmp_path, backend], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert is_png(tmp_path / "a.png") and (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
