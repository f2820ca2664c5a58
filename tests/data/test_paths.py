"""Paths and file names of a project folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import (
    Workspace,
    as_workspace,
    open_workspace,
    prediction_record,
    prediction_records,
    trained_folds,
)

PLACE = Workspace(Path("root"), "DVT")


def test_paths_are_those_of_the_contract() -> None:
    names = {
        "raw": PLACE.raw,
        "own splits": PLACE.user_splits,
        "fingerprint": PLACE.fingerprint,
        "plan": PLACE.plan,
        "splits": PLACE.splits,
        "case": PLACE.preprocessed_case("a"),
        "results": PLACE.results("gn_unet"),
        "checkpoint": PLACE.fold("gn_unet", 3).checkpoint,
        "predictions": PLACE.fold("gn_unet", 3).predictions,
    }
    assert {name: path.as_posix() for name, path in names.items()} == {
        "raw": "root/datasets_raw/DVT",
        "own splits": "root/datasets_raw/DVT/splits.json",
        "fingerprint": "root/datasets_preprocessed/DVT/fingerprint.json",
        "plan": "root/datasets_preprocessed/DVT/plan.json",
        "splits": "root/datasets_preprocessed/DVT/splits.json",
        "case": "root/datasets_preprocessed/DVT/a",
        "results": "root/results/DVT/gn_unet",
        "checkpoint": "root/results/DVT/gn_unet/fold_3/checkpoint.pt",
        "predictions": "root/results/DVT/gn_unet/fold_3/predictions",
    }


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / "datasets_raw" / name).mkdir(parents=True)
    return root


def refused(root: Path, dataset: str | None = None) -> str:
    with pytest.raises(DvtError) as caught:
        open_workspace(root, dataset)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_only_data_set_needs_no_name(tmp_path: Path) -> None:
    make(tmp_path, "DVT", ".hidden", "@eaDir")
    (tmp_path / "datasets_raw" / "README.md").write_text("")
    assert open_workspace(tmp_path, None) == Workspace(tmp_path, "DVT")
    assert open_workspace(tmp_path, "DVT") == Workspace(tmp_path, "DVT")


def test_a_folder_stands_for_the_workspace_of_its_only_data_set(tmp_path: Path) -> None:
    workspace = open_workspace(make(tmp_path, "DVT"))
    assert as_workspace(workspace) is workspace
    assert as_workspace(str(tmp_path)) == as_workspace(tmp_path) == workspace


def test_a_link_to_a_data_set_is_accepted(tmp_path: Path) -> None:
    make(tmp_path / "far", "DVT")
    (tmp_path / "datasets_raw").mkdir()
    (tmp_path / "datasets_raw" / "near").symlink_to(tmp_path / "far" / "datasets_raw" / "DVT")
    assert open_workspace(tmp_path, None).dataset == "near"


def test_several_data_sets_are_listed(tmp_path: Path) -> None:
    assert "contains 2 data sets (A, B). Choose one with `dataset`." in refused(make(tmp_path, "B", "A"))


@pytest.mark.parametrize("name", ["C", "", "..", "A/imagesTr"])
def test_an_unknown_name_lists_the_existing_ones(tmp_path: Path, name: str) -> None:
    assert "contains no data set" in refused(make(tmp_path, "A", "B"), name)
    assert "contains: A, B. Choose another `dataset`." in refused(tmp_path, name)


def test_an_empty_or_missing_root_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "datasets_raw").mkdir()
    for root in (tmp_path, tmp_path / "nowhere"):
        assert refused(root).startswith(f"{root / 'datasets_raw'}: no data set found. Add one")
        assert "contains: none." in refused(root, "DVT")


def test_a_root_without_permission_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    make(tmp_path, "DVT")
    for method in ("iterdir", "is_dir"):
        with monkeypatch.context() as patch:
            patch.setattr(Path, method, refuse)
            assert "datasets_raw: cannot be read (Permission denied). Fix" in refused(tmp_path)


def test_trained_folds_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("fold_10", "fold_2", "fold_x", "fold_", "folds"):
        (tmp_path / name).mkdir()
    (tmp_path / "fold_3").write_text("")
    assert trained_folds(tmp_path) == [2, 10]
    assert trained_folds(tmp_path / "nowhere") == []


def test_records_of_predictions_are_found_by_their_names(tmp_path: Path) -> None:
    mine = [prediction_record(tmp_path), prediction_record(tmp_path, (2, 10))]
    for path in (*mine, tmp_path / "run_x.json", tmp_path / "a_run.json", tmp_path / "run_1_of_2.txt"):
        path.touch()
    assert prediction_records(tmp_path) == mine and [p.name for p in mine] == ["run.json", "run_2_of_10.json"]
