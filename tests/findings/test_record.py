"""The record of findings, and the burden table: a row per limb and region, and no number for a failed scan."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.tubes import GRID, LEVELS, tube

from dvtplan.anatomy.landmarks import Landmarks, Limb
from dvtplan.anatomy.levels import Levels
from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.findings import burden_table
from dvtplan.findings.burden import measure
from dvtplan.findings.level_source import LevelAssignment, assign_levels
from dvtplan.findings.record import COULD_NOT, Findings, ModelIdentity, read_findings, reader_warnings
from dvtplan.imaging import volume_io


@pytest.fixture
def masks(tmp_path: Path) -> dict[str, Path]:
    """One with thrombus, one without."""
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("a", "b")}
    volume_io.write_mask(paths["a"], tube([(20, 2, 60), (20, 2, -40)], 4.0), GRID)
    volume_io.write_mask(paths["b"], np.zeros(GRID.shape, np.uint8), GRID)
    return paths


def test_a_case_with_levels_has_a_row_per_limb_and_region(masks: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_csv(
        burden_table.write_burden_table(
            masks, {"a": LevelAssignment(levels=LEVELS, source="table")}, tmp_path / "out" / "burden.csv"
        )
    )
    assert tuple(table.columns) == burden_table.COLUMNS
    assert table.groupby("case_id").size().to_dict() == {"a": 6, "b": 2}
    rows = table.set_index(["case_id", "limb", "region"])
    whole, above, below = (rows.loc["a", "left", region] for region in ("all", "proximal", "distal"))
    assert whole.volume_ml == pytest.approx(above.volume_ml + below.volume_ml, abs=2e-3) and whole.components == 1
    assert whole.length_mm == pytest.approx(108, abs=3) and whole.top_above_level_mm == pytest.approx(64, abs=1.5)
    assert (whole.level_mm, rows.loc["a", "right", "all"].level_mm) == (0.0, 15.0)
    assert set(table.level_source) == {"table", "none"} and set(table[table.level_source == "none"].case_id) == {"b"}
    assert (
        whole.scan_in_words == "The model segmented possible thrombus above and below the level (proximal and distal)."
    )


def test_an_empty_mask_is_reported_as_empty_and_has_its_rows(masks: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_csv(burden_table.write_burden_table(masks, {}, tmp_path / "burden.csv"))
    empty = table[table.case_id == "b"]
    assert set(empty.scan_in_words) == {"The model segmented no thrombus. This does not rule out thrombus."}
    assert (empty.volume_ml == 0).all() and set(empty.status) == {"analysed"}
    assert empty.top_above_level_mm.isna().all()


def test_a_mask_that_cannot_be_read_leaves_no_table(masks: dict[str, Path], tmp_path: Path) -> None:
    masks["b"].write_bytes(b"")
    with pytest.raises(DvtError, match=r"b.nii.gz: is empty"):
        burden_table.write_burden_table(masks, {}, tmp_path / "burden.csv")
    assert not (tmp_path / "burden.csv").exists()


def test_a_scan_that_could_not_be_analysed_has_one_row_without_a_number(masks: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_csv(
        burden_table.write_burden_table(masks, {}, tmp_path / "burden.csv", {"c": "c.nii.gz: is empty."})
    )
    (row,) = table[table.case_id == "c"].to_dict("records")
    assert row["status"] == "not analysed" and row["scan_in_words"] == f"{COULD_NOT} c.nii.gz: is empty."
    numbers = table[table.case_id == "c"].drop(columns=["case_id", "status", "scan_in_words"])
    assert numbers.isna().all(axis=None) and "segmented" not in row["scan_in_words"]


MAKER = ModelIdentity(
    network="n", folds=(0,), digest="d", dataset="D", phantom=False, training_scans=None, slice_axis="AP", versions={}
)


def test_findings_are_read_as_written_and_other_files_give_none(masks: dict[str, Path], tmp_path: Path) -> None:
    mask, grid = volume_io.read(masks["a"])
    record = Findings(
        case_id="a", status="analysed", in_words="x", images=("a.nii.gz",), written="now", model=MAKER, levels=LEVELS,
        burden=tuple(measure(mask, grid, LEVELS)), out_of_range=(),
    )  # fmt: skip
    json_records.save(record, tmp_path / "a_findings.json")
    assert read_findings(tmp_path / "a_findings.json") == record
    (tmp_path / "b_findings.json").write_text("{}")
    assert read_findings(tmp_path / "b_findings.json") is read_findings(tmp_path / "none.json") is None


@pytest.mark.parametrize(
    ("status", "reason"), [("analysed", "why"), ("not analysed", None), ("unclear", None), ("", "why")]
)
def test_a_reason_is_required_for_a_failed_scan_and_only_then(status: str, reason: str | None) -> None:
    with pytest.raises(ValueError, match=r"status|reason"):
        Findings(
            case_id="a", status=status, reason=reason, in_words="x", images=(), written="now", model=MAKER
        )  # fmt: skip


FOUND = Landmarks(left=Limb(knee_mm=70.0, sharpness=3.0), right=Limb(knee_mm=80.0, sharpness=3.0), midline_mm=1.0)
ALONE = Landmarks(left=FOUND.left, right=Limb(reason="no second leg in view"), midline_mm=-9.0)
NOTHING = Landmarks(left=Limb(reason="no knee in view"), right=Limb(reason="no knee in view"))


def test_the_table_comes_first_then_the_given_level_then_the_image() -> None:
    given = Levels(left_mm=9.0)
    names = ["listed", "empty", "seen", "lost", "left out"]
    found = {"empty": FOUND, "seen": FOUND, "lost": NOTHING}
    by_table = {"listed": LEVELS, "empty": None}
    assert [d.source for d in assign_levels(names, by_table, given, {}).values()] == ["table", *["given"] * 4]
    assigned = assign_levels(names, by_table, None, found)
    assert [d.source for d in assigned.values()] == ["table", "estimated", "estimated", "none", "none"]
    assert assigned["listed"].levels == LEVELS
    assert assigned["seen"].levels == Levels(left_mm=5.0, right_mm=15.0, midline_mm=1.0)
    assert "left: knee joint line at z 70 mm" in assigned["seen"].note and "65 mm below" in assigned["seen"].note
    assert assigned["lost"].note == "no knee in view" and assigned["left out"] == LevelAssignment()


def test_the_level_of_one_limb_is_used_for_both_and_noted(masks: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_csv(
        burden_table.write_burden_table(
            masks, assign_levels(["a", "b"], {}, None, {"a": ALONE}), tmp_path / "burden.csv"
        )
    )
    rows = table[table.case_id == "a"]
    assert set(rows.level_mm) == {5.0} and set(rows.level_source) == {"estimated"}
    assert rows.level_note.str.endswith("the level of one limb is used for both").all()
    others = table[table.case_id == "b"]
    assert others.level_mm.isna().all() and others.level_note.isna().all() and set(others.region) == {"all"}


def test_known_burdens_are_not_measured_again(masks: dict[str, Path], tmp_path: Path) -> None:
    once = burden_table.write_burden_table(
        masks, {"a": LevelAssignment(levels=LEVELS, source="given")}, tmp_path / "once.csv"
    )
    known = {"a": measure(*volume_io.read(masks["a"]), LEVELS)}
    gone = masks | {"a": tmp_path / "gone.nii.gz"}
    again = burden_table.write_burden_table(
        gone, {"a": LevelAssignment(levels=LEVELS, source="given")}, tmp_path / "again.csv", measured=known
    )  # fmt: skip
    assert again.read_text() == once.read_text()


def test_an_estimated_and_an_unknown_level_give_a_warning() -> None:
    assigned = assign_levels(["a", "b", "c"], {"c": LEVELS}, None, {"a": FOUND, "b": NOTHING})
    lines = {name: reader_warnings(MAKER, (), True, one) for name, one in assigned.items()}
    assert lines["c"] == []
    assert len(lines["a"]) == 1 and "estimated from the image" in lines["a"][0] and "z 70 mm" in lines["a"][0]
    (unknown,) = lines["b"]
    assert (
        unknown.startswith("The knee was not found in this scan, so the result is not split") and "`level`" in unknown
    )
    (not_asked,) = reader_warnings(MAKER, (), True, LevelAssignment())
    assert not_asked.startswith("No level is known for this scan")


def test_levels_need_a_known_source() -> None:
    for wrong in ({"levels": LEVELS}, {"source": "table"}, {"levels": LEVELS, "source": "hearsay"}):
        with pytest.raises(ValueError, match="cannot come from"):
            LevelAssignment(**wrong)  # type: ignore[arg-type]
