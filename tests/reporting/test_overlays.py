"""Pictures of predictions, one per test case."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.masks import prediction, rewrite

from dvtplan import rendering
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io
from dvtplan.rendering import slices
from dvtplan.reporting.overlays import draw_overlays


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, np.ndarray]]:
    """Arguments of each drawn panel, by the case in its title."""
    seen: dict[str, dict[str, np.ndarray]] = {}
    real = slices.panels

    def note(view: slices.View, title: str) -> rendering.Figure:
        seen[title.partition(":")[0]] = {"image": view.image_HW, "truth": view.truth_HW, "mask": view.prediction_HW}
        return real(view, title)

    monkeypatch.setattr(slices, "panels", note)
    return seen


def test_every_test_case_gets_a_picture(trained: Workspace) -> None:
    paths = draw_overlays(trained, "gn_unet")
    folder = trained.results("gn_unet") / "overlays"
    assert sorted(paths) == [folder / f"c{k}.png" for k in range(4)] == sorted(folder.iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_chosen_folds_alone_are_drawn(trained: Workspace, drawn: dict[str, dict[str, np.ndarray]]) -> None:
    paths = draw_overlays(trained, "gn_unet", [1])
    tested = {p.name.removesuffix(".nii.gz") for p in trained.fold("gn_unet", 1).predictions.glob("*.nii.gz")}
    assert {p.stem for p in paths} == set(drawn) == tested


def test_the_slice_with_the_most_thrombus_is_shown(trained: Workspace, drawn: dict[str, dict[str, np.ndarray]]) -> None:
    path = trained.raw / "labelsTr" / "c0.nii.gz"
    truth = volume_io.read(path)[0]
    truth[4, 1:20, 1:20] = 1
    rewrite(path, truth)
    draw_overlays(trained, "gn_unet")
    assert np.array_equal(drawn["c0"]["truth"], truth[4])
    assert drawn["c0"]["image"].shape == drawn["c0"]["mask"].shape == (34, 33)


def test_the_known_or_estimated_level_is_drawn(trained: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Coronal slices of 6 x 34 x 33 voxels; the toy has no knee, so without a table nothing is drawn."""
    seen: list[int] = []
    real = slices.panels

    def note(view: slices.View, title: str) -> rendering.Figure:
        seen.append(len(view.lines))
        return real(view, title)

    monkeypatch.setattr(slices, "panels", note)
    draw_overlays(trained, "gn_unet")
    assert seen == [0, 0, 0, 0]
    _, grid = volume_io.read(trained.raw / "imagesTr" / "c0_0000.nii.gz")
    middle = float(grid.corners_mm()[:, 2].mean())
    (trained.raw / "cases.csv").write_text(f"case_id,level_left_mm\nc0,{middle}\n", encoding="utf-8")
    seen.clear()
    draw_overlays(trained, "gn_unet")
    assert sorted(seen) in ([0, 0, 0, 1], [0, 0, 0, 2])


def test_without_truth_the_slice_with_the_most_predicted_is_shown(
    trained: Workspace, drawn: dict[str, dict[str, np.ndarray]]
) -> None:
    mask = np.zeros((6, 34, 33), np.uint8)
    mask[5, 3:6, 3:6] = 1
    rewrite(trained.raw / "labelsTr" / "c0.nii.gz", 0 * mask)
    rewrite(prediction(trained, "c0"), mask)
    draw_overlays(trained, "gn_unet")
    assert np.array_equal(drawn["c0"]["mask"], mask[5]) and not drawn["c0"]["truth"].any()


def test_empty_truth_and_empty_prediction_are_drawn_too(trained: Workspace) -> None:
    empty = np.zeros((6, 34, 33), np.uint8)
    rewrite(trained.raw / "labelsTr" / "c0.nii.gz", empty)
    rewrite(prediction(trained, "c0"), empty)
    assert trained.results("gn_unet") / "overlays" / "c0.png" in draw_overlays(trained, "gn_unet")


def test_a_missing_prediction_is_refused_with_the_command(trained: Workspace) -> None:
    prediction(trained, "c1").unlink()
    with pytest.raises(
        DvtError, match=r"no prediction by the present training \(fold (.): c1\).*`train_fold`.* for fold \1"
    ):
        draw_overlays(trained, "gn_unet")


def test_a_prediction_of_an_earlier_training_is_not_drawn(trained: Workspace) -> None:
    prediction(trained, "c1").parent.joinpath("predictions.json").unlink()
    with pytest.raises(DvtError, match="no prediction by the present training"):
        draw_overlays(trained, "gn_unet")
    assert not (trained.results("gn_unet") / "overlays").exists()


def test_a_fold_that_is_not_there_is_refused(trained: Workspace) -> None:
    with pytest.raises(DvtError, match=r"fold_7: .*splits\.json has only the folds 0 to 1"):
        draw_overlays(trained, "gn_unet", [0, 7])
