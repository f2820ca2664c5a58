"""The table of an ablation as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from compare.methods import Method
from compare.table import decimals, finite, p_value

from ablation_study.conditions import AblationConditions
from ablation_study.levers import REFERENCE
from ablation_study.results import Lever, Region
from dvtplan.core.text import duration, plural, shorten_list, size
from dvtplan.data.dataset import PHANTOM_NOTE, display_name
from dvtplan.evaluation.table_text import Rows, markdown_table, text_table

BUSY = 0.95
"""Trainings that had less than this share of their cores are named."""
EARLY = 0.9
"""Trainings of less than this share of their time are named."""
UNSTEADY = 0.9
"""Levers of which a seed took less than this share of the steps of another are named."""


def to_text(levers: Sequence[Lever], conditions: AblationConditions, rule: str) -> str:
    """Format the table for a terminal."""
    return text_table(_title(conditions), _rows(levers), _notes(levers, conditions, rule))


def to_markdown(levers: Sequence[Lever], conditions: AblationConditions, rule: str) -> str:
    """Format the table in Markdown."""
    return markdown_table(_title(conditions), _rows(levers), _notes(levers, conditions, rule))


def to_json(levers: Sequence[Lever], conditions: AblationConditions, rule: str, machine: Mapping[str, object]) -> str:
    """Format everything in full precision; undefined numbers are null. There is no path in it."""
    content = {
        "machine": dict(machine),
        "conditions": dataclasses.asdict(conditions),
        "region_rule": rule,
        "reference": REFERENCE,
        "levers": [
            {**dataclasses.asdict(lever), "slices": [method.slices for method in lever.methods]} for lever in levers
        ],
    }
    return json.dumps(finite(content), indent=1) + "\n"


def _title(conditions: AblationConditions) -> str:
    tested = f"fold {conditions.fold}"
    if conditions.test != conditions.dataset:
        tested += f", tested on {display_name(conditions.test, conditions.phantom)}"
    shown = display_name(conditions.dataset, conditions.phantom)
    return (
        f"One change of the recipe {REFERENCE} at a time: {shown}, {tested}; {duration(conditions.budget_s)} of "
        "training on one core"
    )


def _rows(levers: Sequence[Lever]) -> Rows:
    regions = levers[0].regions if levers else {}
    header = ["Lever", "Options", "Seeds"]
    for name, one in regions.items():
        header += [f"{name} (n {one.n})", "by seed", f"minus {REFERENCE}", "p"]
    header += ["Steps by seed", "Slices seen", "Peak memory", "Prediction of a case"]
    return [header, *map(_row, levers)]


def _row(lever: Lever) -> list[str]:
    cells = [lever.name, _options(lever), str(len(lever.seeds))]
    for one in lever.regions.values():
        cells += [decimals(one.mean), " ".join(f"{value:.2f}" for value in one.by_seed), *_difference(one)]
    return [
        *cells,
        " ".join(f"{one.steps:,}" for one in lever.methods),
        _mean(lever, lambda one: one.slices, "{:,.0f}"),
        size(max(one.peak_bytes for one in lever.methods)),
        _mean(lever, lambda one: one.prediction_s_per_case, "{:.2f} s"),
    ]


def _options(lever: Lever) -> str:
    words = list(lever.words)
    return " ".join(words[2:] if words[:2] == ["--recipe", REFERENCE] else words) or "-"


def _difference(one: Region) -> tuple[str, str]:
    if one.difference is None:
        return "-", "-"
    return f"{one.gain:+.3f}", p_value(one.difference.p)


def _mean(lever: Lever, value: Callable[[Method], float], form: str) -> str:
    return form.format(statistics.fmean(map(value, lever.methods)))


def _notes(levers: Sequence[Lever], conditions: AblationConditions, rule: str) -> list[str]:
    tests = sum(any(one.difference is not None for one in lever.regions.values()) for lever in levers)
    notes = [
        "DSC: mean over the patients with truth in the region (n), of each the mean over the seeds. By seed: the "
        "mean of each seed.",
        f"Minus {REFERENCE}: difference of the means, each over all of its seeds. p: paired by patient, two-sided "
        f"Wilcoxon signed-rank test. It is not corrected: {plural(tests, 'lever')} would give about {0.05 * tests:.1f} "
        "values below 0.05 in each region by chance. The JSON file has p by Holm and the intervals. The test compares "
        "patients, not seeds: compare a difference with that between seeds.",
        f"Region rule: {rule.removesuffix('.')}.",
        f"{conditions.processor}; {plural(conditions.jobs, 'run')} at a time, each with one thread on a core of its "
        "own. Slices (or patches of slices) seen and time are means over the seeds. Peak memory is the "
        "largest of training and prediction. Prediction of a case: the whole command over the number of cases.",
    ]
    several = sorted({method.precision for lever in levers for method in lever.methods})
    if len(several) > 1:
        other = (lever.name for lever in levers if {m.precision for m in lever.methods} != {several[0]})
        notes.append(f"Trained in {' and '.join(several)}; not in {several[0]}: {shorten_list(list(other))}.")
    early = _early(levers, conditions)
    if early:
        notes.append(
            f"Trained for less than {EARLY:.0%} of the time, because the start took long or all epochs were done: "
            f"{shorten_list(early)}."
        )
    busy = [lever.name for lever in levers if min(_shares(lever), default=1.0) < BUSY]
    if busy:
        notes.append(
            f"Slowed by other programs or by reading, at least one training had less than {BUSY:.0%} of its core, and "
            f"took fewer steps: {shorten_list(busy)}."
        )
    unsteady = _unsteady(levers)
    if unsteady:
        notes.append(
            f"The seeds' steps differ by more than {1 - UNSTEADY:.0%}: {shorten_list(unsteady)}. So the speed of the "
            "machine changed between runs, as on shared machines. Equal time is then not the same work: compare runs "
            "of similar numbers of steps."
        )
    return [*notes, PHANTOM_NOTE] if conditions.phantom else notes


def _shares(lever: Lever) -> list[float]:
    return [one.processor_share for one in lever.methods if one.processor_share is not None]


def _early(levers: Iterable[Lever], conditions: AblationConditions) -> list[str]:
    return [lever.name for lever in levers if min(m.training_s for m in lever.methods) < EARLY * conditions.budget_s]


def _unsteady(levers: Iterable[Lever]) -> list[str]:
    steps = {lever.name: [one.steps for one in lever.methods] for lever in levers}
    return [name for name, counts in steps.items() if min(counts) < UNSTEADY * max(counts)]
