"""Table 1 per group of patients, such as centres, with a test of the difference, as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dvtplan.core import console
from dvtplan.core.text import shorten_list
from dvtplan.data.names import same_names
from dvtplan.data.patient_groups import NO_GROUP, PatientGroups, read_patient_groups
from dvtplan.evaluation import group_tests, paired_tests, table1, table_text
from dvtplan.evaluation.confusion import EMPTY_MASK_RULE
from dvtplan.evaluation.pairing import Pair
from dvtplan.evaluation.summary_statistics import INTERVAL_RULE, Summary
from dvtplan.evaluation.table1 import SCORES, RegionScores
from dvtplan.evaluation.table2 import p_text

if TYPE_CHECKING:
    import pandas as pd

NAME = "table1_by_group"
"""Of the files, without their endings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTest:
    """A test of the difference between the groups in one region and score."""

    n: int
    """Patients with truth in the region, in the groups that are compared."""
    groups: int
    """Groups with such patients; ``NO_GROUP`` is not compared."""
    p: float
    """NaN with fewer than two groups, or if all scores are equal."""
    p_holm: float
    """Corrected over the regions of this score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionByGroup:
    """One region over all groups."""

    region: str
    groups: dict[str, RegionScores]
    """By group, in their order."""
    tests: dict[str, GroupTest]
    """By key of ``SCORES``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTable:
    """Table 1 per group, with the notes that define its numbers."""

    caption: str
    column: str
    """Of ``cases.csv``."""
    regions: tuple[RegionByGroup, ...]
    notes: tuple[str, ...]
    rule: str
    """Name and meaning of the region rule."""
    folds: str
    """Which folds were scored."""

    @property
    def header(self) -> tuple[str, ...]:
        """Header of every printed form."""
        return ("", self.column, "n", *SCORES.values())


def read_groups(cases_table: Path, column: str, pairs: Iterable[Pair]) -> PatientGroups:
    """Read the groups of the patients to score; patients without a group are a warning.

    Raises:
        DvtError: as ``read_patient_groups``.
    """
    found = read_patient_groups(cases_table, column, {pair.case_id: pair.patient for pair in pairs}, "by")
    if found.ungrouped:
        console.warn(
            f"{cases_table}: no {column} of the patients {shorten_list(found.ungrouped)}. They form the group "
            f"{NO_GROUP}, which is not compared."
        )
    for same in same_names(found.names):
        console.warn(f"{cases_table}: the values {shorten_list(same)} of {column} differ only in case. Write one.")
    return found


def summarize_groups(
    rows: pd.DataFrame, groups: PatientGroups, *, subject: str, rule: str, folds: str, notes: tuple[str, ...] = ()
) -> GroupTable:
    """Summarize scores per region and group, and test the difference between the groups.

    The unit is the patient, as in Table 1. Patients without a group are summarized, but not compared.

    Args:
        rows: as for ``table1.by_patient``; every patient has a group.
        groups: of the patients.
        subject: what was scored, for the caption.
        rule: name and meaning of the region rule.
        folds: which folds were scored.
        notes: further footnotes.
    """
    pooled = table1.by_patient(rows)
    pooled["group"] = pooled["patient_id"].map(groups.group_of)
    names = [name for name in groups.names if bool((pooled["group"] == name).any())]
    regions = _corrected([_region(str(name), part, names) for name, part in pooled.groupby("region", sort=False)])
    sizes = pooled.groupby("group")["patient_id"].nunique()
    unknown = f" {NO_GROUP}: no value of {groups.column}; not compared." if NO_GROUP in names else ""
    return GroupTable(
        caption=f"Table 1 by {groups.column}. Segmentation performance by region and {groups.column}: {subject}.",
        column=groups.column,
        regions=regions,
        notes=(
            f"Mean ± SD over patients. Patients by {groups.column}: "
            f"{', '.join(f'{name}: {sizes[name]}' for name in names)}. n: those with truth in the region.{unknown}",
            f"p: {group_tests.RULE}. Groups without such patients are left out; n of the row of p: patients compared.",
            f"Region rule: {rule}.",
            f"Scored: {folds}.",
            EMPTY_MASK_RULE,
            *notes,
        ),
        rule=rule,
        folds=folds,
    )


