"""Overlays: for every test case a picture of its slice with the most thrombus (Figures 2 and 4 of the paper)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvtplan.core import console, json_records
from dvtplan.data.dataset import discover
from dvtplan.data.paths import Workspace, as_workspace
from dvtplan.data.planned_splits import load_splits
from dvtplan.evaluation.pairing import Pair, choose_folds, fold_pairs
from dvtplan.planning.plan import Plan
from dvtplan.planning.planned_reading import read_as_planned
from dvtplan.rendering import output, slices, views
from dvtplan.rendering.output import Figure
from dvtplan.reporting import case_figures


@read_as_planned
def draw_overlays(workspace: Workspace | Path | str, network: str, folds: Sequence[int] | None = None) -> list[Path]:
    """Draw prediction over truth for each test case, on the slice with the most thrombus.

    Args:
        workspace: a data set with predicted folds, or the folder that holds ``datasets_raw`` with this data set only.
        network: whose predictions.
        folds: indices; None: all that have predictions.

    Returns:
        The overlays, ``overlays/ID.png`` in the network's results.

    Raises:
        DvtError: if a prediction is missing or of an earlier training, as ``pairing.fold_pairs``.
    """
    workspace = as_workspace(workspace)
    plan = json_records.load(Plan, workspace.plan, "`plan_and_preprocess`")
    dataset = discover(workspace.raw)
    splits = load_splits(workspace, dataset.patient_of)
    images = case_figures.first_channels(dataset)
    pairs = fold_pairs(workspace, network, dataset, choose_folds(workspace, network, splits, folds))
    written = []
    for pair in console.progress(pairs, "Draw"):
        path = workspace.results(network) / "overlays" / f"{pair.case_id}.png"
        output.save(_overlay(pair, images[pair.case_id], network, plan.slice_axis), path)
        written.append(path)
    return written


def _overlay(pair: Pair, image: Path, network: str, slice_axis: str) -> Figure:
    """Draw the slice with the most truth, or without any truth the one with the most prediction."""
    scan = case_figures.read(image, pair.truth, pair.prediction, slice_axis)
    counts = (scan.truth if scan.truth.any() else scan.prediction).sum(axis=(1, 2))
    s = int(counts.argmax())
    levels, estimated = case_figures.levels_of(scan, pair.levels)
    lines = views.level_lines(scan.grid, levels, s)
    title = (
        f"{pair.case_id}: {views.VIEWS[slice_axis][0]} slice {s + 1} of {len(counts)}\n"
        f"fold {pair.fold} of {network}{'; level estimated from the image' if lines and estimated else ''}"
    )
    view = slices.View(
        image_HW=scan.image[s],
        truth_HW=scan.truth[s],
        prediction_HW=scan.prediction[s],
        pixel_mm=scan.pixel_mm,
        sides=views.SIDES[slice_axis],
        lines=lines,
    )
    return slices.panels(view, title)
