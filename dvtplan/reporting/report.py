"""The report stage: one page on all networks of a data set, its figures as files, and pictures of predictions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from dvtplan import __version__
from dvtplan.core import console, files, json_records, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.data.dataset import Dataset, discover
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.evaluation import secondary_metrics, table1
from dvtplan.evaluation.pairing import Pair, choose_folds, fold_pairs, name_folds, note_training_differences
from dvtplan.evaluation.stored_scores import require_fresh
from dvtplan.imaging import volume_io
from dvtplan.models import epoch_log
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan
from dvtplan.rendering import html_page, output, slices, views
from dvtplan.rendering.output import Figure
from dvtplan.reporting import case_figures, report_sections
from dvtplan.reporting.case_figures import Picture
from dvtplan.reporting.report_charts import box_chart, curve_chart, volume_charts
from dvtplan.reporting.scored_network import Chart, ScoredNetwork

PICTURE_BYTES = 17_000_000
"""What all pictures of a report may take together; a third more as text, so a report stays below 25 MB."""
MOST_PICTURE_BYTES = 160_000
"""What one picture takes at most."""
BYTES_PER_VOXEL = 16
"""Peak memory of drawing a case: the image as read, both masks, and their comparisons."""
FEW_CASES = 8
"""Up to so many, starting processes costs more than it saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was written."""

    html: Path
    figures: tuple[Path, ...]
    drawn: int
    """Patients with pictures."""
    patients: int
    """Patients that the pictured network was scored on."""


def write(
    workspace: Workspace,
    networks: Sequence[str] | None = None,
    folds: Sequence[int] | None = None,
    patients: int | None = None,
    jobs: int | None = None,
) -> Report:
    """Write one page on all scored networks of a data set, and every figure as PNG and PDF.

    The page reads ``metrics.csv`` and never scores: two computations of one number would drift
    apart. Where that file is older than what it tells of, the command that mends it is named.

    Args:
        workspace: a data set with scored networks.
        networks: names of results folders, the first is pictured and compared with the others;
            none for all that were scored, gn_unet first.
        folds: which; none for all that were scored.
        patients: picture so many of the worst and of the best; none for all.
        jobs: processes; none for one, or one per core where there are many cases.

    Returns:
        ``report.html`` and the figures; figures of an earlier report are removed.

    Raises:
        DvtError: for metrics that are missing, stale or of other cases; as ``pairs.of_folds``.
    """
    dataset = discover(workspace.raw)
    splits = json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    subject, phantom = dataset.subject, dataset.description if dataset.is_phantom else None
    scored = [_gather(workspace, name, dataset, splits, folds) for name in _networks(workspace, networks)]
    results = [one for one, _ in scored]
    first, pairs = scored[0]

    out, written = workspace.report_figures, list[Path]()

    def keep(figure: Figure, name: str, alt: str, caption: str) -> Chart:
        written.extend(output.save_both(figure, out, name))
        return Chart(image=output.encode(figure, "png"), alt=alt, caption=caption)

    mark = dataset.subject.removeprefix(dataset.name)
    charts = [keep(*made) for one in results for made in volume_charts(one, mark)]
    charts.append(keep(*box_chart(results, mark)))
    epochs = {one.network: _epochs(workspace, one) for one in results}
    curves = [keep(*curve_chart(name, rows, mark)) for name, rows in epochs.items() if rows]

    chosen = choose_patients(first.whole, patients)
    drawn = _draw(first, [pair for pair in pairs if pair.patient in set(chosen)], dataset, out, mark, jobs)
    written += [path for picture in drawn for path in picture.files]
    comparisons, unpaired = report_sections.compared(results, subject)
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    text = html_page.document(
        f"Thrombus segmentation: {subject}",
        (("glance", "At a glance"), ("tables", "Scores"), ("figures", "Figures"),
         ("making", "How the networks were made"), ("patients", "Patients")),
        report_sections.header(
            subject, results, phantom, f"Written {now} by dvtplan {__version__}. Research software, no medical device."
        ),
        report_sections.overview(results),
        report_sections.scores(results, comparisons, unpaired),
        report_sections.figures(charts),
        report_sections.methods(results, splits, curves, len(charts) + 1),
        report_sections.patients(first, results[1:], chosen, drawn),
        footer=f"Each figure of this page lies as PNG and PDF in {out.relative_to(workspace.root).as_posix()}. After "
        "Huang et al. 2019, doi 10.1155/2019/3401683.",
    )  # fmt: skip
    files.write_text(workspace.report, text)
    for path in (*out.glob("*.png"), *out.glob("*.pdf")):
        if path not in written:
            path.unlink(missing_ok=True)
    return Report(html=workspace.report, figures=tuple(written), drawn=len(chosen), patients=len(first.whole))


def draw_cases(workspace: Workspace, network: str, folds: Sequence[int] | None = None) -> list[Path]:
    """Draw each test case's slice with the most thrombus (Figures 2 and 4).

    Args:
        workspace: a data set with predicted folds.
        network: whose predictions.
        folds: which; none for all that have predictions.

    Returns:
        The pictures, ``pictures/ID.png`` in the network's results.

    Raises:
        DvtError: if a prediction is missing or of an earlier training, as ``pairs.of_folds``.
    """
    plan = json_records.load(Plan, workspace.plan, "dvt_plan_and_preprocess")
    splits = json_records.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    dataset = discover(workspace.raw)
    images = _images(dataset)
    pairs = fold_pairs(workspace, network, dataset, choose_folds(workspace, network, splits, folds))
    drawn = []
    for pair in console.progress(pairs, "Draw"):
        scan = case_figures.read(images[pair.case_id], pair.truth, pair.prediction, plan.slice_axis)
        counts = (scan.truth if scan.truth.any() else scan.prediction).sum(axis=(1, 2))
        s = int(counts.argmax())
        levels, estimated = case_figures.levels_of(scan, pair.levels)
        lines = views.level_lines(scan.grid, levels, s)
        title = (
            f"{pair.case_id}: {views.VIEWS[plan.slice_axis][0]} slice {s + 1} of {len(counts)}\n"
            f"fold {pair.fold} of {network}{'; level estimated from the image' if lines and estimated else ''}"
        )
        sides = views.SIDES[plan.slice_axis]
        figure = slices.panels(scan.image[s], scan.truth[s], scan.prediction[s], title, scan.pixel_mm, sides, lines)
        path = workspace.results(network) / "pictures" / f"{pair.case_id}.png"
        output.save(figure, path)
        drawn.append(path)
    return drawn


# --- what was scored ----------------------------------------------------------------------------------


def _networks(workspace: Workspace, wanted: Sequence[str] | None) -> list[str]:
    if wanted is not None:
        return list(dict.fromkeys(wanted))
    there = workspace.trained_networks
    scored = [name for name in there if workspace.metrics(name).exists()]
    if not scored:
        command = _command(workspace, there[0]) if there else "dvt_train and dvt_evaluate"
        raise DvtError(f"{workspace.report.parent}: no network has been scored. Run {command} first.")
    return sorted(scored, key=lambda name: name != "gn_unet")


def _command(workspace: Workspace, network: str, folds: Sequence[int] | None = None) -> str:
    """The command that scores a network, as it is to be typed."""
    chosen: list[str | int] = [] if folds is None else ["--folds", *folds]
    return workspace.command("dvt_evaluate", *chosen, network=network)


def _gather(
    workspace: Workspace,
    network: str,
    dataset: Dataset,
    splits: Splits,
    folds: Sequence[int] | None,
) -> tuple[ScoredNetwork, list[Pair]]:
    """A network's scores with everything that they rest on, complete and of the present masks."""
    predicted = choose_folds(workspace, network, splits, folds)
    command = _command(workspace, network, folds)
    rows = secondary_metrics.read_metrics(workspace.metrics(network), command)
    scored = set(rows["fold"].dropna())
    chosen = tuple(fold for fold in predicted if folds is not None or fold.index in scored)
    pairs = fold_pairs(workspace, network, dataset, chosen)
    rows = rows[rows["fold"].isin([fold.index for fold in chosen])].reset_index(drop=True)
    unlike = sorted({pair.case_id for pair in pairs} ^ set(rows["case_id"]))
    if unlike or not pairs:
        raise DvtError(
            f"{workspace.metrics(network)}: does not hold the test cases of {name_folds(chosen or predicted, splits)}"
            f"{': ' + ', '.join(unlike[:8]) if unlike else ''}. Run {command} first."
        )
    require_fresh(workspace, network, predicted, pairs, command)
    folds_text = name_folds(chosen, splits)
    left_out = [fold.index for fold in predicted if fold not in chosen]
    notes = note_training_differences(workspace, [network], chosen)
    if left_out:
        notes.append(f"fold {', '.join(map(str, left_out))} has predictions, but was not scored.")
    runs = {fold.index: workspace.fold(network, fold.index).run for fold in chosen}
    rule = table1.stored_rule(workspace.table(network), str(rows["rule"].iloc[0]))
    return ScoredNetwork(
        network=network,
        rows=rows,
        folds=chosen,
        plan=json_records.load(Plan, workspace.results_plan(network), "dvt_train"),
        runs={k: json_records.load(Run, path, "dvt_train") for k, path in runs.items() if path.exists()},
        table=table1.table_1(rows, subject=f"{network} on {dataset.subject}", rule=rule, folds=folds_text),
        notes=tuple(notes),
    ), pairs


