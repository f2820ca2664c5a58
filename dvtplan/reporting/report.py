"""The report stage: write one page on all networks of a data set, and its figures as files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from dvtplan import __version__
from dvtplan.core import files, json_records, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data import cases_table
from dvtplan.data.dataset import Dataset, discover
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace, as_workspace
from dvtplan.data.planned_splits import load_splits
from dvtplan.evaluation import stored_scores, table1
from dvtplan.evaluation.pairing import Pair, choose_folds, fold_pairs, name_folds, note_training_differences
from dvtplan.evaluation.table1_by_group import summarize_groups
from dvtplan.imaging import volume_io
from dvtplan.models import epoch_log
from dvtplan.models.postprocessing import read_postprocessing
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan
from dvtplan.planning.planned_reading import read_as_planned
from dvtplan.rendering import html_page, output
from dvtplan.rendering.html_page import Html
from dvtplan.rendering.output import Figure
from dvtplan.reporting import case_figures, methods_section, report_sections
from dvtplan.reporting.case_figures import Picture
from dvtplan.reporting.report_charts import box_chart, curve_chart, volume_charts
from dvtplan.reporting.report_outline import SECTIONS
from dvtplan.reporting.scored_network import Chart, ScoredNetwork

PICTURE_BYTES = 17_000_000
"""Limit for all pictures of a report. Base64 adds a third, so a report stays below 25 MB."""
MOST_PICTURE_BYTES = 160_000
"""Limit for one picture."""
BYTES_PER_VOXEL = 16
"""Peak memory of drawing a case: the image as read, both masks, and their comparisons."""
FEW_CASES = 8
"""Up to this number, starting processes costs more time than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Files of a report."""

    html: Path
    figures: tuple[Path, ...]
    drawn: int
    """Patients with pictures."""
    patients: int
    """Patients that the pictured network was scored on."""


@read_as_planned
def write_report(
    workspace: Workspace | Path | str,
    networks: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    patients: int | None = None,
    jobs: int | None = None,
) -> Report:
    """Write one page on all scored networks of a data set, and every figure as PNG and PDF.

    The page reads ``metrics.csv`` and never scores, so that no number is computed twice.

    Args:
        workspace: a data set with scored networks, or the folder that holds ``datasets_raw`` with this data set only.
        networks: names of results folders; the first is pictured and compared with the others. None: all that were
            scored, gn_unet first.
        folds: indices; None: all that were scored.
        patients: draw this number of the worst and of the best; None: all.
        jobs: processes; None: one, or one per core for many cases.

    Returns:
        ``report.html`` and the figures. Figures of an earlier report are removed.

    Raises:
        DvtError: for metrics that are missing, stale or of other cases; as ``pairing.fold_pairs``.
    """
    workspace = as_workspace(workspace)
    dataset = discover(workspace.raw)
    splits = load_splits(workspace, dataset.patient_of)
    scored = [_gather(workspace, name, dataset, splits, folds) for name in _networks(workspace, networks)]
    results = [one for one, _ in scored]
    first, pairs = scored[0]
    figures = _Figures(folder=workspace.report_figures, written=[])
    mark = dataset.subject.removeprefix(dataset.name)
    charts = [figures.keep(*made) for one in results for made in volume_charts(one, mark)]
    charts.append(figures.keep(*box_chart(results, mark)))
    epochs = [(one, _epochs(workspace, one)) for one in results]
    curves = [figures.keep(*curve_chart(one, rows, mark)) for one, rows in epochs if rows]
    chosen = choose_patients(first.whole, patients)
    drawn = _draw(first, [pair for pair in pairs if pair.patient in set(chosen)], dataset, figures.folder, mark, jobs)
    figures.written.extend(path for picture in drawn for path in picture.files)
    comparisons, unpaired = report_sections.compared(results, dataset.subject)
    sections = (
        report_sections.overview(results),
        report_sections.scores(results, comparisons, unpaired),
        report_sections.figures(charts),
        methods_section.methods(results, splits, curves, len(charts) + 1),
        report_sections.patients(first, results[1:], chosen, drawn),
    )
    files.write_text(workspace.report, _page(workspace, dataset, results, sections))
    figures.remove_others()
    return Report(html=workspace.report, figures=tuple(figures.written), drawn=len(chosen), patients=len(first.whole))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Figures:
    """The folder of the report's figures, and the files that this report has written there."""

    folder: Path
    written: list[Path]

    def keep(self, figure: Figure, name: str, alt: str, caption: str) -> Chart:
        """Save a figure as PNG and PDF, and return it for the page."""
        self.written.extend(output.save_both(figure, self.folder, name))
        return Chart(image=output.encode(figure, "png"), alt=alt, caption=caption)

    def remove_others(self) -> None:
        """Remove the figures of an earlier report."""
        for path in (*self.folder.glob("*.png"), *self.folder.glob("*.pdf")):
            if path not in self.written:
                path.unlink(missing_ok=True)


def _page(workspace: Workspace, dataset: Dataset, results: Sequence[ScoredNetwork], sections: Sequence[Html]) -> str:
    """Return the whole page, from its header to its footer."""
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    folder = workspace.report_figures.relative_to(workspace.root).as_posix()
    return html_page.document(
        f"Thrombus segmentation: {dataset.subject}",
        tuple(SECTIONS.items()),
        report_sections.header(
            dataset.subject,
            results,
            dataset.description if dataset.is_phantom else None,
            f"Written {now} by dvtplan {__version__}. Research software, not a medical device.",
        ),
        *sections,
        footer=f"Each figure on this page is also saved as PNG and PDF in {folder}. Method: Huang et al. 2019, doi "
        "10.1155/2019/3401683.",
    )