def _region(region: str, pooled: pd.DataFrame, names: list[str]) -> RegionByGroup:
    """Summarize one region; the tests are not corrected yet."""
    parts = {name: pooled[pooled["group"] == name] for name in names}
    counted = {name: part[part["counted"]] for name, part in parts.items() if name != NO_GROUP}
    compared = [part for part in counted.values() if len(part)]
    n = sum(map(len, compared))
    tests = {}
    for score in SCORES:
        p = group_tests.compare_groups([part[score].tolist() for part in compared])
        tests[score] = GroupTest(n=n, groups=len(compared), p=p, p_holm=math.nan)
    groups = {name: table1.region_scores(region, part) for name, part in parts.items()}
    return RegionByGroup(region=region, groups=groups, tests=tests)


def _corrected(regions: list[RegionByGroup]) -> tuple[RegionByGroup, ...]:
    """Correct the tests of each score over the regions."""
    holm = {score: paired_tests.holm([region.tests[score].p for region in regions]) for score in SCORES}
    return tuple(
        replace(
            region, tests={score: replace(test, p_holm=holm[score][i]) for score, test in region.tests.items()}
        )
        for i, region in enumerate(regions)
    )  # fmt: skip


def to_csv(table: GroupTable) -> str:
    """Format one line per (region, group, score) in full precision; undefined numbers are empty."""
    lines = [
        {
            "column": table.column,
            "region": region.region,
            "group": group,
            "score": score,
            **{name: getattr(summary, name) for name in Summary.__dataclass_fields__},
            "patients": scores.n + scores.without_truth,
            "patients_without_truth": scores.without_truth,
            "false_positive_ml_without_truth": scores.false_positive_ml,
            "test": group_tests.name_test(region.tests[score].groups),
            "n_compared": region.tests[score].n,
            "groups_compared": region.tests[score].groups,
            "p": region.tests[score].p,
            "p_holm": region.tests[score].p_holm,
            "rule": table.rule,
            "folds": table.folds,
            "empty_masks": EMPTY_MASK_RULE,
            "interval": INTERVAL_RULE,
        }
        for region in table.regions
        for group, scores in region.groups.items()
        for score, summary in scores.scores.items()
    ]
    import pandas as pd

    return pd.DataFrame(lines).to_csv(index=False, lineterminator="\n")


def to_text(table: GroupTable) -> str:
    """Format the table for a terminal, with wrapped notes."""
    return table_text.text_table(table.caption, [table.header, *_all_rows(table)], table.notes)


def to_markdown(table: GroupTable) -> str:
    """Format the table in Markdown."""
    return table_text.markdown_table(table.caption, [table.header, *_all_rows(table)], table.notes)


def to_latex(table: GroupTable) -> str:
    """Format the table as a LaTeX table environment."""
    return table_text.latex_table(
        table.caption.partition(". ")[2],
        " & ".join(map(table_text.tex, table.header)),
        map(region_rows, table.regions),
        table.notes,
        columns="llr" + "c" * len(SCORES),
    )


def all_files(table: GroupTable) -> Mapping[str, str]:
    """Return file name -> text of every form that is written."""
    return {f"{NAME}.csv": to_csv(table), f"{NAME}.md": to_markdown(table), f"{NAME}.tex": to_latex(table)}


FILES = (f"{NAME}.csv", f"{NAME}.md", f"{NAME}.tex")
"""Names of these files."""


def region_rows(region: RegionByGroup) -> list[tuple[str, ...]]:
    """Return the cells of one region: a row per group, then p and p Holm. The region is named in its first row."""
    rows = [
        (name, str(scores.n), *(table_text.mean_sd(s.mean, s.sd) for s in scores.scores.values()))
        for name, scores in region.groups.items()
    ]
    test = next(iter(region.tests.values()))
    rows.append((f"p {group_tests.name_test(test.groups)}", str(test.n), *(p_text(t.p) for t in region.tests.values())))
    rows.append(("p Holm", "", *(p_text(t.p_holm) for t in region.tests.values())))
    return [(region.region if i == 0 else "", *row) for i, row in enumerate(rows)]


def _all_rows(table: GroupTable) -> list[tuple[str, ...]]:
    return [row for region in table.regions for row in region_rows(region)]
