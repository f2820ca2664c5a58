"""The finished runs of an ablation, and each lever against the reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from compare import patient_scores, run_settings
from compare.methods import Method
from compare.patient_scores import PatientScores, mean, means, patients_of
from compare.run_settings import ADVICE

from ablation_study.levers import LEVERS, REFERENCE
from ablation_study.runs import MADE_BY, method_file
from dvtplan.core import json_records
from dvtplan.core.errors import DvtError, cannot_read
from dvtplan.data.paths import METRICS
from dvtplan.evaluation import paired_tests, stored_scores
from dvtplan.evaluation.paired_tests import Difference
from dvtplan.evaluation.stored_scores import ScoreRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished run."""

    lever: str
    seed: int
    words: tuple[str, ...]
    method: Method
    dsc: PatientScores
    rule: str
    """Region rule."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A lever in one region."""

    n: int
    """Patients with truth in the region."""
    mean: float
    """Mean DSC over the patients, of each the mean over the seeds."""
    by_seed: tuple[float, ...]
    """Mean DSC of each seed."""
    gain: float
    """The mean minus that of the reference; NaN: of the reference, or without it."""
    difference: Difference | None
    """The lever against the reference, each with the mean over its seeds; None as for ``gain``."""
    p_holm: float
    """Corrected over the levers of this region; NaN without a test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lever:
    """All finished runs of a lever."""

    name: str
    words: tuple[str, ...]
    """Options of dvt_train."""
    seeds: tuple[int, ...]
    methods: tuple[Method, ...]
    """Of each seed."""
    regions: dict[str, Region]


def load(out: Path) -> list[Finished]:
    """Read all finished runs in a folder, in the order of the levers.

    Raises:
        DvtError: if a file of a finished run is missing or damaged.
    """
    order = {name: number for number, name in enumerate(LEVERS)}
    folders = [path.parent for path in out.glob("*/seed_*/method.json")]
    found = [_read(folder) for folder in folders]
    return sorted(found, key=lambda run: (order.get(run.lever, len(order)), run.lever, run.seed))


def compare(runs: Sequence[Finished]) -> list[Lever]:
    """Summarize each lever, and compare it with the reference: patient by patient, the mean over the seeds first.

    Raises:
        DvtError: if the runs were not scored on the same patients and regions.
    """
    by_lever: dict[str, list[Finished]] = {}
    for run in runs:
        by_lever.setdefault(run.lever, []).append(run)
        if patients_of(run.dsc) != patients_of(runs[0].dsc):
            raise DvtError(f"{run.lever}, seed {run.seed}: other patients than {runs[0].lever}. {ADVICE}")
    reference = by_lever.get(REFERENCE, [])
    made = []
    for name, own in by_lever.items():
        against = [] if name == REFERENCE else reference
        regions = {region: _region(own, against, region) for region in own[0].dsc}
        made.append(
            Lever(
                name=name,
                words=own[0].words,
                seeds=tuple(run.seed for run in own),
                methods=tuple(run.method for run in own),
                regions=regions,
            )
        )
    return _corrected(made)


def _read(folder: Path) -> Finished:
    scores = folder / "scores"
    return Finished(
        lever=folder.parent.name,
        seed=int(folder.name.removeprefix("seed_")),
        words=run_settings.load(folder).words,
        method=json_records.load(Method, method_file(folder), MADE_BY, ADVICE),
        dsc=_scores(scores / METRICS),
        rule=json_records.load(ScoreRecord, scores / stored_scores.RECORD, MADE_BY, ADVICE).rule,
    )


def _scores(metrics: Path) -> PatientScores:
    """Read the exact DSC of each region and patient with truth there."""
    try:
        rows = pd.read_csv(metrics, dtype={"patient_id": str}, keep_default_na=False, na_values={"dsc": [""]})
        return patient_scores.exact(rows)
    except OSError as error:
        raise DvtError(cannot_read(metrics, error, ADVICE)) from error
    except (ValueError, KeyError) as error:
        raise DvtError(f"{metrics}: is not a table of scores ({error}). {ADVICE}") from error


def _region(own: Sequence[Finished], reference: Sequence[Finished], region: str) -> Region:
    patients = list(own[0].dsc[region])
    first = means((run.dsc for run in own), region, patients)
    second = means((run.dsc for run in reference), region, patients) if reference else None
    return Region(
        n=len(patients),
        mean=mean(first),
        by_seed=tuple(mean([run.dsc[region][patient] for patient in patients]) for run in own),
        gain=math.nan if second is None else mean(first) - mean(second),
        difference=None if second is None else paired_tests.compare_paired(first, second),
        p_holm=math.nan,
    )


def _corrected(made: list[Lever]) -> list[Lever]:
    """Add Holm's correction over the levers of each region."""
    p_of: dict[str, list[float]] = {}
    for region in made[0].regions if made else ():
        tests = [lever.regions[region].difference for lever in made]
        p_of[region] = paired_tests.holm([math.nan if test is None else test.p for test in tests])
    return [
        replace(lever, regions={name: replace(one, p_holm=p_of[name][k]) for name, one in lever.regions.items()})
        for k, lever in enumerate(made)
    ]
