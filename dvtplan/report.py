"""The report stage: one page on all networks of a data set, its figures as files, and pictures of predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from dvtplan import (
    __version__,
    artifacts,
    chapters,
    figures,
    journal,
    measures_table,
    page,
    pictures,
    tables,
    volumes,
    workers,
)
from dvtplan.chapters import Chart, Results
from dvtplan.dataset import discover
from dvtplan.errors import DvtError, how_many
from dvtplan.pairs import Pair, choose_folds, mixed_training, name_folds, of_folds
from dvtplan.pictures import Picture
from dvtplan.records import Dataset, Fold, Plan, Run, Splits
from dvtplan.workspace import Workspace

OUTLIER_SPREADS = 1.5
"""How many interquartile ranges below the first quartile a DSC is an outlier (Tukey)."""
LOWEST = 5
"""How many of the lowest are named where there is no outlier."""

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
    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    subject, phantom = dataset.subject, dataset.description if dataset.is_phantom else None
    scored = [_gather(workspace, name, dataset, splits, folds) for name in _networks(workspace, networks)]
    results = [one for one, _ in scored]
    first, pairs = scored[0]

    out, written = workspace.report_figures, list[Path]()

    def keep(figure: figures.Figure, name: str, alt: str, caption: str) -> Chart:
        written.extend(figures.save_both(figure, out, name))
        return Chart(image=figures.encode(figure, "png"), alt=alt, caption=caption)

    mark = dataset.subject.removeprefix(dataset.name)
    charts = [keep(*made) for one in results for made in _volume_charts(one, mark)]
    charts.append(keep(*_box_chart(results, mark)))
    epochs = {one.network: _epochs(workspace, one) for one in results}
    curves = [keep(*_curve_chart(name, rows, mark)) for name, rows in epochs.items() if rows]

    chosen = choose_patients(first.whole, patients)
    drawn = _draw(first, [pair for pair in pairs if pair.patient in set(chosen)], dataset, out, mark, jobs)
    written += [path for picture in drawn for path in picture.files]
    comparisons, unpaired = chapters.compared(results, subject)
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    text = page.document(
        f"Thrombus segmentation: {subject}",
        (("glance", "At a glance"), ("tables", "Scores"), ("figures", "Figures"),
         ("making", "How the networks were made"), ("patients", "Patients")),
        chapters.opening(subject, results, phantom, f"Written {now} by dvtplan {__version__}. Research software, no "
                         "medical device."),
        chapters.glance(results),
        chapters.scores(results, comparisons, unpaired),
        chapters.figures(charts),
        chapters.making(results, splits, curves, len(charts) + 1),
        chapters.patients(first, results[1:], chosen, drawn),
        footer=f"Each figure of this page lies as PNG and PDF in {out.relative_to(workspace.root).as_posix()}. After "
        "Huang et al. 2019, doi 10.1155/2019/3401683.",
    )  # fmt: skip
    artifacts.write_text(workspace.report, text)
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
    plan = artifacts.load(Plan, workspace.plan, "dvt_plan_and_preprocess")
    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    dataset = discover(workspace.raw)
    images = _images(dataset)
    pairs = of_folds(workspace, network, dataset, choose_folds(workspace, network, splits, folds))
    drawn = []
    for pair in journal.progress(pairs, "Draw"):
        scan = pictures.read(images[pair.case_id], pair.truth, pair.prediction, plan.slice_axis)
        counts = (scan.truth if scan.truth.any() else scan.prediction).sum(axis=(1, 2))
        s = int(counts.argmax())
        levels, estimated = pictures.levels_of(scan, pair.levels)
        lines = pictures.level_lines(scan.grid, levels, s)
        title = (
            f"{pair.case_id}: {pictures.VIEWS[plan.slice_axis][0]} slice {s + 1} of {len(counts)}\n"
            f"fold {pair.fold} of {network}{'; level estimated from the image' if lines and estimated else ''}"
        )
        sides = pictures.SIDES[plan.slice_axis]
        figure = figures.panels(scan.image[s], scan.truth[s], scan.prediction[s], title, scan.pixel_mm, sides, lines)
        path = workspace.results(network) / "pictures" / f"{pair.case_id}.png"
        figures.save(figure, path)
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
) -> tuple[Results, list[Pair]]:
    """A network's scores with everything that they rest on, complete and of the present masks."""
    predicted = choose_folds(workspace, network, splits, folds)
    command = _command(workspace, network, folds)
    rows = measures_table.read_metrics(workspace.metrics(network), command)
    scored = set(rows["fold"].dropna())
    chosen = tuple(fold for fold in predicted if folds is not None or fold.index in scored)
    pairs = of_folds(workspace, network, dataset, chosen)
    rows = rows[rows["fold"].isin([fold.index for fold in chosen])].reset_index(drop=True)
    unlike = sorted({pair.case_id for pair in pairs} ^ set(rows["case_id"]))
    if unlike or not pairs:
        raise DvtError(
            f"{workspace.metrics(network)}: does not hold the test cases of {name_folds(chosen or predicted, splits)}"
            f"{': ' + ', '.join(unlike[:8]) if unlike else ''}. Run {command} first."
        )
    _require_fresh(workspace, network, predicted, pairs, command)
    folds_text = name_folds(chosen, splits)
    left_out = [fold.index for fold in predicted if fold not in chosen]
    notes = mixed_training(workspace, [network], chosen)
    if left_out:
        notes.append(f"fold {', '.join(map(str, left_out))} has predictions, but was not scored.")
    runs = {fold.index: workspace.fold(network, fold.index).run for fold in chosen}
    rule = tables.told_rule(workspace.table(network), str(rows["rule"].iloc[0]))
    return Results(
        network=network,
        rows=rows,
        folds=chosen,
        plan=artifacts.load(Plan, workspace.results_plan(network), "dvt_train"),
        runs={k: artifacts.load(Run, path, "dvt_train") for k, path in runs.items() if path.exists()},
        table=tables.table_1(rows, subject=f"{network} on {dataset.subject}", rule=rule, folds=folds_text),
        notes=tuple(notes),
    ), pairs


