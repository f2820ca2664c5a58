"""Table 1 of the paper, from voxel counts per case, as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dvtplan.core.text import plural
from dvtplan.evaluation import table_text
from dvtplan.evaluation.confusion import EMPTY_MASK_RULE, Confusion
from dvtplan.evaluation.summary_statistics import INTERVAL_RULE, Summary, summarize

if TYPE_CHECKING:
    import pandas as pd

SCORES = {"dsc": "DSC", "precision": "Precision", "recall": "Recall"}
"""Columns of the table, with the paper's order and titles."""

HEADER = ("", "", *SCORES.values())
"""Header of every printed form."""

STATISTICS: dict[str, Callable[[Summary], str]] = {
    "Mean ± SD": lambda s: table_text.mean_sd(s.mean, s.sd),
    "Median": lambda s: table_text.number(s.median),
    "Range": lambda s: table_text.span(s.minimum, s.maximum),
    "95 % CI of the mean": lambda s: table_text.interval(s.ci_low, s.ci_high),
}
"""Rows of one region: name -> text of one score. The paper has the first three."""

COUNTS = ["tp", "fp", "fn", "truth_ml", "predicted_ml", "false_positive_ml"]
"""Columns that add up over the cases of a patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionScores:
    """One region over all patients."""

    region: str
    scores: dict[str, Summary]
    """A summary per key of ``SCORES``, over the patients with truth in the region."""
    without_truth: int
    """Patients without truth in the region; they are not in the scores."""
    false_positive_ml: float
    """Total volume predicted in the region for these patients."""

    @property
    def n(self) -> int:
        """Patients in the scores."""
        return self.scores["dsc"].n


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Table 1 with the notes that define its numbers."""

    caption: str
    regions: tuple[RegionScores, ...]
    notes: tuple[str, ...]
    rule: str
    """Name and meaning of the region rule."""
    folds: str
    """Which folds were scored, as in 'folds 0, 2 of 8'."""


def by_patient(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the counts of each patient's cases, then score.

    The patient is the unit. A mean over cases would weigh a patient with two scans twice, and its confidence interval
    would be too narrow.

    Args:
        rows: one per (case, region), with patient_id, region and ``COUNTS``.

    Returns:
        One row per (region, patient) in order of appearance: ``COUNTS``, the scores, and ``counted`` (the patient has
        truth in the region). Where ``counted`` is false, the scores are NaN.
    """
    pooled = rows.groupby(["region", "patient_id"], sort=False, as_index=False)[COUNTS].sum()
    counts = [Confusion(*map(int, row)) for row in pooled[["tp", "fp", "fn"]].itertuples(index=False)]
    for score in SCORES:
        pooled[score] = [float(getattr(c, score)) for c in counts]
    pooled["counted"] = [c.truth > 0 for c in counts]
    return pooled


def table_1(rows: pd.DataFrame, *, subject: str, rule: str, folds: str, notes: tuple[str, ...] = ()) -> Table:
    """Summarize scores per region as in Table 1 of Huang 2019.

    The unit is the patient, in each region. The paper's rows are headed "56 lesions", "43 lesions" and "All 58
    lesions" of 58 patients, so at least its last row has the same unit.

    Args:
        rows: as for ``by_patient``, with case_id; regions keep their order of appearance.
        subject: what was scored, for the caption.
        rule: name and meaning of the region rule.
        folds: which folds were scored, as in 'folds 0, 2 of 8'.
        notes: further footnotes.
    """
    pooled = by_patient(rows)
    regions = [region_scores(str(region), patients) for region, patients in pooled.groupby("region", sort=False)]
    return Table(
        caption=f"Table 1. Segmentation performance by region: {subject}.",
        regions=tuple(regions),
        notes=(
            f"Region rule: {rule}.",
            f"Scored: {folds}.",
            f"n: patients with truth in the region, of {plural(rows['patient_id'].nunique(), 'patient')} with "
            f"{plural(rows['case_id'].nunique(), 'case')}; the voxel counts of a patient's cases are pooled before "
            "scoring.",
            f"{INTERVAL_RULE}.",
            EMPTY_MASK_RULE,
            "Patients without truth, and what was predicted for them in total (false positive): "
            f"{'; '.join(f'{r.region} {r.without_truth}, {r.false_positive_ml:.2f} mL' for r in regions)}.",
            *notes,
        ),
        rule=rule,
        folds=folds,
    )


def region_scores(region: str, patients: pd.DataFrame) -> RegionScores:
    """Summarize one region over some patients, which are rows of ``by_patient``."""
    counted, others = patients[patients["counted"]], patients[~patients["counted"]]
    return RegionScores(
        region=region,
        scores={score: summarize(counted[score]) for score in SCORES},
        without_truth=len(others),
        false_positive_ml=float(others["false_positive_ml"].sum()),
    )


def to_csv(table: Table) -> str:
    """Format one line per (region, score) in full precision; undefined numbers are empty."""
    lines = [
        {
            "region": region.region,
            "score": score,
            **{name: getattr(summary, name) for name in Summary.__dataclass_fields__},
            "patients": region.n + region.without_truth,
            "patients_without_truth": region.without_truth,
            "false_positive_ml_without_truth": region.false_positive_ml,
            "rule": table.rule,
            "folds": table.folds,
            "empty_masks": EMPTY_MASK_RULE,
            "interval": INTERVAL_RULE,
        }
        for region in table.regions
        for score, summary in region.scores.items()
    ]
    import pandas as pd

    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def to_text(table: Table) -> str:
    """Format the table for a terminal, in the paper's layout, with wrapped notes."""
    return table_text.text_table(table.caption, [HEADER, *_all_rows(table)], table.notes)


def to_markdown(table: Table) -> str:
    """Format the table in Markdown."""
    return table_text.markdown_table(table.caption, [HEADER, *_all_rows(table)], table.notes)


def to_latex(table: Table) -> str:
    """Format the table as a LaTeX table environment."""
    return table_text.latex_table(
        table.caption.removeprefix("Table 1. "),
        " & & " + " & ".join(SCORES.values()),
        map(region_rows, table.regions),
        table.notes,
        columns="ll" + "c" * len(SCORES),
    )


def region_rows(region: RegionScores) -> list[tuple[str, ...]]:
    """Return the cells of one region, a row per statistic, as every form of the table prints them.

    A row holds the name and n of the region (in the first row only), the statistic's name, and its value for each
    score.
    """
    heads = [f"{region.region} (n = {region.n})"] + [""] * (len(STATISTICS) - 1)
    return [
        (head, statistic, *map(text, region.scores.values()))
        for head, (statistic, text) in zip(heads, STATISTICS.items(), strict=True)
    ]


def _all_rows(table: Table) -> list[tuple[str, ...]]:
    return [row for region in table.regions for row in region_rows(region)]
