"""The burden of scans as a table: a row for each limb and region, and none for what was not analysed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_burden import GRID, LEVELS, tube

from dvtplan import findings, volumes
from dvtplan.errors import DvtError


@pytest.fixture
def masks(tmp_path: Path) -> dict[str, Path]:
    """One with thrombus, one without."""
    paths = {name: tmp_path / f"{name}.nii.gz" for name in ("a", "b")}
    volumes.write_mask(paths["a"], tube([(20, 2, 60), (20, 2, -40)], 4.0), GRID)
    volumes.write_mask(paths["b"], np.zeros(GRID.shape, np.uint8), GRID)
    return paths


def test_a_case_with_levels_has_a_row_per_limb_and_region(masks: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_csv(findings.write(masks, {"a": LEVELS, "b": None}, tmp_path / "out" / "burden.csv"))
    assert tuple(table.columns) == findings.COLUMNS
    assert table.groupby("case_id").size().to_dict() == {"a": 6, "b": 2}
    rows = table.set_index(["case_id", "limb", "region"])
    whole, above, below = (rows.loc["a", "left", region] for region in ("all", "proximal", "distal"))
    assert whole.volume_ml == pytest.approx(above.volume_ml + below.volume_ml, abs=2e-3) and whole.pieces == 1
    assert whole.length_mm == pytest.approx(108, abs=3) and whole.top_above_level_mm == pytest.approx(64, abs=1.5)
    assert whole.in_words == "Thrombus was marked above and below the level (proximal and distal)."


def test_an_empty_mask_is_said_to_be_empty_and_has_its_rows(masks: dict[str, Path], tmp_path: Path) -> None:
    table = pd.read_csv(findings.write(masks, {}, tmp_path / "burden.csv"))
    empty = table[table.case_id == "b"]
    assert set(empty.in_words) == {"No voxel was marked as thrombus."} and (empty.volume_ml == 0).all()
    assert empty.top_above_level_mm.isna().all()


def test_a_mask_that_cannot_be_read_leaves_no_table(masks: dict[str, Path], tmp_path: Path) -> None:
    masks["b"].write_bytes(b"")
    with pytest.raises(DvtError, match=r"b.nii.gz: is empty"):
        findings.write(masks, {}, tmp_path / "burden.csv")
    assert not (tmp_path / "burden.csv").exists()