def _require_fresh(
    workspace: Workspace, network: str, predicted: Sequence[Fold], pairs: Sequence[Pair], command: str
) -> None:
    """Refuse scores that are older than a mask or a level that they were taken from."""
    masks = [path for f in predicted for path in workspace.fold(network, f.index).predictions.glob("*.nii.gz")]
    sources = [*masks, *(pair.truth for pair in pairs), workspace.raw / "cases.csv"]
    scored = workspace.metrics(network).stat().st_mtime_ns
    newer = [path for path in sources if path.exists() and path.stat().st_mtime_ns > scored]
    if newer:
        raise DvtError(f"{workspace.metrics(network)}: is older than {newer[0]}. Run {command} again.")


def _epochs(workspace: Workspace, one: Results) -> dict[int, list[dict[str, object]]]:
    found = {
        k: journal.read_epochs(workspace.fold(one.network, k).epochs, run.epochs_done) for k, run in one.runs.items()
    }
    return {k: rows for k, rows in found.items() if rows}


# --- charts -------------------------------------------------------------------------------------------


def named_points(dsc: Sequence[float]) -> tuple[list[int], str]:
    """Which patients a chart names, and the rule in words: outliers (Tukey), or else the lowest few."""
    values = np.asarray(dsc, float)
    if not len(values):
        return [], "no patient"
    first, third = np.percentile(values, (25, 75))
    fence = first - OUTLIER_SPREADS * (third - first)
    below = np.flatnonzero(values < fence).tolist()
    outlier = f"below the first quartile less {OUTLIER_SPREADS} interquartile ranges"
    if below:
        return below, f"patients with a DSC {outlier} ({fence:.2f})"
    lowest = np.argsort(values, kind="stable")[:LOWEST].tolist()
    return lowest, f"the {how_many(len(lowest), 'patient')} with the lowest DSC; no DSC lies {outlier}"


