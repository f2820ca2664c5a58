"""Options of the findings: what to write about each scan, and where its levels come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dvtplan.anatomy.levels import Levels
from dvtplan.core.errors import DvtError
from dvtplan.data.cases_table import read_cases_table


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingsOptions:
    """What to write about each scan next to its mask, and where its levels come from."""

    record: bool = True
    """Write ``ID_findings.json``; otherwise only the levels are resolved."""
    summary: bool = False
    """Also write the summary page as HTML, PDF and PNG."""
    levels_table: Mapping[str, Levels | None] = field(default_factory=dict)
    """Levels by case, or by name of the mask; first choice."""
    level: Levels | None = None
    """Levels of all other scans; second choice."""
    estimate_levels: bool = False
    """Find the knee in the image of scans that still have no level."""
    levels_path: Path | None = None
    """File of ``levels_table``, for warnings about rows; None for no such warnings."""
    measured: bool = False
    """The masks will be measured, so edited masks are checked."""
    input_warnings: tuple[str, ...] = ()
    """Warnings about the input, before all others."""

    def recorded(self) -> dict[str, str]:
        """Return the options that are set, as text for the record of the masks."""
        values = {"findings": self.record, "summary": self.summary, "level": self.level and self.level.both_mm}
        return {name: str(value) for name, value in values.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """What to report about the masks."""

    findings: bool = False
    """Write ``ID_findings.json`` next to each mask."""
    summary: bool = False
    """Write ``ID_summary.html``, ``.pdf`` and ``.png`` next to each mask; includes ``findings``."""
    burden: Path | None = None
    """CSV file for the thrombus burden of all scans."""
    levels_table: Path | None = None
    """CSV file with levels by case."""
    level: tuple[float, ...] | None = None
    """LPS z in mm of the level in both limbs, or (left, right)."""
    levels: bool = True
    """Whether to divide the limbs into proximal and distal."""

    def __post_init__(self) -> None:
        for name in ("levels_table", "level"):
            if getattr(self, name) is None:
                continue
            if not self.levels:
                raise DvtError(f"`{name}` needs levels, which `levels=False` omits. Use one of them.")
            if not self.any_report:
                raise DvtError(f"`{name}` needs `burden`, `findings` or `summary`, which use the level. Add one.")

    @property
    def writes_findings(self) -> bool:
        """Whether findings are written for each scan."""
        return self.findings or self.summary

    @property
    def any_report(self) -> bool:
        """Whether there is anything to report."""
        return self.writes_findings or self.burden is not None

    def findings_options(self) -> FindingsOptions | None:
        """Read the table of levels and return what to write about each scan; None for no report.

        Raises:
            DvtError: if the table cannot be read.
        """
        if not self.any_report:
            return None
        rows = {} if self.levels_table is None else read_cases_table(self.levels_table)
        return FindingsOptions(
            record=self.writes_findings,
            summary=self.summary,
            levels_table={case_id: levels for case_id, (_, levels) in rows.items()},
            level=None if self.level is None else Levels(left_mm=self.level[0], right_mm=self.level[-1]),
            estimate_levels=self.levels and self.level is None,
            levels_path=self.levels_table,
            measured=self.burden is not None,
        )
