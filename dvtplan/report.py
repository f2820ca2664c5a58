"""Pictures of what was predicted, over the truth, one a patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dvtplan import artifacts, figures, journal, volumes
from dvtplan.dataset import discover
from dvtplan.errors import DvtError
from dvtplan.geometry import to_slice_order
from dvtplan.records import Plan, Splits
from dvtplan.workspace import Workspace, trained_folds


def draw_cases(workspace: Workspace, network: str, folds: Sequence[int] | None = None) -> list[Path]:
    """Draw each test case's slice with the most thrombus (Figures 2 and 4).

    Args:
        workspace: a data set with predicted folds.
        network: whose predictions.
        folds: which; none for all that have predictions.

    Returns:
        The pictures, ``pictures/ID.png`` in the network's results.

    Raises:
        DvtError: if a prediction is missing.
    """
    plan = artifacts.load(Plan, workspace.plan, "dvt_plan_and_preprocess")
    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    cases = {case.id: case for case in discover(workspace.raw).cases}
    there = [k for k in trained_folds(workspace.results(network)) if workspace.fold(network, k).predictions.exists()]
    wanted = there if folds is None else folds
    missing = sorted(set(wanted) - {fold.index for fold in splits.folds})
    if missing:
        raise DvtError(f"fold {missing[0]}: {workspace.splits} holds no such fold. Choose another.")
    tested = [(k, case_id) for k in wanted for case_id in splits.folds[k].test]
    drawn = []
    for k, case_id in journal.progress(tested, "Draw"):
        case = cases[case_id]
        mask_path = workspace.fold(network, k).predictions / f"{case_id}.nii.gz"
        if case.label is None or not mask_path.exists():
            raise DvtError(f"{mask_path}: not found. Run dvt_train {k} --resume to predict its test patients.")
        image, grid = volumes.read(case.images[0])
        order = to_slice_order(grid, plan.slice_axis)
        image, truth, mask = (order.apply(a) for a in (image, volumes.read(case.label)[0], volumes.read(mask_path)[0]))
        counts = (truth != 0).sum(axis=(1, 2))
        s = int(counts.argmax() if counts.any() else (mask != 0).sum(axis=(1, 2)).argmax())
        path = workspace.results(network) / "pictures" / f"{case_id}.png"
        title = f"{case_id}, {plan.slice_axis} slice {s + 1} of {len(image)}, fold {k} of {network}"
        figures.overlay(image[s], truth[s], mask[s], path, title, tuple(np.array(order.grid(grid).spacing_mm)[1:]))
        drawn.append(path)
    return drawn