def _volume_charts(one: Results, mark: str) -> Iterator[tuple[figures.Figure, str, str, str]]:
    """Figure 3 of the paper, and the agreement of volumes: figure, file name, alternative text, caption."""
    whole, title = one.whole, f"{one.network}{mark}"
    counted = whole[whole["counted"]]
    volume, dsc = counted["truth_ml"].tolist(), counted["dsc"].tolist()
    at, rule = named_points(dsc)
    names = {i: str(counted["patient_id"].iloc[i]) for i in at}
    reach = f"DSC {tables.span(min(dsc), max(dsc))}, volume {min(volume):.1f} to {max(volume):.1f} mL" if dsc else ""
    yield (
        figures.volume_against_dsc(volume, dsc, names, f"Volume and DSC: {title}, n {len(dsc)}"),
        f"volume_dsc_{one.network}",
        f"Scatter of DSC against true thrombus volume for {len(dsc)} patients; {reach}. Named: "
        f"{', '.join(names.values())}.",
        f"{title}: thrombus volume and DSC, as Figure 3 of Huang 2019. Each point is a patient with thrombus "
        f"(n {len(dsc)}): volume of the truth in mL (logarithmic) and DSC, both over all thrombus. Diamonds with "
        f"names: {rule}. {one.table.folds[:1].upper()}{one.table.folds[1:]}.",
    )
    agreed = chapters.agreement(whole)
    yield (
        figures.bland_altman(
            whole["truth_ml"].tolist(),
            whole["predicted_ml"].tolist(),
            agreed.bias.mean,
            agreed.limits_ml,
            f"Agreement of volume: {title}, n {len(whole)}",
        ),
        f"bland_altman_{one.network}",
        f"Difference of predicted and true volume against their mean for {len(whole)} patients; {agreed.text}.",
        f"{title}: agreement of predicted and true thrombus volume (Bland and Altman). Each point is a patient, also "
        f"without thrombus. Solid line: mean difference (bias); dashed lines: limits of agreement, bias ± 1.96 SD, "
        f"between which about 95 % of differences lie if they are normal and do not grow with the volume. "
        f"{agreed.text[:1].upper()}{agreed.text[1:]}.",
    )


def _box_chart(results: Sequence[Results], mark: str) -> tuple[figures.Figure, str, str, str]:
    by: dict[str, dict[str, list[float]]] = {}
    for one in results:
        for region, patients in one.patients.groupby("region", sort=False):
            by.setdefault(str(region), {})[one.network] = patients.loc[patients["counted"], "dsc"].tolist()
    medians = [
        f"{region}, {network}: median {tables.number(float(np.median(dsc))) if dsc else 'n/a'}, n {len(dsc)}"
        for region, networks in by.items()
        for network, dsc in networks.items()
    ]
    names = ", ".join(one.network for one in results)
    return (
        figures.boxes(list(by.items()), f"DSC by region{mark}"),
        "dsc_boxes",
        f"Box plots of DSC: {'; '.join(medians)}.",
        f"DSC per region, {names}{mark}. Each point is a patient with truth in the region (n beside the name), "
        "moved sideways only to be seen. Box: first to third quartile, thick line: median, whiskers: to the "
        f"last point within {OUTLIER_SPREADS} interquartile ranges of the box.",
    )


def _curve_chart(
    network: str, rows: Mapping[int, list[dict[str, object]]], mark: str
) -> tuple[figures.Figure, str, str, str]:
    ends = [f"fold {k} {float(str(r[-1]['loss'])):.2g} after {how_many(len(r), 'epoch')}" for k, r in rows.items()]
    return (
        figures.learning_curves(rows, f"Training: {network}{mark}"),
        f"learning_{network}",
        f"Training loss of each epoch for {len(rows)} folds of {network}; last: {'; '.join(ends)}.",
        f"{network}{mark}: mean focal loss over the training slices of each epoch (above, logarithmic) and learning "
        f"rate (below), a line per fold. It is the loss of training; no test patient enters it. Last epoch: "
        f"{'; '.join(ends)}.",
    )


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
    one: Results, pairs: Sequence[Pair], dataset: Dataset, folder: Path, mark: str, jobs: int | None
) -> list[Picture]:
    """Pictures of some cases, with their files."""
    images = _images(dataset)
    channel = f", channel {dataset.channels[0]}" if len(dataset.channels) > 1 else ""
    work = [
        pictures.Request(
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
    sizes = [math.prod(volumes.read_grid(pair.truth).shape) for pair in pairs]
    wanted = 1 if jobs is None and len(work) <= FEW_CASES else jobs
    n = workers.how_many(wanted, len(work), max(sizes, default=0) * BYTES_PER_VOXEL)
    found = workers.over_cases(pictures.draw, work, [pair.case_id for pair in pairs], title="Draw", jobs=n)
    return [picture for case in found for picture in case]


def _images(dataset: Dataset) -> dict[str, Path]:
    """Case -> its first channel, on which everything is drawn."""
    return {case.id: case.images[0] for case in dataset.cases}
