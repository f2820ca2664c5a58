"""Sections of the report: overview, scores, figures, patients."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from dvtplan.anatomy.levels import ALL
from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.data.dataset import PHANTOM_WARNING
from dvtplan.evaluation import secondary_metrics, table1, table1_by_group, table2, table_text
from dvtplan.evaluation.summary_statistics import INTERVAL_RULE, Summary
from dvtplan.evaluation.table1 import SCORES, Table
from dvtplan.evaluation.table1_by_group import GroupTable
from dvtplan.evaluation.table2 import Comparison
from dvtplan.models.training_run import training_differences
from dvtplan.rendering import html_page
from dvtplan.rendering.html_page import Html
from dvtplan.reporting.case_figures import Picture
from dvtplan.reporting.report_outline import section
from dvtplan.reporting.scored_network import Chart, ScoredNetwork, bland_altman, ml

TERMS = (
    ("Truth and prediction", "The truth is the label of each scan; the prediction is what a network segmented as "
     "thrombus in a scan that it was not trained on."),
    ("DSC", "The Dice similarity coefficient, 2 TP / (2 TP + FP + FN), from 0 (no overlap) to 1 (the same voxels). TP "
     "are voxels of both truth and prediction, FP of the prediction only, FN of the truth only."),
    ("Precision and recall", "Precision is TP / (TP + FP), the share of the prediction that is true. Recall is "
     "TP / (TP + FN), the share of the truth that was found."),
    ("Patient", "The unit of every number here except slice DSCs. The voxels of all slices and all scans of a patient "
     "are counted together before scoring. n is a number of patients."),
    ("Fold", "Patients are divided into folds. The patients of a fold are tested by a network that was trained only on "
     "the patients of the other folds."),
    ("95 % CI", f"{INTERVAL_RULE}."),
)  # fmt: skip
"""Terms that a reader needs, with their definitions."""

SLICE_WARNING = (
    "A slice DSC counts the voxels of one slice, chosen because it is the best or the worst. It must never be compared "
    "with the DSC of a patient, which counts the voxels of all slices."
)


# --- sections -----------------------------------------------------------------------------------------


def header(dataset: str, results: Sequence[ScoredNetwork], phantom: str | None, written: str) -> Html:
    """Return the top of the page.

    Args:
        dataset: name of the data set.
        results: the networks.
        phantom: the description of a phantom data set; None for patients.
        written: when and by what the page was written.
    """
    n = len({patient for one in results for patient in one.rows["patient_id"]})
    names = listed([one.network for one in results])
    who, verb = ("The networks", "were") if len(results) > 1 else ("The network", "was")
    parts = [
        html_page.paragraph(
            f"{who} {names} segmented thrombus in {plural(n, 'patient')} of the data set {dataset} and {verb} not "
            "trained on these patients. This page shows how accurate the result is.",
            kind="lead",
        ),
        html_page.paragraph(written, kind="note"),
    ]
    if phantom is not None:
        parts.insert(
            0,
            html_page.banner(
                f"Phantom data: images and truth were computed ({phantom}), none is of a patient. " + PHANTOM_WARNING
            ),
        )
    return html_page.join(parts)


def overview(results: Sequence[ScoredNetwork]) -> Html:
    """Return a row per network, warnings, and the definitions of terms."""
    rows = []
    for one in results:
        region = next(r for r in one.table.regions if r.region == ALL)
        dsc, agreed = region.scores["dsc"], bland_altman(one.whole)
        rows.append(
            (
                one.network,
                str(dsc.n),
                table_text.mean_sd(dsc.mean, dsc.sd),
                table_text.number(dsc.median),
                _span(dsc),
                f"{ml(agreed.bias.mean)}\n({ml(agreed.limits_ml[0])} to {ml(agreed.limits_ml[1])})",
                one.table.folds,
            )
        )
    caption = (
        "All thrombus, per network. n: patients with thrombus. Volume: predicted minus true, bias and limits of "
        "agreement (bias ± 1.96 SD)."
    )
    header = ("Network", "n", "DSC, mean ± SD", "Median", "Range", "Volume", "Scored")
    notes = [f"{one.network}: {note}" for one in results for note in one.notes]
    words = html_page.section("words", "Terms", html_page.terms(TERMS), level=3)
    return section("overview", html_page.table(caption, header, [("", rows)]), html_page.bullets(notes), words)


def scores(results: Sequence[ScoredNetwork], comparisons: Sequence[Comparison], unpaired: Sequence[str]) -> Html:
    """Return Table 1, also per group of patients if there is one, Table 2 and the further measures.

    Args:
        results: the networks.
        comparisons: Tables 2.
        unpaired: sentences on the networks that are not in Table 2.
    """
    parts = [html_page.grid(*(_table_1(one.table) for one in results), kind="tables"), _shared_notes(results)]
    parts += [_table_1_by_group(one.by_group) for one in results if one.by_group is not None]
    parts += [_table_2(one) for one in comparisons]
    parts += [html_page.paragraph(sentence) for sentence in unpaired]
    return section("scores", *parts, _measures(results))


def compared(results: Sequence[ScoredNetwork], subject: str) -> tuple[list[Comparison], list[str]]:
    """Compare all networks with the same folds and rule.

    Returns:
        A Table 2 per group of networks, and a sentence for each network that cannot be compared.
    """
    groups: dict[tuple[str, str], list[ScoredNetwork]] = {}
    for one in results:
        groups.setdefault((one.table.folds, one.table.rule), []).append(one)
    found, omitted = [], []
    for (folds, rule), group in groups.items():
        names = listed([one.network for one in group])
        if len(group) < 2:
            if len(results) > 1:
                alone = sum(one.table.folds == folds for one in results) == 1
                by = "" if alone else f" by the same region rule: {rule}"
                omitted.append(f"Table 2 omits {names}: no other network was scored on {folds}{by}.")
            continue
        notes = training_differences([run for one in group for run in one.runs.values()])
        try:
            rows = {one.network: one.rows for one in group}
            found.append(table2.table_2(rows, subject=subject, rule=rule, folds=folds, notes=notes))
        except DvtError as error:
            omitted.append(f"Table 2 omits {names}: {console.translated(str(error))}")
    return found, omitted


def charts(drawn: Sequence[Chart], first: int) -> Html:
    """Return numbered figures next to each other."""
    return html_page.grid(*(_figure(chart, number) for number, chart in enumerate(drawn, start=first)))


def figures(drawn: Sequence[Chart]) -> Html:
    """Return the section of charts of scores and volumes."""
    return section("figures", charts(drawn, 1))


def patients(
    one: ScoredNetwork, others: Sequence[ScoredNetwork], chosen: Sequence[str], drawn: Sequence[Picture]
) -> Html:
    """Return a section per drawn patient.

    Args:
        one: the network of the pictures.
        others: further networks, for their scores.
        chosen: the patients in the order of the page.
        drawn: the pictures of their cases.
    """
    cases = one.rows.groupby("patient_id", sort=False)["case_id"].unique()
    ids = {patient: f"patient-{number}" for number, patient in enumerate(chosen, start=1)}
    whole, folds = one.whole.set_index("patient_id"), one.fold_of
    index = html_page.table(
        f"Patients that are drawn, with the scores of {one.network} over all thrombus. Volumes in mL.",
        ("Patient", "Fold", "DSC", "Truth", "Predicted"),
        [
            ("", [(html_page.link(ids[p], p), folds[p], *_index_cells(whole.loc[p])) for p in chosen]),
        ],
    )
    pooled = {other.network: other.patients for other in (one, *others)}
    sections = []
    for patient in chosen:
        back = html_page.element("span", html_page.link("patients", "Back to the list"), class_="back")
        shown = [_picture(picture) for picture in drawn if picture.case_id in set(cases[patient])]
        tested = html_page.paragraph(f"Tested by fold {folds[patient]}. ", back, kind="note")
        body = html_page.grid(_patient_scores(patient, pooled), *shown)
        sections.append(html_page.section(ids[patient], patient, tested, body, level=3, kind="patient"))
    intro = html_page.bullets(_patients_intro(one.network, len(chosen), len(whole), drawn))
    return section("patients", intro, index, *sections, kind="paged")


def _patients_intro(network: str, n: int, total: int, drawn: Sequence[Picture]) -> list[str]:
    """Explain which patients are drawn, and how to read their pictures."""
    selection = "" if n == total else ": the worst and the best by DSC of all thrombus"
    intro = [
        f"{n} of {plural(total, 'patient')} are drawn{selection}, the worst first, patients without truth last. "
        f"Pictures show the predictions of {network}.",
        "The picture of a slice shows the whole slice with contours and a white box. Next to it the box is enlarged, "
        "without and with contours. The truth is a solid green line, the prediction a dashed red line. In the worst "
        "slice the box contains the component with the most error, in the best slice the largest component. R and L "
        "are the patient's right and left, A and P front and back.",
        SLICE_WARNING,
    ]
    if any("level" in picture.caption for picture in drawn):
        intro.append(
            "Dotted yellow lines are the levels of cases.csv, which divide proximal from distal in each limb. Some are "
            "estimated from the image; then the caption says so. The notes of Table 1 explain how truth and prediction "
            "are divided."
        )
    return intro


# --- tables of scores ---------------------------------------------------------------------------------


def _table_1(table: Table) -> Html:
    """Return Table 1 with the cells of its other forms; a region's name becomes a row of its own."""
    groups = []
    for rows in map(table1.region_rows, table.regions):
        groups.append((rows[0][0], [tuple(cell.replace("-", "−") for cell in cells) for _, *cells in rows]))
    return html_page.table(table.caption, ("Statistic", *table1.HEADER[2:]), groups)