# --- scores -------------------------------------------------------------------------------------------


def _networks(workspace: Workspace, wanted: Sequence[str] | None) -> list[str]:
    if wanted is not None:
        return list(dict.fromkeys(wanted))
    trained = workspace.trained_networks
    scored = [name for name in trained if workspace.metrics(name).exists()]
    if not scored:
        choices = " or ".join(f"`network={name}`" for name in trained)
        first = f"`evaluate` with {choices}" if trained else "`train_fold` and `evaluate`"
        raise DvtError(f"{workspace.report.parent}: no network has been scored. Run {first} first.")
    return sorted(scored, key=lambda name: name != "gn_unet")


def _gather(
    workspace: Workspace,
    network: str,
    dataset: Dataset,
    splits: Splits,
    folds: Sequence[int] | None,
) -> tuple[ScoredNetwork, list[Pair]]:
    """Read the scores of a network, which must be complete and of the present masks."""
    predicted = choose_folds(workspace, network, splits, folds)
    rows, record = stored_scores.read_scores(workspace.results(network))
    scored = set(rows["fold"].dropna())
    chosen = tuple(fold for fold in predicted if folds is not None or fold.index in scored)
    pairs = fold_pairs(workspace, network, dataset, chosen)
    rows = rows[rows["fold"].isin([fold.index for fold in chosen])].reset_index(drop=True)
    unlike = sorted({pair.case_id for pair in pairs} ^ set(rows["case_id"]))
    metrics = workspace.metrics(network)
    if unlike or not pairs:
        raise DvtError(
            f"{metrics}: does not hold the test cases of {name_folds(chosen or predicted, splits)}"
            f"{': ' + shorten_list(unlike) if unlike else ''}. Run `evaluate` with `network={network}`."
        )
    current = stored_scores.scored_files(pairs, workspace.raw / cases_table.FILE_NAME, {})
    stored_scores.require_current(record, current, metrics)
    folds_text = name_folds(chosen, splits)
    omitted = [fold.index for fold in predicted if fold not in chosen]
    notes = note_training_differences(workspace, [network], chosen)
    if omitted:
        notes.append(f"fold {', '.join(map(str, omitted))} has predictions, but was not scored.")
    runs = {fold.index: workspace.fold(network, fold.index).run for fold in chosen}
    rules = {fold.index: read_postprocessing(workspace.fold(network, fold.index).postprocessing) for fold in chosen}
    subject, rule, groups = f"{network} on {dataset.subject}", record.rule, record.groups
    return ScoredNetwork(
        network=network,
        rows=rows,
        folds=chosen,
        plan=json_records.load(Plan, workspace.results_plan(network), "`train_fold`"),
        runs={k: json_records.load(Run, path, "`train_fold`") for k, path in runs.items() if path.exists()},
        table=table1.table_1(rows, subject=subject, rule=rule, folds=folds_text),
        notes=tuple(notes),
        postprocessing={k: found for k, found in rules.items() if found is not None},
        by_group=summarize_groups(rows, groups, subject=subject, rule=rule, folds=folds_text) if groups else None,
    ), pairs


def _epochs(workspace: Workspace, one: ScoredNetwork) -> dict[int, list[dict[str, object]]]:
    found = {
        k: epoch_log.read_epochs(workspace.fold(one.network, k).epochs, run.epochs_done) for k, run in one.runs.items()
    }
    return {k: rows for k, rows in found.items() if rows}


# --- pictures ---------------------------------------------------------------------------------------


def choose_patients(whole: pd.DataFrame, limit: int | None) -> list[str]:
    """Choose the patients to draw, the worst first.

    Args:
        whole: a row per patient over all thrombus, with counted, dsc and false_positive_ml.
        limit: this number of the worst and of the best, and of the patients without truth those with the most false
            positive volume; None: all.
    """
    order = whole.sort_values(["dsc", "patient_id"], kind="stable")
    scored = order.loc[order["counted"], "patient_id"].tolist()
    others = whole[~whole["counted"]].sort_values("false_positive_ml", ascending=False, kind="stable")
    without = others["patient_id"].tolist()
    if limit is None:
        return [*scored, *without]
    return [*scored[:limit], *scored[max(limit, len(scored) - limit) :], *without[:limit]]


def _draw(
    one: ScoredNetwork, pairs: Sequence[Pair], dataset: Dataset, folder: Path, mark: str, jobs: int | None
) -> list[Picture]:
    """Draw some cases; the pictures are also saved in a folder."""
    images = case_figures.first_channels(dataset)
    channel = f", channel {dataset.channels[0]}" if len(dataset.channels) > 1 else ""
    work = [
        case_figures.Request(
            case_id=pair.case_id,
            image=images[pair.case_id],
            truth=pair.truth,
            prediction=pair.prediction,
            levels=pair.levels,
            slice_axis=one.plan.slice_axis,
            channel=channel,
            subject=f"{mark}, {one.network}",
            folder=folder,
            most_bytes=min(MOST_PICTURE_BYTES, PICTURE_BYTES // (3 * len(pairs))),
        )
        for pair in pairs
    ]
    sizes = [volume_io.count_voxels(pair.truth) for pair in pairs]
    wanted = 1 if jobs is None and len(work) <= FEW_CASES else jobs
    n = worker_pool.choose_workers(wanted, sizes, BYTES_PER_VOXEL)
    found = worker_pool.over_cases(case_figures.draw, work, [pair.case_id for pair in pairs], title="Draw", jobs=n)
    return [picture for case in found for picture in case]
