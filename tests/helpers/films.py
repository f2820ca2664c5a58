"""Truth and predictions of four cases of one slice each, in two folds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from dvtplan.core import json_records
from dvtplan.data.folds import Fold, Splits
from dvtplan.data.paths import Workspace
from dvtplan.data.prediction_records import PredictionIndex
from dvtplan.evaluation.evaluate import Evaluation, evaluate
from dvtplan.evaluation.options import EvaluationOptions
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import Grid

FILM = Grid(
    shape=(1, 4, 4),
    spacing_mm=(10.0, 10.0, 5.0),
    origin_mm=(0.0, 0.0, 30.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""One coronal slice, head up: rows at z 30, 20, 10, 0 mm. A voxel is 0.5 mL."""

EMPTY = ".... .... .... ...."
TWO_LABELS = {"background": 0, "proximal": 1, "distal": 2}
UNION = {"background": 0, "thrombus": 1}
LESION = {"background": 0, "lesion": 1}

TRUTHS = {
    "a": "11.. 11.. .2.. .2..",
    "b": "1... 1... .... ....",
    "c": "..11 .... .... ...2",
    "d": EMPTY,
}
PREDICTIONS = {
    "a": "11.. 1... .1.. ....",
    "b": EMPTY,
    "c": "..11 ..1. .... ...1",
    "d": ".... .... 1... ....",
}
"""Cases a and b are of patient P, c and d of patients of their own. By level 15 mm:

| case | proximal | distal | all |
|---|---|---|---|
| a | tp 3 fp 0 fn 1 | tp 1 fp 0 fn 1 | tp 4 fp 0 fn 2 |
| b | tp 0 fp 0 fn 2 | none           | tp 0 fp 0 fn 2 |
| c | tp 2 fp 1 fn 0 | tp 1 fp 0 fn 0 | tp 3 fp 1 fn 0 |
| d | none           | fp 1           | fp 1           |
"""
FOLD_OF = {"a": 0, "b": 0, "c": 1, "d": 1}
LEVELS = "case_id,patient_id,level_left_mm\na,P,15\nb,P,15\nc,,15\nd,,15\n"


def film(rows: str) -> np.ndarray:
    """Return a mask from its rows; a dot is 0."""
    return np.array([[[0 if c == "." else int(c) for c in row] for row in rows.split()]], np.uint8)


def put(path: Path, rows: str, grid: Grid = FILM) -> None:
    """Write a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    volume_io.write_mask(path, film(rows), grid)


def describe(folder: Path, labels: dict[str, int]) -> None:
    """Write ``dataset.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {"channel_names": {"0": "MR"}, "labels": labels, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(body))


def write_log(workspace: Workspace, index: int, labels: dict[str, int]) -> None:
    """Write what the masks of a fold mean, as predict does."""
    classes = {name: value for name, value in labels.items() if value}
    cases = {case_id: "" for case_id, fold in FOLD_OF.items() if fold == index}
    made = PredictionIndex(model_digest="", classes=classes, cases=cases)
    json_records.save(made, workspace.fold("unet", index).prediction_index)


def make(root: Path, labels: dict[str, int] = TWO_LABELS, predicted: dict[str, int] = LESION) -> Workspace:
    """Write a workspace of four cases in two folds, with the predictions above."""
    workspace = Workspace(root, "DVT")
    describe(workspace.raw, labels)
    (workspace.raw / "cases.csv").write_text(LEVELS)
    folds = []
    for index in (0, 1):
        test = tuple(c for c in TRUTHS if FOLD_OF[c] == index)
        folds.append(Fold(index=index, train=tuple(c for c in TRUTHS if c not in test), test=test))
        write_log(workspace, index, predicted)
    json_records.save(Splits(source="seed 0", folds=tuple(folds)), workspace.splits)
    for case_id, rows in TRUTHS.items():
        put(workspace.raw / "imagesTr" / f"{case_id}_0000.nii.gz", rows)
        put(
            workspace.raw / "labelsTr" / f"{case_id}.nii.gz",
            rows if len(labels) > 2 else rows.replace("2", "1"),
        )
        put(prediction(workspace, case_id), PREDICTIONS[case_id])
    return workspace


def prediction(workspace: Workspace, case_id: str) -> Path:
    """Return the path of a predicted mask."""
    return workspace.fold("unet", FOLD_OF[case_id]).predictions / f"{case_id}.nii.gz"


def counts(rows: pd.DataFrame, case_id: str, region: str) -> tuple[int, ...]:
    """Return tp, fp and fn of a case and region."""
    row = rows[(rows["case_id"] == case_id) & (rows["region"] == region)]
    assert len(row) == 1
    return tuple(int(row[name].iloc[0]) for name in ("tp", "fp", "fn"))


def unwrapped(text: str) -> str:
    """Return a text with its lines joined."""
    return " ".join(text.split())


def score(workspace: Workspace, **options: Any) -> Evaluation:
    """Evaluate ``unet`` with some options."""
    return evaluate(workspace, "unet", options=EvaluationOptions(**options))