def _table_1_by_group(table: GroupTable) -> Html:
    """Return Table 1 per group with its notes; those of Table 1 itself are not repeated."""
    groups = [(region.region, [cells for _, *cells in table1_by_group.region_rows(region)]) for region in table.regions]
    return html_page.join((html_page.table(table.caption, table.header[1:], groups), _notes(table.notes[:2])))


def _shared_notes(results: Sequence[ScoredNetwork]) -> Html:
    """Return the notes of all Tables 1, each once, with the names of its networks if it does not apply to all."""
    notes: dict[str, list[str]] = {}
    for one in results:
        for note in one.table.notes:
            notes.setdefault(note, []).append(one.network)
    return _notes(note if len(names) == len(results) else f"{listed(names)}: {note}" for note, names in notes.items())


def _table_2(table: Comparison) -> Html:
    groups = []
    for region, networks in table.entries.items():
        rows = []
        for name, entries in networks.items():
            cells = [name]
            for entry in entries.values():
                s, d = entry.summary, entry.difference
                lines = [table_text.mean_sd(s.mean, s.sd), _span(s)]
                lines += [] if d is None else [f"p {table2.p_text(d.p)}; Holm {table2.p_text(entry.p_holm)}"]
                cells.append("\n".join(lines))
            d = entries["dsc"].difference
            difference = "reference" if d is None else "\n".join(table2.difference_text(d)).replace("-", "−")
            rows.append((*cells, difference))
        n = next(iter(networks[table.reference].values())).summary.n
        groups.append((f"{region} (n = {n})", rows))
    titles = [SCORES.get(score, score) for score in next(iter(table.entries.values()))[table.reference]]
    caption = (
        f"{table.caption} Each cell: mean ± SD, range, and p of the difference from {table.reference}, raw and "
        f"corrected (Holm). Last column: DSC of {table.reference} minus DSC of the network, with its interval."
    )
    return html_page.join(
        (html_page.table(caption, ("Network", *titles, "DSC difference"), groups), _notes(table.notes))
    )


