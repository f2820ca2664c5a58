"""Table 2 of the paper: several networks on the same patients, with tests, as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.evaluation import paired_tests, table1, table_text
from dvtplan.evaluation.confusion import EMPTY_MASK_RULE
from dvtplan.evaluation.paired_tests import Difference
from dvtplan.evaluation.summary_statistics import Summary, summarize
from dvtplan.evaluation.table1 import SCORES
from dvtplan.evaluation.table_text import TEXT_WIDTH

HEADER = ("", "", "Network", "Mean ± SD", "Range", "p", "p Holm", "Difference (CI)")
"""Columns of every printed form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One score of one network in one region."""

    summary: Summary
    """Over the patients with truth in the region."""
    difference: Difference | None
    """The reference less this network; none for the reference itself."""
    p_holm: float
    """Corrected over the networks compared in this region and score; not a number where there is no p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Table 2: per region, per network, per score."""

    caption: str
    reference: str
    """The network that the others are compared with."""
    entries: dict[str, dict[str, dict[str, Entry]]]
    """Region -> network -> key of ``tables.SCORES``."""
    notes: tuple[str, ...]
    by_fold: pd.DataFrame
    """A row per network, fold and region: n and the mean of each score."""


def table_2(
    rows: Mapping[str, pd.DataFrame], *, subject: str, rule: str, folds: str, notes: Sequence[str] = ()
) -> Comparison:
    """Compare networks with the first of them.

    Args:
        rows: network -> what ``metrics.csv`` holds for it; the first is the reference.
        subject: the data set, for the caption.
        rule: name and meaning of the rule that divides masks into regions.
        folds: what was scored, as in 'all 8 folds'.
        notes: what a reader must know beside it, as that the networks were not trained alike.

    Raises:
        DvtError: if there are fewer than two networks, or they were not scored on the same cases of the
            same patients, each by the same fold.
    """
    if len(rows) < 2:
        raise DvtError("--compare: one network alone cannot be compared. Name two or more.")
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
            f"Regions by rule {rule}.",
            f"Scored: {folds}. n: patients with truth in the region.",
            EMPTY_MASK_RULE,
        ),
        by_fold=_by_fold(rows),
    )


def _require_pairs(reference: str, one: pd.DataFrame, name: str, other: pd.DataFrame) -> None:
    """Refuse what is not the same cases of the same patients in the same folds, with the same truth."""
    key = ["case_id", "region"]
    here, there = one.set_index(key), other.set_index(key)
    unpaired = sorted({case for case, _ in here.index.symmetric_difference(there.index)})
    regions = [list(dict.fromkeys(frame["region"])) for frame in (one, other)]
    if set(regions[0]) != set(regions[1]):
        raise DvtError(
            f"--compare: {reference} was scored in {', '.join(regions[0])}, {name} in {', '.join(regions[1])}. Score "
            "both with the same --split."
        )
    if unpaired:
        raise DvtError(
            f"--compare: {reference} and {name} were not scored on the same cases and regions: "
            f"{shorten_list(unpaired)}. "
            "Train and predict the same folds with both, or name those that both have with --folds."
        )
    there = there.loc[here.index]
    for column, what in (("patient_id", "patient"), ("fold", "fold"), ("rule", "rule")):
        differ = sorted({case for case, _ in here.index[here[column].astype(str) != there[column].astype(str)]})
        if differ:
            raise DvtError(
                f"--compare: {reference} and {name} name another {what} for {shorten_list(differ)}. Score both anew."
            )
    truth = [frame["tp"] + frame["fn"] for frame in (here, there)]
    # Where regions follow the prediction's own labels this still holds: truth is divided without looking at it.
    if bool((truth[0] != truth[1]).any()):
        changed = sorted({case for case, _ in here.index[truth[0] != truth[1]]})
        raise DvtError(
            f"--compare: {reference} and {name} had another truth in {shorten_list(changed)}. Score both anew."
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
        own = counted[reference][score]
        found[reference][score] = Entry(summary=summarize(own), difference=None, p_holm=math.nan)
        scores = {name: counted[name].loc[order, score] for name in others}
        differences = {name: paired_tests.compare_paired(list(own), list(values)) for name, values in scores.items()}
        corrected = paired_tests.holm([difference.p for difference in differences.values()])
        for (name, difference), p_holm in zip(differences.items(), corrected, strict=True):
            found[name][score] = Entry(summary=summarize(scores[name]), difference=difference, p_holm=p_holm)
    return found


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
    """One line per (region, network, score) in full precision; empty where a number does not exist."""
    lines = []
    for region, networks in comparison.entries.items():
        for name, scores in networks.items():
            for score, entry in scores.items():
                summary = {field: getattr(entry.summary, field) for field in Summary.__dataclass_fields__}
                line = {"region": region, "network": name, "score": score, **summary, "reference": comparison.reference}
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
    """The table for a terminal, with its notes wrapped."""
    lines = [HEADER, *_cells(comparison)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = [textwrap.fill(n, TEXT_WIDTH, break_long_words=False, break_on_hyphens=False) for n in comparison.notes]
    return "\n".join([comparison.caption, "", *text, "", *notes]) + "\n"


def to_markdown(comparison: Comparison) -> str:
    """The table for a README or an issue."""
    body = _cells(comparison)
    lines = ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in (HEADER, *body)]
    lines.insert(1, "|---" * len(HEADER) + "|")
    return "\n".join([f"**{comparison.caption}**", "", *lines, "", *(f"- {note}" for note in comparison.notes)]) + "\n"


def to_latex(comparison: Comparison) -> str:
    """A table environment that needs no package."""
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{table_text.tex(comparison.caption.removeprefix('Table 2. '))}}}",
    ]
    lines += [r"\begin{tabular}{lll" + "c" * (len(HEADER) - 3) + "}", r"\hline"]
    lines += [" & ".join(table_text.tex(cell) for cell in HEADER) + r" \\", r"\hline"]
    lines += [" & ".join(table_text.tex(cell) for cell in line) + r" \\" for line in _cells(comparison)]
    lines += [r"\hline", r"\end{tabular}", "", r"\raggedright\footnotesize"]
    lines += [table_text.tex(note) + r"\par" for note in comparison.notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _cells(comparison: Comparison) -> list[tuple[str, ...]]:
    """A line per region, score and network; region and score stand in the first line that they hold for."""
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
                numbers = (
                    f"{table_text.number(s.mean)} ± {table_text.number(s.sd)}",
                    table_text.span(s.minimum, s.maximum),
                )
                body.append((of, title, name, *numbers, *tested))
                of = title = ""
    return body


def p_text(p: float) -> str:
    """A p-value in three decimals; never a zero."""
    return "n/a" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def difference_text(difference: Difference) -> tuple[str, str]:
    """Estimate and interval in two decimals."""
    low, high = difference.ci_low, difference.ci_high
    return _signed(difference.estimate), "(no interval)" if math.isnan(low) else f"({_signed(low)} to {_signed(high)})"


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{table_text.unsigned_zero(value, 2):+.2f}"
