"""Table 1 of the paper, from voxel counts per case: as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from dvtplan.core.text import plural
from dvtplan.evaluation.confusion import EMPTY_MASK_RULE, Confusion
from dvtplan.evaluation.summary_statistics import Summary, summarize
from dvtplan.evaluation.table_text import number, span, tex, wrapped

SCORES = {"dsc": "DSC", "precision": "Precision", "recall": "Recall"}
"""Columns of the table, in the paper's order and words."""

STATISTICS = ("Mean ± SD", "Median", "Range", "95 % CI of the mean")
"""Rows of one region; the paper has the first three."""

COUNTS = ["tp", "fp", "fn", "truth_ml", "predicted_ml", "false_positive_ml"]
"""What adds up over the cases of a patient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionScores:
    """One region over all patients."""

    region: str
    scores: dict[str, Summary]
    """A summary per key of ``SCORES``, over the patients with truth in the region."""
    without_truth: int
    """Patients without truth in the region; they are not in the scores."""
    false_positive_ml: float
    """What was predicted in the region for them, in total."""

    @property
    def n(self) -> int:
        """Patients in the scores."""
        return self.scores["dsc"].n


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Table 1 with everything that a reader needs to know which numbers these are."""

    caption: str
    regions: tuple[RegionScores, ...]
    notes: tuple[str, ...]
    rule: str
    """The split rule's name and meaning."""
    folds: str
    """What was scored, as in 'folds 0, 2 of 8'."""


def by_patient(rows: pd.DataFrame) -> pd.DataFrame:
    """Pool the cases of each patient, then score.

    A patient scanned twice is still one patient: a mean over cases would weigh that patient
    double and its interval would be too narrow. Counts are added, in voxels, before any score.

    Args:
        rows: one per (case, region), with patient_id, region and ``COUNTS``.

    Returns:
        One row per (region, patient) in order of appearance: ``COUNTS``, the scores, and whether
        it is ``counted`` (has truth in the region). Scores are not a number where it is not.
    """
    pooled = rows.groupby(["region", "patient_id"], sort=False, as_index=False)[COUNTS].sum()
    counts = [Confusion(*map(int, row)) for row in pooled[["tp", "fp", "fn"]].itertuples(index=False)]
    for score in SCORES:
        pooled[score] = [float(getattr(c, score)) for c in counts]
    pooled["counted"] = [c.truth > 0 for c in counts]
    return pooled


def table_1(rows: pd.DataFrame, *, subject: str, rule: str, folds: str, notes: tuple[str, ...] = ()) -> Table:
    """Summarize scores per region as in Table 1 of Huang 2019.

    The unit is the patient, in each region. The paper's rows are headed "56 lesions", "43
    lesions" and "All 58 lesions" of 58 patients, so at least its last row has the same unit.

    Args:
        rows: as ``by_patient`` takes them, with case_id; regions come in order of appearance.
        subject: whose masks were scored, for the caption.
        rule: name and meaning of the rule that divides masks into regions.
        folds: what was scored, as in 'folds 0, 2 of 8'.
        notes: further footnotes.
    """
    pooled = by_patient(rows)
    regions = []
    for region, patients in pooled.groupby("region", sort=False):
        counted, others = patients[patients["counted"]], patients[~patients["counted"]]
        regions.append(
            RegionScores(
                region=str(region),
                scores={score: summarize(counted[score]) for score in SCORES},
                without_truth=len(others),
                false_positive_ml=float(others["false_positive_ml"].sum()),
            )
        )
    return Table(
        caption=f"Table 1. Segmentation performance by region: {subject}.",
        regions=tuple(regions),
        notes=(
            f"Regions by rule {rule}.",
            f"Scored: {folds}.",
            f"n: patients with truth in the region, of {plural(rows['patient_id'].nunique(), 'patient')} with "
            f"{plural(rows['case_id'].nunique(), 'case')}; the voxel counts of a patient's cases are pooled before "
            "scoring. The 95 % CI is the t-interval of the mean and is not clipped.",
            EMPTY_MASK_RULE,
            "Patients without truth, and what was predicted for them in total (false positive): "
            f"{'; '.join(f'{r.region} {r.without_truth}, {r.false_positive_ml:.2f} mL' for r in regions)}.",
            *notes,
        ),
        rule=rule,
        folds=folds,
    )


def to_csv(table: Table) -> str:
    """One line per (region, score) in full precision; empty where a number does not exist."""
    lines = [
        {
            "region": region.region,
            "score": score,
            **{name: getattr(summary, name) for name in Summary.__dataclass_fields__},
            "patients": region.n + region.without_truth,
            "patients_without_truth": region.without_truth,
            "their_false_positive_ml": region.false_positive_ml,
            "rule": table.rule,
            "folds": table.folds,
            "empty_masks": EMPTY_MASK_RULE,
        }
        for region in table.regions
        for score, summary in region.scores.items()
    ]
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def stored_rule(table: Path, name: str) -> str:
    """Name and meaning of the rule that divided the masks, as Table 1 on disk tells it; else its name."""
    try:
        told = str(pd.read_csv(table)["rule"].iloc[0])
    except (OSError, ValueError, LookupError):
        return name
    return told if told.startswith(name) else name


def to_text(table: Table) -> str:
    """The table for a terminal, in the paper's layout, with its notes wrapped."""
    lines = [("", "", *SCORES.values()), *(line for region in table.regions for line in _lines(region))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [wrapped(note) for note in table.notes]
    return "\n".join([table.caption, "", *body, "", *notes]) + "\n"


def to_markdown(table: Table) -> str:
    """The table for a README or an issue."""
    header = ["|  |  | " + " | ".join(SCORES.values()) + " |", "|---" * (2 + len(SCORES)) + "|"]
    body = [
        "| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |"
        for region in table.regions
        for line in _lines(region)
    ]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"**{table.caption}**", "", *header, *body, "", *notes]) + "\n"


def to_latex(table: Table) -> str:
    """A table environment that needs no package."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{tex(table.caption.removeprefix('Table 1. '))}}}"]
    lines += [r"\begin{tabular}{ll" + "c" * len(SCORES) + "}", r"\hline"]
    lines += [" & & " + " & ".join(SCORES.values()) + r" \\"]
    for region in table.regions:
        lines += [r"\hline", *(" & ".join(tex(cell) for cell in line) + r" \\" for line in _lines(region))]
    lines += [r"\hline", r"\end{tabular}", "", r"\raggedright\footnotesize"]
    lines += [tex(note) + r"\par" for note in table.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _lines(region: RegionScores) -> list[tuple[str, ...]]:
    """The cells of one region: its name and n, a statistic, and that statistic of each score."""
    columns = [_cells(summary) for summary in region.scores.values()]
    heads = [f"{region.region} (n = {region.n})"] + [""] * (len(STATISTICS) - 1)
    return [(head, *cells) for head, *cells in zip(heads, STATISTICS, *columns, strict=True)]


def _cells(summary: Summary) -> tuple[str, ...]:
    """One score as ``STATISTICS`` names it; two decimals, as in the paper."""
    return (
        f"{number(summary.mean)} ± {number(summary.sd)}",
        number(summary.median),
        span(summary.minimum, summary.maximum),
        span(summary.ci_low, summary.ci_high),
    )