def _measures(results: Sequence[ScoredNetwork]) -> Html:
    """Return the further measures: a row per measure, a column per network."""
    tables = [one.measures for one in results]
    by_region = [{region.region: region for region in table.regions} for table in tables]
    tolerances = [f"{table.tolerance_mm:g} mm" for table in tables]
    groups = []
    for name in dict.fromkeys(name for regions in by_region for name in regions):
        columns = [secondary_metrics.cells(regions[name]) if name in regions else {} for regions in by_region]
        titles = {key: title.format(tolerance=tolerances[0]) for key, title in secondary_metrics.LINES.items()}
        if len(set(tolerances)) > 1:  # a row must not suggest that these are comparable
            titles["surface_dice"] = secondary_metrics.LINES["surface_dice"].format(tolerance="its tolerance")
            for column, tolerance in zip(columns, tolerances, strict=True):
                column["surface_dice"] = f"{column.get('surface_dice', 'not scored')} at {tolerance}"
        rows = [
            (title, *(re.sub(r"-(?=\d)", "−", column.get(key, "not scored")) for column in columns))
            for key, title in titles.items()
        ]
        groups.append((name, rows))
    caption = (
        "Further measures over patients with truth in the region, as mean ± SD unless stated otherwise. n is given "
        "where a measure is undefined for some patients."
    )
    table = html_page.table(caption, ("Measure", *(one.network for one in results)), groups)
    notes = (secondary_metrics.DEFINITIONS, secondary_metrics.POOLING_RULE, secondary_metrics.EMPTY_MEASURES_RULE)
    return html_page.section("measures", "Further measures", table, _notes(notes), level=3)


def _patient_scores(patient: str, pooled: Mapping[str, pd.DataFrame]) -> Html:
    groups = []
    for network, patients in pooled.items():
        mine = patients[patients["patient_id"] == patient]
        rows = [
            (
                str(row["region"]),
                *(table_text.number(row[score]) for score in SCORES),
                f"{row['truth_ml']:.1f}",
                f"{row['predicted_ml']:.1f}",
            )
            for _, row in mine.iterrows()
        ]
        groups.append((network, rows or [("not scored", *[""] * (len(SCORES) + 2))]))
    caption = f"{patient}: scores over all slices, and volumes in mL; n/a: no truth in the region."
    return html_page.table(caption, ("Region", *SCORES.values(), "Truth", "Predicted"), groups)


def _index_cells(row: Any) -> tuple[str, ...]:
    return table_text.number(row["dsc"]), f"{row['truth_ml']:.1f}", f"{row['predicted_ml']:.1f}"


def _notes(notes: Iterable[str]) -> Html:
    return html_page.join(html_page.paragraph(note, kind="note") for note in notes)


# --- figures and text --------------------------------------------------------------------------------


def _figure(chart: Chart, number: int) -> Html:
    return html_page.figure(
        chart.image, "png", chart.alt, html_page.element("strong", f"Figure {number}. "), chart.caption
    )


def _picture(picture: Picture) -> Html:
    return html_page.figure(picture.image, "jpeg", picture.alt, picture.caption)


def _span(summary: Summary) -> str:
    return table_text.span(summary.minimum, summary.maximum)


def listed(names: Sequence[str]) -> str:
    """Join names: 'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
