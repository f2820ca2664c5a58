"""All scores of one case."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dvtplan.anatomy import regions
from dvtplan.anatomy.levels import ALL, PROXIMAL_DISTAL, Levels
from dvtplan.anatomy.regions import by_label, midline_of
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.evaluation import confusion, lesion_detection, secondary_metrics, surface_distance, table1
from dvtplan.evaluation.confusion import Confusion
from dvtplan.evaluation.level_sensitivity import count_shifted
from dvtplan.evaluation.pairing import Pair
from dvtplan.evaluation.region_rules import LabelScheme
from dvtplan.imaging import array_ops, volume_io
from dvtplan.imaging.geometry import GRID_TOLERANCE_MM, Grid, distance_mm, same_grid
from dvtplan.imaging.value_names import name_faults

TRUE_LABELS, PREDICTED_LABELS = "true_labels", "predicted_labels"
"""Columns that are not written: the numbers of the labels in the whole mask of the case, as a tuple."""

_Scored = tuple[list[dict[str, Any]], list[dict[str, Any]]]
"""Rows of ``metrics.csv`` without ``counted``, which depends on the patient's other cases, and with the two columns
above; rows with shifted levels."""


def score_case(case: tuple[Pair, Levels | None], scheme: LabelScheme, tolerance_mm: float) -> _Scored:
    """Score one case in every region and over all, and again with shifted levels if its levels are given.

    Raises:
        DvtError: if a mask cannot be read, the grids differ, or a value has no meaning.
    """
    pair, levels = case
    masks = _read(pair, scheme)
    rows = _score(pair, scheme, tolerance_mm, masks)
    if levels is None:
        return rows, []
    complete = levels if levels.midline_mm is not None else replace(levels, midline_mm=masks.midline_mm)
    moved = count_shifted(masks.truth, masks.predicted, masks.grid, complete)
    return rows, [{"case_id": pair.case_id, "patient_id": pair.patient} | row for row in moved]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Masks:
    """Both masks of a case as maps of label numbers (uint8), cropped to the box around both."""

    truth: np.ndarray
    predicted: np.ndarray
    true_labels: tuple[int, ...]
    """Numbers that occur in ``truth``, without 0."""
    predicted_labels: tuple[int, ...]
    grid: Grid
    """Of the box."""
    midline_mm: float
    """LPS x between the limbs, from the whole grid."""


def _read(pair: Pair, scheme: LabelScheme) -> _Masks:
    """Read both masks of a case."""
    truth, grid = volume_io.read(pair.truth)
    predicted, predicted_grid = volume_io.read(pair.prediction)
    _require_same_grid(pair, grid, predicted_grid)
    _require_own_names(pair.truth, truth, scheme, scheme.truth_numbers)
    _require_own_names(pair.prediction, predicted, scheme, scheme.predicted_numbers)
    # Nearly all of the volume is empty, so only the box around both masks is scored.
    box = array_ops.bounding_box(truth, predicted) or (slice(0, 1),) * 3
    window = grid.window(np.array([part.start for part in box]), tuple(part.stop - part.start for part in box))
    numbers, labels = _to_numbers(pair.truth, np.ascontiguousarray(truth[box]), scheme.truth_numbers)
    found, predicted_labels = _to_numbers(
        pair.prediction, np.ascontiguousarray(predicted[box]), scheme.predicted_numbers
    )
    return _Masks(
        truth=numbers,
        predicted=found,
        true_labels=labels,
        predicted_labels=predicted_labels,
        grid=window,
        midline_mm=midline_of(grid, pair.levels),
    )


def _score(pair: Pair, scheme: LabelScheme, tolerance_mm: float, masks: _Masks) -> list[dict[str, Any]]:
    # The middle of the box is not the middle of the legs.
    levels = None if pair.levels is None else replace(pair.levels, midline_mm=masks.midline_mm)
    truth_map, predicted_map = _divide(masks.truth, masks.predicted, masks.grid, scheme, levels)
    *by_region, whole = confusion.count_voxels(truth_map, predicted_map, len(scheme.regions))
    counts = {name: (number, by_region[number - 1]) for number, name in enumerate(scheme.regions, start=1)}
    rows = []
    for region, (number, counted) in [*((name, counts[name]) for name in scheme.reported), (ALL, (None, whole))]:
        truth, predicted = (m > 0 if number is None else m == number for m in (truth_map, predicted_map))
        case = {
            "fold": pair.fold,
            "case_id": pair.case_id,
            "patient_id": pair.patient,
            "region": region,
            "rule": scheme.rule,
            TRUE_LABELS: masks.true_labels,
            PREDICTED_LABELS: masks.predicted_labels,
        }
        rows.append(case | _measure(counted, truth, predicted, masks.grid, tolerance_mm))
    return rows


def _measure(
    counted: Confusion, truth: np.ndarray, predicted: np.ndarray, grid: Grid, tolerance_mm: float
) -> dict[str, Any]:
    """Compute counts, scores and measures of one region; the masks may be cropped."""
    counts = {
        **counted._asdict(),
        "truth_ml": counted.truth * grid.voxel_ml,
        "predicted_ml": counted.predicted * grid.voxel_ml,
        "false_positive_ml": counted.fp * grid.voxel_ml,
        **secondary_metrics.lesion_counts(lesion_detection.match_lesions(truth, predicted, grid.voxel_ml)),
    }
    return {
        **counts,
        **{name: float(getattr(counted, name)) for name in table1.SCORES},
        **secondary_metrics.scores(counts),
        **surface_distance.surface_scores(truth, predicted, grid.spacing_mm, tolerance_mm)._asdict(),
        "tolerance_mm": tolerance_mm,
    }


# --- from files to numbers ------------------------------------------------------------------------


def _require_same_grid(pair: Pair, truth: Grid, predicted: Grid) -> None:
    if truth.shape != predicted.shape:
        raise DvtError(
            f"{pair.prediction}: shape {predicted.shape[::-1]} differs from its true mask {pair.truth}, "
            f"{truth.shape[::-1]}. Resample it to the grid of the true mask with nearest neighbours."
        )
    if not same_grid(truth, predicted):
        raise DvtError(
            f"{pair.prediction}: is up to {distance_mm(truth, predicted):.3g} mm away from its true mask {pair.truth} "
            f"(tolerance {GRID_TOLERANCE_MM:g} mm). Resample it to the grid of the true mask with nearest neighbours."
        )


def _to_numbers(path: Path, mask: np.ndarray, numbers: dict[int, int] | None) -> tuple[np.ndarray, tuple[int, ...]]:
    """Map the values of a file to label numbers (uint8); also return the numbers that occur."""
    there = array_ops.nonzero_indices(mask)
    values = mask.reshape(-1)[there]
    present = np.unique(values)
    known = [float(v).is_integer() and v > 0 if numbers is None else v in numbers for v in present.tolist()]
    if not all(known):
        unknown = [f"{v:g}" for v, k in zip(present.tolist(), known, strict=True) if not k]
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        expected = "whole numbers from 0" if numbers is None else shorten_list([str(v) for v in (0, *sorted(numbers))])
        action = "Write a mask of 0 and 1."
        if numbers is not None:
            action = (
                "Name the value in dataset.json or, if every value above 0 is thrombus, set `prediction_values=lesion`."
            )
        raise DvtError(f"{path}: contains {shown}; expected {expected}. {action}")
    map_ = np.zeros(mask.shape, np.uint8)
    meaning = np.array([1 if numbers is None else numbers[int(v)] for v in present.tolist()], np.uint8)
    map_.reshape(-1)[there] = meaning[np.searchsorted(present, values)]
    return map_, tuple(sorted(set(meaning.tolist())))


def _require_own_names(path: Path, mask: np.ndarray, scheme: LabelScheme, numbers: dict[int, int] | None) -> None:
    """Refuse a mask whose header gives its values the names of other labels."""
    if scheme.rule != "by-label" or numbers is None:
        return
    labels = {scheme.regions[number - 1]: value for value, number in numbers.items()}
    for fault in name_faults(path, mask, labels):
        raise DvtError(fault)


def _divide(
    truth: np.ndarray, predicted: np.ndarray, grid: Grid, scheme: LabelScheme, levels: Levels | None
) -> tuple[np.ndarray, np.ndarray]:
    """Divide truth and prediction into regions; both become region maps."""
    if scheme.rule == "level":
        if levels is None:
            raise ValueError("the rule level needs levels for every case")
        return regions.by_level(truth, grid, levels), regions.by_level(predicted, grid, levels)
    if scheme.rule == "by-label" and scheme.predicted_numbers is None:
        usable = levels if scheme.regions == PROXIMAL_DISTAL else None
        return truth, by_label(truth, predicted, grid, usable)
    return truth, predicted