def _epochs(workspace: Workspace, one: ScoredNetwork) -> dict[int, list[dict[str, object]]]:
    found = {
        k: epoch_log.read_epochs(workspace.fold(one.network, k).epochs, run.epochs_done) for k, run in one.runs.items()
    }
    return {k: rows for k, rows in found.items() if rows}


# --- pictures of patients -----------------------------------------------------------------------------


def choose_patients(whole: pd.DataFrame, limit: int | None) -> list[str]:
    """Patients to picture, the worst first.

    Args:
        whole: a row per patient over all thrombus, with counted, dsc and false_positive_ml.
        limit: so many of the worst and of the best, and of those without truth so many with the
            most false positive volume; none for all.
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
    """Pictures of some cases, with their files."""
    images = _images(dataset)
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
    sizes = [math.prod(volume_io.read_grid(pair.truth).shape) for pair in pairs]
    wanted = 1 if jobs is None and len(work) <= FEW_CASES else jobs
    n = worker_pool.choose_workers(wanted, len(work), max(sizes, default=0) * BYTES_PER_VOXEL)
    found = worker_pool.over_cases(case_figures.draw, work, [pair.case_id for pair in pairs], title="Draw", jobs=n)
    return [picture for case in found for picture in case]


def _images(dataset: Dataset) -> dict[str, Path]:
    """Case -> its first channel, on which everything is drawn."""
    return {case.id: case.images[0] for case in dataset.cases}
