"""A scored network, and the agreement of volumes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pandas as pd

from dvtplan.anatomy.levels import ALL
from dvtplan.data.folds import Fold
from dvtplan.evaluation import secondary_metrics, table1, table_text
from dvtplan.evaluation.secondary_metrics import MeasuresTable
from dvtplan.evaluation.summary_statistics import Summary, summarize
from dvtplan.evaluation.table1 import Table
from dvtplan.evaluation.table1_by_group import GroupTable
from dvtplan.models.postprocessing import Postprocessing
from dvtplan.models.training_run import Run
from dvtplan.planning.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredNetwork:
    """One network, scored."""

    network: str
    rows: pd.DataFrame
    """``metrics.csv``, of the folds that are reported."""
    folds: tuple[Fold, ...]
    plan: Plan
    runs: dict[int, Run]
    """By fold; a fold without ``run.json`` is missing."""
    table: Table
    """Table 1."""
    notes: tuple[str, ...]
    """Warnings that come before the numbers."""
    postprocessing: dict[int, Postprocessing] = field(default_factory=dict)
    """Mask rules that were chosen on held-out patients, by fold."""
    by_group: GroupTable | None = None
    """Table 1 per group of patients, if the network was scored with one."""

    @property
    def measures(self) -> MeasuresTable:
        """The further measures."""
        return secondary_metrics.summarize_measures(self.rows, rule=self.table.rule, folds=self.table.folds)

    @property
    def patients(self) -> pd.DataFrame:
        """A row per region and patient."""
        return table1.by_patient(self.rows)

    @property
    def whole(self) -> pd.DataFrame:
        """A row per patient, over all thrombus."""
        pooled = self.patients
        return pooled[pooled["region"] == ALL].reset_index(drop=True)

    @property
    def fold_of(self) -> dict[str, str]:
        """Patient -> the folds that tested the patient's cases; more than one only with a user's own splits."""
        by = self.rows.groupby("patient_id", sort=False)["fold"].unique()
        return {str(patient): ", ".join(map(str, sorted(folds))) for patient, folds in by.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart with its caption."""

    image: bytes
    """PNG."""
    alt: str
    caption: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BlandAltman:
    """Predicted against true volume (Bland and Altman 1986)."""

    bias: Summary
    """Of the differences, predicted minus true, in mL."""

    @property
    def limits_ml(self) -> tuple[float, float]:
        """Limits of agreement, bias ± 1.96 SD in mL; NaN for a single patient."""
        half = 1.96 * self.bias.sd
        return self.bias.mean - half, self.bias.mean + half

    @property
    def text(self) -> str:
        """Bias and limits in one phrase."""
        low, high = self.limits_ml
        if math.isnan(low):
            return f"bias {ml(self.bias.mean)}, no limits of agreement with n {self.bias.n}"
        interval = ""
        if not math.isnan(self.bias.ci_low):
            interval = f" (95 % BCa bootstrap CI {ml(self.bias.ci_low)} to {ml(self.bias.ci_high)})"
        return f"bias {ml(self.bias.mean)}{interval}, limits of agreement {ml(low)} to {ml(high)}, n {self.bias.n}"


def bland_altman(whole: pd.DataFrame) -> BlandAltman:
    """Compare the volumes of all patients, including those without truth."""
    return BlandAltman(bias=summarize(whole["predicted_ml"] - whole["truth_ml"]))


def ml(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{table_text.unsigned_zero(value, 1):+.1f} mL".replace("-", "−")
