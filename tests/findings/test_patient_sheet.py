"""The summary of one patient: one A4 page with all content, and no empty mask reported as healthy."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.scenes import GRID, LEVELS, scene
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from dvtplan.anatomy.levels import Levels
from dvtplan.findings import lesion_confidence, patient_images, patient_page, patient_sheet, patient_text, record
from dvtplan.findings.burden import measure
from dvtplan.findings.lesion_confidence import RemovedComponents
from dvtplan.findings.level_source import LevelAssignment
from dvtplan.findings.out_of_distribution import OutOfRange
from dvtplan.findings.record import DISCLAIMER, Findings, ModelIdentity
from dvtplan.imaging.geometry import Grid, to_slice_order

MAKER = ModelIdentity(
    network="gn_unet", folds=(0, 1), digest="d" * 64, dataset="Toy", phantom=False, training_scans=4, slice_axis="AP",
    versions={"dvtplan": "1.0"},
)  # fmt: skip
REMOVED = (
    RemovedComponents(limb="left", components=12, volume_ml=12.3),
    RemovedComponents(limb="right", components=1, volume_ml=0.2),
)
ODD = OutOfRange(
    quantity="spacing",
    value=1.0,
    low=2.0,
    high=3.0,
    unit="mm",
    relative_excess=0.5,
    in_words="spacing 1 mm (training 2)",
)


def findings_of(
    mask: np.ndarray, grid: Grid = GRID, *, model: ModelIdentity = MAKER, levels: Levels | None = LEVELS,
    out_of_range: tuple[OutOfRange, ...] = (), case_id: str = "a",
) -> Findings:  # fmt: skip
    """Return the findings of a mask on the scene."""
    _, probability, votes = scene()
    if probability.shape != mask.shape:
        probability, votes = np.full(mask.shape, 0.5), np.full(mask.shape, 3, np.uint8)
    burdens = measure(mask, grid, levels)
    lesions = lesion_confidence.measure_lesions(mask, grid, levels, probability.__getitem__, votes.__getitem__, 2)
    assigned = LevelAssignment() if levels is None else LevelAssignment(levels=levels, source="table")
    return Findings(
        case_id=case_id, status="analysed", in_words=record.result_in_words(burdens),
        warnings=tuple(record.reader_warnings(model, out_of_range, True, assigned)), images=("a.nii.gz",),
        written="2026-01-02T03:04:05+00:00", model=model, mask="a.nii.gz", mask_digest="e" * 64, levels=levels,
        level_source=None if levels is None else "table", burden=tuple(burdens),
        lesions=tuple(lesions),
        sub_threshold_ml={"left": 0.2, "right": 0.0}, highest_probability=0.31, out_of_range=out_of_range,
    )  # fmt: skip


def written(folder: Path, found: Findings, mask: np.ndarray, grid: Grid = GRID) -> tuple[str, bytes, bytes]:
    """The page as text without its images, the PDF and the PNG."""
    image = np.random.default_rng(0).normal(100, 20, mask.shape)
    paths = tuple(folder / f"a_summary.{ending}" for ending in ("html", "pdf", "png"))
    patient_page.write_page(found, image, mask, grid, paths)  # type: ignore[arg-type]
    html, pdf, png = (path.read_bytes() for path in paths)
    return re.sub(r'base64,[^"]+', "", html.decode()), pdf, png


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b(?!s)", pdf))


def test_the_page_has_burden_confidence_and_origin(tmp_path: Path) -> None:
    mask = scene()[0]
    html, pdf, png = written(tmp_path, findings_of(mask), mask)
    assert "The model segmented possible thrombus above and below the level (proximal and distal)." in html
    assert "Segmented volume 0.5 mL: right leg 0.1 mL in 1 component, left leg 0.4 mL in 1 component." in html
    assert "Sub-threshold, mL" in html and "<td>0.2</td>" in html and "<td>88 %</td>\n<td>75 %</td>" in html
    assert "gn_unet, 2 folds (0, 1), trained on Toy, digest dddddddddddddddd." in html and "2026-01-02 03:04" in html
    assert "Levels (from a table): left z 95, right z 80 mm." in html and html.count(DISCLAIMER) == 2
    assert html.count("<img") == 3 and html.count(' alt="') == 3 and "<script" not in html
    # One page of A4: 210 x 297 mm are 595.3 x 841.9 points.
    assert re.findall(rb"/MediaBox \[ ?0 0 (595\.\d+) (841\.\d+)", pdf) and pages(pdf) == 1
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    assert png.startswith(b"\x89PNG") and abs(height / width - 297 / 210) < 0.002


def test_an_empty_mask_does_not_rule_out_thrombus(tmp_path: Path) -> None:
    mask = np.zeros(GRID.shape, np.uint8)
    html, _, _ = written(tmp_path, findings_of(mask), mask)
    assert "The model segmented no thrombus. This does not rule out thrombus." in html
    assert "The highest probability of any voxel is 0.31" in html
    for limb in ("left", "right"):
        assert f"The model segmented no thrombus in the {limb} leg. This does not rule out thrombus." in html
    assert html.count("<img") == 1


def test_warnings_come_first(tmp_path: Path) -> None:
    mask = scene()[0]
    found = findings_of(mask, model=replace(MAKER, phantom=True), levels=None, out_of_range=(ODD,))
    html, _, _ = written(tmp_path, found, mask)
    phantom, range_, level, result = (
        html.index(text)
        for text in (
            "trained on phantoms (Toy)",
            ODD.in_words,
            "No level is known",
            "The model segmented possible thrombus (",
        )
    )
    assert phantom < range_ < level < result and html.count('class="banner"') == 3
    assert "trained on Toy (phantom)" in html and "differs from the 4 scans" in html


def test_names_are_text_and_neither_markup_nor_mathematics(tmp_path: Path) -> None:
    mask = scene()[0]
    html, _, _ = written(tmp_path, findings_of(mask, case_id="<b>$x^2$ _& " + 60 * "y"), mask)
    assert "&lt;b&gt;$x^2$ _&amp;" in html and "<b>$" not in html


@pytest.mark.parametrize("axis", ["AP", "SI", "LR"])
def test_slices_in_any_direction_are_shown(tmp_path: Path, axis: str) -> None:
    order = to_slice_order(GRID, axis)
    mask, grid = np.ascontiguousarray(order.apply(scene()[0])), order.grid(GRID)
    html, _, _ = written(tmp_path, findings_of(mask, grid, model=replace(MAKER, slice_axis=axis)), mask, grid)
    view = {"AP": "coronal slice 2 of 3", "SI": "axial slice 2 of 6", "LR": "sagittal slice 7 of 8"}[axis]
    assert view.capitalize() in html and "Segmented volume 0.5 mL" in html


@pytest.mark.parametrize(("value", "text"), [(-0.4, "0"), (-12.5, "−12"), (3.6, "4")])
def test_nothing_is_minus_zero(value: float, text: str) -> None:
    assert patient_text._signed(value) == text


def test_a_lesion_is_tagged_where_it_is() -> None:
    """Through a grid that is turned and flipped, back to row 2.5 and column 6 of the projection."""
    (lesion, _) = findings_of(scene()[0]).lesions
    tag = patient_images._tag(lesion, GRID)
    assert (tag.text, tag.row, tag.column) == ("1", pytest.approx(2.5), pytest.approx(6.0))


def test_many_lesions_fit_the_sheet_and_the_page_has_all(tmp_path: Path) -> None:
    mask = np.zeros((9, 41, 31), np.uint8)
    mask[::3, ::4, ::3] = 1
    grid = replace(GRID, shape=(9, 41, 31))
    html, pdf, _ = written(tmp_path, findings_of(mask, grid), mask, grid)
    assert f"{int(mask.sum())} lesions, by volume" in html and html.count('<th scope="row">') == 6 + mask.sum()
    assert pages(pdf) == 1


@settings(deadline=None)
@given(aspect_ratio=st.floats(0.05, 20), width=st.floats(20, 200), height=st.floats(20, 200))
def test_pictures_of_a_limb_fit_their_box_and_do_not_overlap(aspect_ratio: float, width: float, height: float) -> None:
    places = patient_images._arrange(aspect_ratio, width, height)
    for x, y, w, h in places:
        assert w > 0 and h > 0 and x + w <= width + 1e-6 and y + h <= height + 1e-6
    assert places[0][3] / places[0][2] == pytest.approx(aspect_ratio) and places[1][2] == pytest.approx(places[1][3])
    for k, (x, y, w, h) in enumerate(places):
        for u, v, a, b in places[k + 1 :]:
            assert x + w <= u + 1e-6 or y + h <= v + 1e-6 or u + a <= x + 1e-6 or v + b <= y + 1e-6


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("shape", [(4, 60, 12), (4, 40, 16), (4, 30, 24), (4, 12, 40)])
@pytest.mark.parametrize("many", [1, 60])
def test_texts_do_not_overlap(shape: tuple[int, int, int], empty: bool, many: int) -> None:
    """Also where components were removed from both limbs."""
    mask = np.zeros(shape, np.uint8)
    if not empty:
        mask[1:3, 3:6, 2:4] = mask[1:3, 7:9, -4:-2] = 1
    grid = Grid(shape=shape, spacing_mm=(5.0, 2.0, 2.0), origin_mm=(0.0, 0.0, 0.0), direction=GRID.direction)
    levels = Levels(left_mm=-8.0, right_mm=-9.0, midline_mm=float(shape[2]))
    found = replace(findings_of(mask, grid, levels=levels, out_of_range=(ODD,)), warnings=("Many words. " * many,))
    if empty:
        found = replace(found, model=replace(MAKER, smallest_component_mm3=112.0), removed=REMOVED)
    image = np.random.default_rng(0).normal(100, 20, mask.shape)
    sheet = patient_sheet.draw(found, patient_images.ScanPictures.of(found, image, mask != 0, grid))
    renderer = FigureCanvasAgg(sheet.figure).get_renderer()
    texts = [(text.get_text(), text.get_window_extent(renderer)) for text in sheet.figure.texts if text.get_text()]
    assert len(texts) > 20
    for k, (text, box) in enumerate(texts):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= sheet.figure.bbox.x1, text
        for other, beside in texts[k + 1 :]:
            wide = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            high = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            assert wide <= 1 or high <= 1.5, (text, other)


@pytest.mark.parametrize(("threshold", "words"), [(None, "0.25 to 0.5: "), (0.35, "0.25 to 0.35: "), (0.2, "")])
def test_low_confidence_ends_at_the_threshold_of_the_model(threshold: float | None, words: str) -> None:
    model = replace(MAKER, threshold=threshold)
    text = patient_text.limb_empty(findings_of(scene()[0] * 0, model=model), "left")
    assert "no thrombus in the left leg" in text and words in text and ("probability" in text) is bool(words)


def test_an_empty_limb_says_what_was_removed_from_it_and_from_which_threshold_on() -> None:
    model = replace(MAKER, threshold=0.4, smallest_component_mm3=200.0)
    found = replace(findings_of(scene()[0] * 0, model=model), removed=REMOVED[1:])
    right, left = (patient_text.limb_empty(found, limb) for limb in ("right", "left"))
    assert "Removed as smaller than 200 mm³: 1 component, 0.2 mL." in right and "Removed" not in left
    whole = patient_text.in_numbers(found)
    assert "1 component, 0.2 mL" in whole and "from 0.40 on" in whole
