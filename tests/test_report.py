"""Pictures of predictions over the truth, one per test case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dvtplan import figures, volumes
from dvtplan.errors import DvtError
from dvtplan.report import draw_cases
from dvtplan.workspace import Workspace


def rewrite(path: Path, mask: np.ndarray) -> None:
    volumes.write_mask(path, mask, volumes.read(path)[1])


def prediction(workspace: Workspace, case: str) -> Path:
    return next(workspace.results("gn_unet").glob(f"fold_*/predictions/{case}.nii.gz"))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, np.ndarray]]:
    """What overlays were asked for, by the name of their file."""
    seen: dict[str, dict[str, np.ndarray]] = {}

    def note(image: np.ndarray, truth: np.ndarray, mask: np.ndarray, path: Path, *_: object) -> None:
        seen[path.stem] = {"image": image, "truth": truth, "mask": mask}

    monkeypatch.setattr(figures, "overlay", note)
    return seen


def test_every_test_case_gets_a_picture(trained: Workspace) -> None:
    paths = draw_cases(trained, "gn_unet")
    folder = trained.results("gn_unet") / "pictures"
    assert sorted(paths) == [folder / f"c{k}.png" for k in range(4)] == sorted(folder.iterdir())
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_chosen_folds_alone_are_drawn(trained: Workspace, drawn: dict[str, dict[str, np.ndarray]]) -> None:
    paths = draw_cases(trained, "gn_unet", [1])
    tested = {p.name.removesuffix(".nii.gz") for p in trained.fold("gn_unet", 1).predictions.glob("*.nii.gz")}
    assert {p.stem for p in paths} == set(drawn) == tested


def test_the_slice_with_the_most_thrombus_is_shown(trained: Workspace, drawn: dict[str, dict[str, np.ndarray]]) -> None:
    path = trained.raw / "labelsTr" / "c0.nii.gz"
    truth = volumes.read(path)[0]
    truth[4, 1:20, 1:20] = 1
    rewrite(path, truth)
    draw_cases(trained, "gn_unet")
    assert np.array_equal(drawn["c0"]["truth"], truth[4])
    assert drawn["c0"]["image"].shape == drawn["c0"]["mask"].shape == (34, 33)


def test_without_truth_the_slice_with_the_most_predicted_is_shown(
    trained: Workspace, drawn: dict[str, dict[str, np.ndarray]]
) -> None:
    mask = np.zeros((6, 34, 33), np.uint8)
    mask[5, 3:6, 3:6] = 1
    rewrite(trained.raw / "labelsTr" / "c0.nii.gz", 0 * mask)
    rewrite(prediction(trained, "c0"), mask)
    draw_cases(trained, "gn_unet")
    assert np.array_equal(drawn["c0"]["mask"], mask[5]) and not drawn["c0"]["truth"].any()


def test_empty_truth_and_empty_prediction_are_drawn_too(trained: Workspace) -> None:
    empty = np.zeros((6, 34, 33), np.uint8)
    rewrite(trained.raw / "labelsTr" / "c0.nii.gz", empty)
    rewrite(prediction(trained, "c0"), empty)
    assert trained.results("gn_unet") / "pictures" / "c0.png" in draw_cases(trained, "gn_unet")


def test_a_missing_prediction_is_refused_with_the_command(trained: Workspace) -> None:
    missing = prediction(trained, "c1")
    missing.unlink()
    with pytest.raises(DvtError, match=f"{missing}: not found. Run dvt_train . --resume"):
        draw_cases(trained, "gn_unet")


def test_a_fold_that_is_not_there_is_refused(trained: Workspace) -> None:
    with pytest.raises(DvtError, match=r"fold 7: .*splits\.json holds no such fold"):
        draw_cases(trained, "gn_unet", [0, 7])
