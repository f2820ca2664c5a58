"""What the report says: scored networks and drawn patients in, sections of a page out."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import pandas as pd

from dvtplan.anatomy.levels import ALL
from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration, plural
from dvtplan.data.dataset import PHANTOM_WARNING
from dvtplan.data.folds import Splits
from dvtplan.evaluation import secondary_metrics, table1, table2, table_text
from dvtplan.evaluation.summary_statistics import Summary
from dvtplan.evaluation.table1 import SCORES, Table
from dvtplan.evaluation.table2 import Comparison
from dvtplan.models.training_run import training_differences
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe import Recipe
from dvtplan.rendering import html_page
from dvtplan.rendering.html_page import Html
from dvtplan.rendering.views import VIEWS
from dvtplan.reporting.case_figures import Picture
from dvtplan.reporting.scored_network import Chart, ScoredNetwork, bland_altman, ml

T = TypeVar("T")

TERMS = (
    ("Truth and prediction", "The truth is the label of each scan; the prediction is what a network marked as thrombus "
     "in a scan that it was not trained on."),
    ("DSC", "The Dice similarity coefficient, 2 TP / (2 TP + FP + FN), from 0 (no overlap) to 1 (the same voxels). TP "
     "are voxels of both truth and prediction, FP of the prediction only, FN of the truth only."),
    ("Precision and recall", "Precision is TP / (TP + FP), the share of the prediction that is true. Recall is "
     "TP / (TP + FN), the share of the truth that was found."),
    ("Patient", "The unit of every number here but slice DSCs: the voxels of all slices and all scans of a patient "
     "are counted together before a score is taken. n is a number of patients."),
    ("Fold", "Patients are divided into folds; the patients of a fold are tested by a network that was trained on the "
     "patients of the other folds only."),
)  # fmt: skip
"""Words that a reader needs, and what they mean."""

SLICE_WARNING = (
    "A slice DSC counts the voxels of one slice, which was chosen for being the best or the worst. It serves to find "
    "that slice and must never be compared with the DSC of a patient, which counts the voxels of all slices."
)

DECISIONS = {
    "slice_axis": "Direction of slices",
    "target_shape": "Size that the network sees",
    "normalization": "Intensities",
    "variants": "Augmentation",
}
"""Decisions of a plan in words."""

SETTINGS = {
    "name": "recipe",
    "epochs": "epochs (passes over the training slices)",
    "batch_size": "slices per step",
    "learning_rate": "learning rate at the start (Adam)",
    "lr_drops": "shares of the epochs after which it drops",
    "lr_factor": "factor of each drop",
    "beta1": "Adam's momentum (beta 1)",
    "focal_gamma": "focal loss, gamma",
    "focal_alpha": "focal loss, weight of the foreground (alpha)",
    "oversampling": "share of an epoch drawn from slices with lesions, labels in turn",
    "norm_groups": "groups of a group normalization",
    "width": "channels of the first level",
    "target": "what is trained (lesion: the union of all labels)",
    "seed": "seed",
}
"""Fields of a recipe in words."""


# --- chapters -----------------------------------------------------------------------------------------


def header(dataset: str, results: Sequence[ScoredNetwork], phantom: str | None, written: str) -> Html:
    """What stands above everything."""
    n = len({patient for one in results for patient in one.rows["patient_id"]})
    names = _listed([one.network for one in results])
    who, were = ("the networks", "they had") if len(results) > 1 else ("the network", "it had")
    told = [
        html_page.paragraph(
            f"How well {who} {names} found the thrombus of {plural(n, 'patient')} of the data set {dataset} "
            f"that {were} not been trained on.",
            kind="lead",
        ),
        html_page.paragraph(written, kind="note"),
    ]
    if phantom is not None:
        told.insert(
            0,
            html_page.banner(
                f"Phantom data: images and truth were computed ({phantom}), none is of a patient. " + PHANTOM_WARNING
            ),
        )
    return html_page.join(told)


def overview(results: Sequence[ScoredNetwork]) -> Html:
    """Each network in a line, what is to be known first, and the words that are used."""
    rows = []
    for one in results:
        region = next(r for r in one.table.regions if r.region == ALL)
        dsc, agreed = region.scores["dsc"], bland_altman(one.whole)
        rows.append(
            (
                one.network,
                str(dsc.n),
                f"{table_text.number(dsc.mean)} ± {table_text.number(dsc.sd)}",
                table_text.number(dsc.median),
                _span(dsc),
                f"{ml(agreed.bias.mean)}\n({ml(agreed.limits_ml[0])} to {ml(agreed.limits_ml[1])})",
                one.table.folds,
            )
        )
    caption = (
        "All thrombus, per network. n: patients with thrombus. Volume: predicted less true, bias and limits of "
        "agreement (bias ± 1.96 SD)."
    )
    header = ("Network", "n", "DSC, mean ± SD", "Median", "Range", "Volume", "Scored")
    notes = [f"{one.network}: {note}" for one in results for note in one.notes]
    words = html_page.section("words", "Words", html_page.terms(TERMS), level=3)
    return html_page.section(
        "glance", "At a glance", html_page.table(caption, header, [("", rows)]), html_page.bullets(notes), words
    )


def scores(results: Sequence[ScoredNetwork], comparisons: Sequence[Comparison], unpaired: Sequence[str]) -> Html:
    """Tables 1 and 2, and the further measures."""
    parts = [html_page.grid(*(_table_1(one.table) for one in results), kind="tables"), _shared_notes(results)]
    parts += [_table_2(one) for one in comparisons]
    parts += [html_page.paragraph(sentence) for sentence in unpaired]
    return html_page.section("tables", "Scores", *parts, _measures(results))


def compared(results: Sequence[ScoredNetwork], subject: str) -> tuple[list[Comparison], list[str]]:
    """Table 2 for every set of networks with the same folds and rule, and a sentence for each network that cannot be
    paired."""
    groups: dict[tuple[str, str], list[ScoredNetwork]] = {}
    for one in results:
        groups.setdefault((one.table.folds, one.table.rule), []).append(one)
    found, told = [], []
    for (folds, rule), group in groups.items():
        names = _listed([one.network for one in group])
        if len(group) < 2:
            if len(results) > 1:
                alone = sum(one.table.folds == folds for one in results) == 1
                by = "" if alone else f" with the same rule for regions and predictions ({rule})"
                told.append(f"Table 2 leaves out {names}: no other network was scored on {folds}{by}.")
            continue
        notes = training_differences([run for one in group for run in one.runs.values()])
        try:
            rows = {one.network: one.rows for one in group}
            found.append(table2.table_2(rows, subject=subject, rule=rule, folds=folds, notes=notes))
        except DvtError as error:
            told.append(f"Table 2 leaves out {names}: {str(error).removeprefix('--compare: ')}")
    return found, told


def charts(drawn: Sequence[Chart], first: int) -> Html:
    """Numbered figures beside each other."""
    return html_page.grid(*(_figure(chart, number) for number, chart in enumerate(drawn, start=first)))


def figures(drawn: Sequence[Chart]) -> Html:
    """The charts of scores and volumes."""
    return html_page.section("figures", "Figures", charts(drawn, 1))


def methods(results: Sequence[ScoredNetwork], splits: Splits, curves: Sequence[Chart], first: int) -> Html:
    """Plan, folds, training."""
    return html_page.section(
        "making",
        "How the networks were made",
        _plans(results),
        html_page.section("folds", "Folds", _folds(results, splits), level=3),
        html_page.section("training", "Training", _runs(results), _recipes(results), charts(curves, first), level=3),
    )


def patients(
    one: ScoredNetwork, others: Sequence[ScoredNetwork], chosen: Sequence[str], drawn: Sequence[Picture]
) -> Html:
    """Every drawn patient, the worst first: scores of all networks, pictures of the first."""
    cases = one.rows.groupby("patient_id", sort=False)["case_id"].unique()
    ids = {patient: f"patient-{number}" for number, patient in enumerate(chosen, start=1)}
    whole, folds = one.whole.set_index("patient_id"), one.fold_of
    total = len(whole)
    leveled = any("level" in picture.caption for picture in drawn)
    intro = [
        f"{len(chosen)} of {plural(total, 'patient')} are drawn"
        + ("" if len(chosen) == total else ": the worst and the best by DSC of all thrombus")
        + f", the worst first, patients without truth last. Pictures show the predictions of {one.network}.",
        "A picture of a slice shows the whole slice with contours and a white box, and what the box holds magnified, "
        "without and with contours: the truth is a solid green line, the prediction a dashed red one. The box holds "
        "the piece of thrombus with the most error in the worst slice, and the largest piece in the best. R and L are "
        "the patient's right and left, A and P front and back.",
        SLICE_WARNING,
    ]
    if leveled:
        intro.append(
            "Dotted yellow lines are the levels of cases.csv, where proximal ends in each limb; where a caption says "
            "so, they are estimated from the image. How the scores divide truth and prediction is told below Table 1."
        )
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
        told = html_page.paragraph(f"Tested by fold {folds[patient]}. ", back, kind="note")
        body = html_page.grid(_patient_scores(patient, pooled), *shown)
        sections.append(html_page.section(ids[patient], patient, told, body, level=3, kind="patient"))
    return html_page.section("patients", "Patients", html_page.bullets(intro), index, *sections, kind="paged")


# --- tables of scores ---------------------------------------------------------------------------------


def _table_1(table: Table) -> Html:
    groups = []
    for region in table.regions:
        columns = [
            (
                f"{table_text.number(s.mean)} ± {table_text.number(s.sd)}",
                table_text.number(s.median),
                _span(s),
                table_text.span(s.ci_low, s.ci_high).replace("-", "−"),
            )
            for s in region.scores.values()
        ]
        groups.append((f"{region.region} (n {region.n})", list(zip(table1.STATISTICS, *columns, strict=True))))
    header = ("Statistic", *(SCORES.get(score, score) for score in table.regions[0].scores))
    return html_page.table(table.caption, header, groups)


def _shared_notes(results: Sequence[ScoredNetwork]) -> Html:
    """The notes of all Tables 1, each once, with its network where it does not hold for all."""
    notes: dict[str, list[str]] = {}
    for one in results:
        for note in one.table.notes:
            notes.setdefault(note, []).append(one.network)
    return _notes(note if len(names) == len(results) else f"{_listed(names)}: {note}" for note, names in notes.items())


def _table_2(table: Comparison) -> Html:
    groups = []
    for region, networks in table.entries.items():
        rows = []
        for name, entries in networks.items():
            cells = [name]
            for entry in entries.values():
                s, d = entry.summary, entry.difference
                lines = [f"{table_text.number(s.mean)} ± {table_text.number(s.sd)}", _span(s)]
                lines += [] if d is None else [f"p {table2.p_text(d.p)}; Holm {table2.p_text(entry.p_holm)}"]
                cells.append("\n".join(lines))
            d = entries["dsc"].difference
            told = "reference" if d is None else "\n".join(table2.difference_text(d)).replace("-", "−")
            rows.append((*cells, told))
        n = next(iter(networks[table.reference].values())).summary.n
        groups.append((f"{region} (n {n})", rows))
    titles = [SCORES.get(score, score) for score in next(iter(table.entries.values()))[table.reference]]
    caption = (
        f"{table.caption} Each cell: mean ± SD, range, and p of the difference from {table.reference}, raw and "
        f"corrected (Holm). Last column: DSC of {table.reference} less that of the network, with its interval."
    )
    return html_page.join(
        (html_page.table(caption, ("Network", *titles, "DSC difference"), groups), _notes(table.notes))
    )


def _measures(results: Sequence[ScoredNetwork]) -> Html:
    """What the field asks for beside DSC, precision and recall: a row per measure, a column per network."""
    told = [one.measures for one in results]
    by_region = [{region.region: region for region in table.regions} for table in told]
    tolerances = [f"{table.tolerance_mm:g} mm" for table in told]
    groups = []
    for name in dict.fromkeys(name for regions in by_region for name in regions):
        columns = [secondary_metrics.cells(regions[name]) if name in regions else {} for regions in by_region]
        titles = {key: title.format(tolerance=tolerances[0]) for key, title in secondary_metrics.LINES.items()}
        if len(set(tolerances)) > 1:  # scored one by one: no row may set side by side what cannot be compared
            titles["surface_dice"] = secondary_metrics.LINES["surface_dice"].format(tolerance="its tolerance")
            for column, tolerance in zip(columns, tolerances, strict=True):
                column["surface_dice"] = f"{column.get('surface_dice', 'not scored')} at {tolerance}"
        rows = [
            (title, *(column.get(key, "not scored").replace("-", "−") for column in columns))
            for key, title in titles.items()
        ]
        groups.append((name, rows))
    caption = (
        "Further measures, over patients with truth in the region: mean ± SD where nothing else is said; n where "
        "fewer of them have it."
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


# --- how it was made ----------------------------------------------------------------------------------


def _plans(results: Sequence[ScoredNetwork]) -> Html:
    """Each plan once, with the networks that were trained by it."""
    parts = [
        html_page.table(
            f"The plan of {_listed(names)} (preset {plan.preset}): each decision with its reason.",
            ("Decision", "Chosen", "Reason"),
            [("", [(DECISIONS.get(key, key), _decided(plan, key), reason) for key, reason in plan.because.items()])],
            wide=(1, 2),
        )
        for plan, names in _kinds((one.plan, one.network) for one in results)
    ]
    return html_page.section("plan", "Plan", *parts, level=3)


def _decided(plan: Plan, key: str) -> str:
    if key == "slice_axis":
        return f"{VIEWS[plan.slice_axis][0]} ({plan.slice_axis})"
    if key == "target_shape":
        return f"{plan.target_shape[0]} rows × {plan.target_shape[1]} columns"
    if key == "normalization":
        clip = plan.normalization.clip_percentiles
        return f"0 to 1 by {plan.normalization.scope}" + (
            "" if clip is None else f", percentiles {clip[0]:g}, {clip[1]:g}"
        )
    if key == "variants":
        return plural(len(plan.variants), "variant")
    return _value(getattr(plan, key, ""))


def _folds(results: Sequence[ScoredNetwork], splits: Splits) -> Html:
    scored = {fold.index: [o.network for o in results if fold in o.folds] for fold in splits.folds}
    rows = [
        (str(f.index), str(len(f.train)), str(len(f.test)), _listed(scored[f.index]) or "none", ", ".join(f.test))
        for f in splits.folds
    ]
    caption = f"Folds ({splits.source}), in numbers of cases. No patient is both trained on and tested in a fold."
    return html_page.table(
        caption, ("Fold", "Trained on", "Tested", "Scored here", "Test cases"), [("", rows)], wide=(3, 4)
    )


def _runs(results: Sequence[ScoredNetwork]) -> Html:
    groups = []
    for one in results:
        rows = []
        for fold in one.folds:
            run = one.runs.get(fold.index)
            if run is None:
                rows.append((f"fold\u00a0{fold.index}", *["unknown"] * 5))
                continue
            versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
            rows.append(
                (
                    f"fold\u00a0{fold.index}",
                    f"{run.recipe.name}, {run.epochs_done} of {plural(run.recipe.epochs, 'epoch')}",
                    f"{run.parameters:,}",
                    f"{duration(run.seconds)}\n{run.waiting_share:.0%} waiting for data",
                    f"{run.setup} {plural(run.processes, 'process', 'processes')}.",
                    f"{run.started}\n{versions}",
                )
            )
        groups.append((one.network, rows))
    header = ("Fold", "Recipe", "Parameters", "Training time", "Machine", "Begun, versions")
    return html_page.table("Training of each network and fold (run.json).", header, groups, wide=(4, 5))


def _recipes(results: Sequence[ScoredNetwork]) -> Html:
    """Each recipe once, a column for each, with the networks and folds that followed it."""
    kinds = _kinds((run.recipe, f"{one.network} fold {fold}") for one in results for fold, run in one.runs.items())
    if not kinds:
        return html_page.text("")
    rows = [
        (SETTINGS.get(f.name, f.name), *(_value(getattr(recipe, f.name)) for recipe, _ in kinds))
        for f in dataclasses.fields(Recipe)
    ]
    header = ("Setting", *("; ".join(names) for _, names in kinds))
    return html_page.table("Recipe: everything that decides a training beside the plan.", header, [("", rows)])


def _kinds(things: Iterable[tuple[T, str]]) -> list[tuple[T, list[str]]]:
    """Equal things once, each with the names that go with it."""
    kinds: list[tuple[T, list[str]]] = []
    for thing, name in things:
        same = next((names for kind, names in kinds if kind == thing), None)
        if same is None:
            kinds.append((thing, [name]))
        else:
            same.append(name)
    return kinds


# --- figures and words --------------------------------------------------------------------------------


def _figure(chart: Chart, number: int) -> Html:
    return html_page.figure(
        chart.image, "png", chart.alt, html_page.element("strong", f"Figure {number}. "), chart.caption
    )


def _picture(picture: Picture) -> Html:
    return html_page.figure(picture.image, "jpeg", picture.alt, picture.caption)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _span(summary: Summary) -> str:
    return table_text.span(summary.minimum, summary.maximum)


def _listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
