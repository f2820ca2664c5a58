"""Table 2 of the paper: several networks on the same patients, with tests, as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import pandas as pd

from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.evaluation import paired_tests, table1, table_text
from dvtplan.evaluation.confusion import EMPTY_MASK_RULE, Confusion
from dvtplan.evaluation.paired_tests import Difference
from dvtplan.evaluation.summary_statistics import INTERVAL_RULE, Summary, summarize
from dvtplan.evaluation.table1 import SCORES

HEADER = ("", "", "Network", "Mean ± SD", "Range", "p", "p Holm", "Difference (CI)")
"""Header of every printed form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One score of one network in one region."""

    summary: Summary
    """Over the patients with truth in the region."""
    difference: Difference | None
    """The reference minus this network; None for the reference itself."""
    p_holm: float
    """Corrected over the networks compared in this region and score; NaN if there is no p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Table 2: per region, per network, per score."""

    caption: str
    reference: str
    """The network that the others are compared with."""
    entries: dict[str, dict[str, dict[str, Entry]]]
    """Region -> network -> key of ``table1.SCORES``."""
    notes: tuple[str, ...]
    by_fold: pd.DataFrame
    """A row per network, fold and region: n and the mean of each score."""


def table_2(
    rows: Mapping[str, pd.DataFrame], *, subject: str, rule: str, folds: str, notes: Sequence[str] = ()
) -> Comparison:
    """Compare networks with the first of them.

    Args:
        rows: network -> its ``metrics.csv``; the first is the reference.
        subject: the data set, for the caption.
        rule: name and meaning of the region rule.
        folds: which folds were scored, as in 'all 8 folds'.
        notes: further notes, such as that the networks were trained differently.

    Raises:
        DvtError: if there are fewer than two networks, or they were not scored on the same cases of the
            same patients, each by the same fold.
    """
    if len(rows) < 2:
        raise DvtError("A single network cannot be compared. Name two or more.")
    reference, *others = rows
    for name in others:
        _require_pairs(reference, rows[reference], name, rows[name])
    pooled = {name: table1.by_patient(frame) for name, frame in rows.items()}
    regions = list(dict.fromkeys(pooled[reference]["region"]))
    entries = {region: _entries(region, reference, pooled) for region in regions}
    zeros = [
        f"{region} {SCORES[score]} {name} {entry.difference.zeros}"
        for region, networks in entries.items()
        for name, scores in networks.items()
        for score, entry in scores.items()
        if entry.difference is not None and entry.difference.zeros
    ]
    return Comparison(
        caption=f"Table 2. Comparison of networks: {subject}.",
        reference=reference,
        entries=entries,
        notes=(
            *notes,
            f"p: {reference} against each other network; {paired_tests.RULE}.",
            f"Zero differences: {'; '.join(zeros) or 'none'}.",
            f"Region rule: {rule}.",
            f"Scored: {folds}. n: patients with truth in the region.",
            EMPTY_MASK_RULE,
        ),
        by_fold=_by_fold(rows),
    )


def _require_pairs(reference: str, one: pd.DataFrame, name: str, other: pd.DataFrame) -> None:
    """Refuse networks that were not scored on the same cases, patients, folds and truth."""
    key = ["case_id", "region"]
    here, there = one.set_index(key), other.set_index(key)
    unpaired = sorted({case for case, _ in here.index.symmetric_difference(there.index)})
    regions = [list(dict.fromkeys(frame["region"])) for frame in (one, other)]
    if set(regions[0]) != set(regions[1]):
        raise DvtError(
            f"{reference} was scored in {shorten_list(regions[0])}, {name} in {shorten_list(regions[1])}. Score both "
            "with the same `split`."
        )
    if unpaired:
        raise DvtError(
            f"{reference} and {name} were not scored on the same cases and regions: {shorten_list(unpaired)}. Train "
            "and predict the same folds with both, or choose the folds that both have with `folds`."
        )
    there = there.loc[here.index]
    for column, what in (("patient_id", "patient"), ("fold", "fold"), ("rule", "rule")):
        differ = sorted({case for case, _ in here.index[here[column].astype(str) != there[column].astype(str)]})
        if differ:
            raise DvtError(
                f"{reference} and {name} have a different {what} for {shorten_list(differ)}. Score both again."
            )
    truth = [frame["tp"] + frame["fn"] for frame in (here, there)]
    # This also holds if regions follow the prediction's own labels: the truth is divided independently.
    if bool((truth[0] != truth[1]).any()):
        changed = sorted({case for case, _ in here.index[truth[0] != truth[1]]})
        raise DvtError(
            f"{reference} and {name} were scored with a different truth of {shorten_list(changed)}. Score both again."
        )


def _entries(region: str, reference: str, pooled: Mapping[str, pd.DataFrame]) -> dict[str, dict[str, Entry]]:
    counted = {}
    for name, frame in pooled.items():
        here = frame[(frame["region"] == region) & frame["counted"]]
        counted[name] = here.set_index("patient_id")
    order = counted[reference].index
    others = [name for name in pooled if name != reference]
    found: dict[str, dict[str, Entry]] = {name: {} for name in pooled}
    for score in SCORES:
        found[reference][score] = Entry(summary=summarize(counted[reference][score]), difference=None, p_holm=math.nan)
        scores = {name: counted[name].loc[order, score] for name in others}
        own = _exact(counted[reference], score)
        differences = {
            name: paired_tests.compare_paired(own, _exact(counted[name].loc[order], score)) for name in others
        }
        corrected = paired_tests.holm([difference.p for difference in differences.values()])
        for (name, difference), p_holm in zip(differences.items(), corrected, strict=True):
            found[name][score] = Entry(summary=summarize(scores[name]), difference=difference, p_holm=p_holm)
    return found


def _exact(patients: pd.DataFrame, score: str) -> list[Fraction]:
    """Return the scores without rounding, from the voxel counts."""
    counts = patients[["tp", "fp", "fn"]].itertuples(index=False)
    return [Confusion(*map(int, row)).exact(score) for row in counts]


def _by_fold(rows: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    lines = []
    for name, frame in rows.items():
        for fold, part in frame.groupby("fold", sort=True):
            for region, patients in table1.by_patient(part).groupby("region", sort=False):
                scored = patients[patients["counted"]]
                means = {score: scored[score].mean() for score in SCORES}
                lines.append({"network": name, "fold": fold, "region": region, "n": len(scored), **means})
    return pd.DataFrame(lines, columns=["network", "fold", "region", "n", *SCORES])


def to_csv(comparison: Comparison) -> str:
    """Format one line per (region, network, score) in full precision; undefined numbers are empty."""
    lines = []
    for region, networks in comparison.entries.items():
        for name, scores in networks.items():
            for score, entry in scores.items():
                summary = {field: getattr(entry.summary, field) for field in Summary.__dataclass_fields__}
                line = {"region": region, "network": name, "score": score, **summary, "reference": comparison.reference}
                line["interval"] = INTERVAL_RULE
                if entry.difference is not None:
                    difference = entry.difference
                    line |= {
                        "p": difference.p,
                        "p_holm": entry.p_holm,
                        "zero_differences": difference.zeros,
                        "difference": difference.estimate,
                        "difference_ci_low": difference.ci_low,
                        "difference_ci_high": difference.ci_high,
                        "difference_ci_coverage": difference.coverage,
                    }
                lines.append(line)
    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def to_text(comparison: Comparison) -> str:
    """Format the table for a terminal, with wrapped notes."""
    return table_text.text_table(comparison.caption, [HEADER, *_rows(comparison)], comparison.notes)


def to_markdown(comparison: Comparison) -> str:
    """Format the table in Markdown."""
    return table_text.markdown_table(comparison.caption, [HEADER, *_rows(comparison)], comparison.notes)


def to_latex(comparison: Comparison) -> str:
    """Format the table as a LaTeX table environment."""
    return table_text.latex_table(
        comparison.caption.removeprefix("Table 2. "),
        " & ".join(map(table_text.tex, HEADER)),
        [_rows(comparison)],
        comparison.notes,
        columns="lll" + "c" * (len(HEADER) - 3),
        style=r"\centering\small",
    )


def _rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """Return a row per region, score and network. Region and score are named in their first row only."""
    body = []
    for region, networks in comparison.entries.items():
        of = f"{region} (n = {next(iter(networks[comparison.reference].values())).summary.n})"
        for score, title in SCORES.items():
            for name, entries in networks.items():
                entry = entries[score]
                s, d = entry.summary, entry.difference
                tested = ["", "", ""]
                if d is not None:
                    tested = [p_text(d.p), p_text(entry.p_holm), " ".join(difference_text(d))]
                numbers = (table_text.mean_sd(s.mean, s.sd), table_text.span(s.minimum, s.maximum))
                body.append((of, title, name, *numbers, *tested))
                of = title = ""
    return body


def p_text(p: float) -> str:
    """Format a p-value with three decimals, never as zero."""
    return "n/a" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def difference_text(difference: Difference) -> tuple[str, str]:
    """Format estimate and interval with two decimals."""
    low, high = difference.ci_low, difference.ci_high
    return _signed(difference.estimate), "(no interval)" if math.isnan(low) else f"({_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{table_text.unsigned_zero(value, 2):+.2f}"
