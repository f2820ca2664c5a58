"""Read metrics.csv; refuse scores older than their masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dvtplan.core.errors import DvtError
from dvtplan.data.folds import Fold
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.evaluation import secondary_metrics, table1
from dvtplan.evaluation.pairing import Pair
from dvtplan.models.model_store import StoredModel


class NotStored(Exception):
    """Why something does not travel."""


def stored_table1(results: Path, stored: StoredModel, subject: str, notes: tuple[str, ...]) -> table1.Table:
    """Table 1 of the folds that travel, from the counts in metrics.csv."""
    file = results / "metrics.csv"
    if not file.exists():
        raise NotStored(f"{file} is not there; dvt_evaluate makes it")
    folders = {k: FoldFolder(results / f"fold_{k}") for k in stored.runs}
    sources = [p for f in folders.values() for p in (f.checkpoint, *sorted(f.predictions.glob("*.nii.gz")))]
    newer = [path for path in sources if path.stat().st_mtime_ns > file.stat().st_mtime_ns]
    if newer:
        raise NotStored(f"{file} is older than {newer[0]}; dvt_evaluate makes it anew")
    try:
        rows = secondary_metrics.read_metrics(file, "dvt_evaluate")
    except DvtError as error:
        raise NotStored(str(error)) from error
    rows = rows[rows["fold"].isin(list(stored.runs))].reset_index(drop=True)
    for k, run in stored.runs.items():
        if set(rows.loc[rows["fold"] == k, "case_id"]) != set(run.test):
            raise NotStored(f"{file} does not hold the test cases of fold {k}; dvt_evaluate --folds {k} does")
    network = next(iter(stored.runs.values())).network
    listed = ", ".join(map(str, stored.runs))
    return table1.table_1(
        rows,
        subject=f"{network} on {subject}",
        rule=table1.stored_rule(results / "table1.csv", str(rows["rule"].iloc[0])),
        folds=f"fold{'s' if len(stored.runs) > 1 else ''} {listed}, each on patients that it was not trained on",
        notes=notes,
    )


def require_fresh(
    workspace: Workspace, network: str, predicted: Sequence[Fold], pairs: Sequence[Pair], command: str
) -> None:
    """Refuse scores that are older than a mask or a level that they were taken from."""
    masks = [path for f in predicted for path in workspace.fold(network, f.index).predictions.glob("*.nii.gz")]
    sources = [*masks, *(pair.truth for pair in pairs), workspace.raw / "cases.csv"]
    scored = workspace.metrics(network).stat().st_mtime_ns
    newer = [path for path in sources if path.exists() and path.stat().st_mtime_ns > scored]
    if newer:
        raise DvtError(f"{workspace.metrics(network)}: is older than {newer[0]}. Run {command} again.")
