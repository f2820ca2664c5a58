"""What the report says: scored networks and drawn patients in, sections of a page out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pandas as pd

from dvtplan import comparison, journal, measures_table, page, tables
from dvtplan.comparison import Comparison
from dvtplan.errors import DvtError, how_many
from dvtplan.measures_table import MeasuresTable
from dvtplan.page import Html
from dvtplan.pictures import VIEWS, Picture
from dvtplan.records import PHANTOM_WARNING, Fold, Plan, Recipe, Run, Splits, alike
from dvtplan.regions import ALL
from dvtplan.statistics import Summary, summarize
from dvtplan.tables import SCORES, Table

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One network, scored."""

    network: str
    rows: pd.DataFrame
    """``metrics.csv``, of the folds that are reported."""
    folds: tuple[Fold, ...]
    plan: Plan
    runs: dict[int, Run]
    """By fold, where ``run.json`` is there."""
    table: Table
    """Table 1."""
    notes: tuple[str, ...]
    """What a reader must know before the numbers."""

    @property
    def measures(self) -> MeasuresTable:
        """The further measures."""
        return measures_table.summarize_measures(self.rows, rule=self.table.rule, folds=self.table.folds)

    @property
    def patients(self) -> pd.DataFrame:
        """A row per region and patient."""
        return tables.by_patient(self.rows)

    @property
    def whole(self) -> pd.DataFrame:
        """A row per patient, over all thrombus."""
        pooled = self.patients
        return pooled[pooled["region"] == ALL].reset_index(drop=True)

    @property
    def fold_of(self) -> dict[str, str]:
        """Patient -> the folds that tested the patient's cases; one, unless splits of one's own say otherwise."""
        by = self.rows.groupby("patient_id", sort=False)["fold"].unique()
        return {str(patient): ", ".join(map(str, sorted(folds))) for patient, folds in by.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with its words."""

    image: bytes
    """PNG."""
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Predicted against true volume (Bland and Altman 1986)."""

    bias: Summary
    """Of the differences, predicted less true, in mL."""

    @property
    def limits_ml(self) -> tuple[float, float]:
        """Limits of agreement: bias - and + 1.96 SD; not a number with one patient."""
        half = 1.96 * self.bias.sd
        return self.bias.mean - half, self.bias.mean + half

    @property
    def text(self) -> str:
        """All in one sentence."""
        low, high = self.limits_ml
        if math.isnan(low):
            return f"bias {_ml(self.bias.mean)}, no limits of agreement with n {self.bias.n}"
        return (
            f"bias {_ml(self.bias.mean)} (95 % CI {_ml(self.bias.ci_low)} to {_ml(self.bias.ci_high)}), limits of "
            f"agreement {_ml(low)} to {_ml(high)}, n {self.bias.n}"
        )


def agreement(whole: pd.DataFrame) -> Agreement:
    """Of all patients, those without truth included."""
    return Agreement(bias=summarize(whole["predicted_ml"] - whole["truth_ml"]))


# --- chapters -----------------------------------------------------------------------------------------


def opening(dataset: str, results: Sequence[Results], phantom: str | None, written: str) -> Html:
    """What stands above everything."""
    n = len({patient for one in results for patient in one.rows["patient_id"]})
    names = _listed([one.network for one in results])
    who, were = ("the networks", "they had") if len(results) > 1 else ("the network", "it had")
    told = [
        page.paragraph(
            f"How well {who} {names} found the thrombus of {how_many(n, 'patient')} of the data set {dataset} "
            f"that {were} not been trained on.",
            kind="lead",
        ),
        page.paragraph(written, kind="note"),
    ]
    if phantom is not None:
        told.insert(
            0,
            page.banner(
                f"Phantom data: images and truth were computed ({phantom}), none is of a patient. " + PHANTOM_WARNING
            ),
        )
    return page.join(told)


def glance(results: Sequence[Results]) -> Html:
    """Each network in a line, what is to be known first, and the words that are used."""
    rows = []
    for one in results:
        region = next(r for r in one.table.regions if r.region == ALL)
        dsc, agreed = region.scores["dsc"], agreement(one.whole)
        rows.append(
            (
                one.network,
                str(dsc.n),
                f"{tables.number(dsc.mean)} ± {tables.number(dsc.sd)}",
                tables.number(dsc.median),
                _span(dsc),
                f"{_ml(agreed.bias.mean)}\n({_ml(agreed.limits_ml[0])} to {_ml(agreed.limits_ml[1])})",
                one.table.folds,
            )
        )
    caption = (
        "All thrombus, per network. n: patients with thrombus. Volume: predicted less true, bias and limits of "
        "agreement (bias ± 1.96 SD)."
    )
    header = ("Network", "n", "DSC, mean ± SD", "Median", "Range", "Volume", "Scored")
    notes = [f"{one.network}: {note}" for one in results for note in one.notes]
    words = page.section("words", "Words", page.terms(TERMS), level=3)
    return page.section("glance", "At a glance", page.table(caption, header, [("", rows)]), page.bullets(notes), words)


def scores(results: Sequence[Results], comparisons: Sequence[Comparison], unpaired: Sequence[str]) -> Html:
    """Tables 1 and 2, and the further measures."""
    parts = [page.grid(*(_table_1(one.table) for one in results), kind="tables"), _shared_notes(results)]
    parts += [_table_2(one) for one in comparisons]
    parts += [page.paragraph(sentence) for sentence in unpaired]
    return page.section("tables", "Scores", *parts, _measures(results))


def compared(results: Sequence[Results], subject: str) -> tuple[list[Comparison], list[str]]:
    """Table 2 for every set of networks with the same folds and rule, and a sentence for each network that cannot be
    paired."""
    groups: dict[tuple[str, str], list[Results]] = {}
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
        notes = alike([run for one in group for run in one.runs.values()])
        try:
            rows = {one.network: one.rows for one in group}
            found.append(comparison.compare(rows, subject=subject, rule=rule, folds=folds, notes=notes))
        except DvtError as error:
            told.append(f"Table 2 leaves out {names}: {str(error).removeprefix('--compare: ')}")
    return found, told


def charts(drawn: Sequence[Chart], first: int) -> Html:
    """Numbered figures beside each other."""
    return page.grid(*(_figure(chart, number) for number, chart in enumerate(drawn, start=first)))


def figures(drawn: Sequence[Chart]) -> Html:
    """The charts of scores and volumes."""
    return page.section("figures", "Figures", charts(drawn, 1))


def making(results: Sequence[Results], splits: Splits, curves: Sequence[Chart], first: int) -> Html:
    """Plan, folds, training."""
    return page.section(
        "making",
        "How the networks were made",
        _plans(results),
        page.section("folds", "Folds", _folds(results, splits), level=3),
        page.section("training", "Training", _runs(results), _recipes(results), charts(curves, first), level=3),
    )


def patients(one: Results, others: Sequence[Results], chosen: Sequence[str], drawn: Sequence[Picture]) -> Html:
    """Every drawn patient, the worst first: scores of all networks, pictures of the first."""
    cases = one.rows.groupby("patient_id", sort=False)["case_id"].unique()
    ids = {patient: f"patient-{number}" for number, patient in enumerate(chosen, start=1)}
    whole, folds = one.whole.set_index("patient_id"), one.fold_of
    total = len(whole)
    leveled = any("level" in picture.caption for picture in drawn)
    intro = [
        f"{len(chosen)} of {how_many(total, 'patient')} are drawn"
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
    index = page.table(
        f"Patients that are drawn, with the scores of {one.network} over all thrombus. Volumes in mL.",
        ("Patient", "Fold", "DSC", "Truth", "Predicted"),
        [
            ("", [(page.link(ids[p], p), folds[p], *_index_cells(whole.loc[p])) for p in chosen]),
        ],
    )
    pooled = {other.network: other.patients for other in (one, *others)}
    sections = []
    for patient in chosen:
        back = page.element("span", page.link("patients", "Back to the list"), class_="back")
        shown = [_picture(picture) for picture in drawn if picture.case_id in set(cases[patient])]
        told = page.paragraph(f"Tested by fold {folds[patient]}. ", back, kind="note")
        body = page.grid(_patient_scores(patient, pooled), *shown)
        sections.append(page.section(ids[patient], patient, told, body, level=3, kind="patient"))
    return page.section("patients", "Patients", page.bullets(intro), index, *sections, kind="paged")


# --- tables of scores ---------------------------------------------------------------------------------


def _table_1(table: Table) -> Html:
    groups = []
    for region in table.regions:
        columns = [
            (
                f"{tables.number(s.mean)} ± {tables.number(s.sd)}",
                tables.number(s.median),
                _span(s),
                tables.span(s.ci_low, s.ci_high).replace("-", "−"),
            )
            for s in region.scores.values()
        ]
        groups.append((f"{region.region} (n {region.n})", list(zip(tables.STATISTICS, *columns, strict=True))))
    header = ("Statistic", *(SCORES.get(score, score) for score in table.regions[0].scores))
    return page.table(table.caption, header, groups)


def _shared_notes(results: Sequence[Results]) -> Html:
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
                lines = [f"{tables.number(s.mean)} ± {tables.number(s.sd)}", _span(s)]
                lines += [] if d is None else [f"p {comparison.p_text(d.p)}; Holm {comparison.p_text(entry.p_holm)}"]
                cells.append("\n".join(lines))
            d = entries["dsc"].difference
            told = "reference" if d is None else "\n".join(comparison.difference_text(d)).replace("-", "−")
            rows.append((*cells, told))
        n = next(iter(networks[table.reference].values())).summary.n
        groups.append((f"{region} (n {n})", rows))
    titles = [SCORES.get(score, score) for score in next(iter(table.entries.values()))[table.reference]]
    caption = (
        f"{table.caption} Each cell: mean ± SD, range, and p of the difference from {table.reference}, raw and "
        f"corrected (Holm). Last column: DSC of {table.reference} less that of the network, with its interval."
    )
    return page.join((page.table(caption, ("Network", *titles, "DSC difference"), groups), _notes(table.notes)))


def _measures(results: Sequence[Results]) -> Html:
    """What the field asks for beside DSC, precision and recall: a row per measure, a column per network."""
    told = [one.measures for one in results]
    by_region = [{region.region: region for region in table.regions} for table in told]
    tolerances = [f"{table.tolerance_mm:g} mm" for table in told]
    groups = []
    for name in dict.fromkeys(name for regions in by_region for name in regions):
        columns = [measures_table.cells(regions[name]) if name in regions else {} for regions in by_region]
        titles = {key: title.format(tolerance=tolerances[0]) for key, title in measures_table.LINES.items()}
        if len(set(tolerances)) > 1:  # scored one by one: no row may set side by side what cannot be compared
            titles["surface_dice"] = measures_table.LINES["surface_dice"].format(tolerance="its tolerance")
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
    table = page.table(caption, ("Measure", *(one.network for one in results)), groups)
    notes = (measures_table.DEFINITIONS, measures_table.POOLING_RULE, measures_table.EMPTY_MEASURES_RULE)
    return page.section("measures", "Further measures", table, _notes(notes), level=3)


def _patient_scores(patient: str, pooled: Mapping[str, pd.DataFrame]) -> Html:
    groups = []
    for network, patients in pooled.items():
        mine = patients[patients["patient_id"] == patient]
        rows = [
            (
                str(row["region"]),
                *(tables.number(row[score]) for score in SCORES),
                f"{row['truth_ml']:.1f}",
                f"{row['predicted_ml']:.1f}",
            )
            for _, row in mine.iterrows()
        ]
        groups.append((network, rows or [("not scored", *[""] * (len(SCORES) + 2))]))
    caption = f"{patient}: scores over all slices, and volumes in mL; n/a: no truth in the region."
    return page.table(caption, ("Region", *SCORES.values(), "Truth", "Predicted"), groups)


def _index_cells(row: Any) -> tuple[str, ...]:
    return tables.number(row["dsc"]), f"{row['truth_ml']:.1f}", f"{row['predicted_ml']:.1f}"


def _notes(notes: Iterable[str]) -> Html:
    return page.join(page.paragraph(note, kind="note") for note in notes)


# --- how it was made ----------------------------------------------------------------------------------


def _plans(results: Sequence[Results]) -> Html:
    """Each plan once, with the networks that were trained by it."""
    parts = [
        page.table(
            f"The plan of {_listed(names)} (preset {plan.preset}): each decision with its reason.",
            ("Decision", "Chosen", "Reason"),
            [("", [(DECISIONS.get(key, key), _decided(plan, key), reason) for key, reason in plan.because.items()])],
            wide=(1, 2),
        )
        for plan, names in _kinds((one.plan, one.network) for one in results)
    ]
    return page.section("plan", "Plan", *parts, level=3)


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
        return how_many(len(plan.variants), "variant")
    return _value(getattr(plan, key, ""))


def _folds(results: Sequence[Results], splits: Splits) -> Html:
    scored = {fold.index: [o.network for o in results if fold in o.folds] for fold in splits.folds}
    rows = [
        (str(f.index), str(len(f.train)), str(len(f.test)), _listed(scored[f.index]) or "none", ", ".join(f.test))
        for f in splits.folds
    ]
    caption = f"Folds ({splits.source}), in numbers of cases. No patient is both trained on and tested in a fold."
    return page.table(caption, ("Fold", "Trained on", "Tested", "Scored here", "Test cases"), [("", rows)], wide=(3, 4))


def _runs(results: Sequence[Results]) -> Html:
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
                    f"{run.recipe.name}, {run.epochs_done} of {how_many(run.recipe.epochs, 'epoch')}",
                    f"{run.parameters:,}",
                    f"{journal.duration(run.seconds)}\n{run.waiting_share:.0%} waiting for data",
                    f"{run.setup} {how_many(run.processes, 'process', 'processes')}.",
                    f"{run.started}\n{versions}",
                )
            )
        groups.append((one.network, rows))
    header = ("Fold", "Recipe", "Parameters", "Training time", "Machine", "Begun, versions")
    return page.table("Training of each network and fold (run.json).", header, groups, wide=(4, 5))


def _recipes(results: Sequence[Results]) -> Html:
    """Each recipe once, a column for each, with the networks and folds that followed it."""
    kinds = _kinds((run.recipe, f"{one.network} fold {fold}") for one in results for fold, run in one.runs.items())
    if not kinds:
        return page.text("")
    rows = [
        (SETTINGS.get(f.name, f.name), *(_value(getattr(recipe, f.name)) for recipe, _ in kinds))
        for f in dataclasses.fields(Recipe)
    ]
    header = ("Setting", *("; ".join(names) for _, names in kinds))
    return page.table("Recipe: everything that decides a training beside the plan.", header, [("", rows)])


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
    return page.figure(chart.image, "png", chart.alt, page.element("strong", f"Figure {number}. "), chart.caption)


def _picture(picture: Picture) -> Html:
    return page.figure(picture.image, "jpeg", picture.alt, picture.caption)


def _value(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_value, value)) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _span(summary: Summary) -> str:
    return tables.span(summary.minimum, summary.maximum)


def _ml(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{tables.unsigned_zero(value, 1):+.1f} mL".replace("-", "−")


def _listed(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
