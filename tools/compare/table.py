"""The tables of a comparison as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compare.methods import Method
from compare.nnunet import NAME as NNUNET
from compare.scores import Scores
from compare.scores import Test as PairedTest
from compare.settings import Conditions
from dvtplan.core.text import duration, plural, size
from dvtplan.evaluation import paired_tests
from dvtplan.evaluation.summary_statistics import Summary
from dvtplan.evaluation.table_text import Rows, markdown_table, text_table

Runs = Mapping[str, Sequence[Method]]
"""Method -> its finished runs, at least one."""
TEST_HEADER = ("Method", "Region", "n", "Difference of DSC", "CI", "p", "p Holm")


def to_text(methods: Runs, scores: Scores, conditions: Conditions, machine: str) -> str:
    """Format both tables for a terminal."""
    first = text_table(_title(conditions), _rows(methods, scores), _notes(methods, scores, conditions, machine))
    return (
        f"{first}\n{text_table(_test_title(scores), _test_rows(scores), _test_notes(scores))}"
        if scores.tests
        else first
    )


def to_markdown(methods: Runs, scores: Scores, conditions: Conditions, machine: str) -> str:
    """Format both tables in Markdown."""
    first = markdown_table(_title(conditions), _rows(methods, scores), _notes(methods, scores, conditions, machine))
    return (
        f"{first}\n{markdown_table(_test_title(scores), _test_rows(scores), _test_notes(scores))}"
        if scores.tests
        else first
    )


def to_json(methods: Runs, scores: Scores, conditions: Conditions, machine: Mapping[str, object], command: str) -> str:
    """Format everything in full precision; undefined numbers are null."""
    content = {
        "command": command,
        "machine": dict(machine),
        "conditions": dataclasses.asdict(conditions),
        "prediction_values": scores.values,
        "region_rule": scores.rule,
        "reference": scores.reference,
        "methods": [
            {
                "name": name,
                "dsc": {region: dataclasses.asdict(summary) for region, summary in scores.dsc[name].items()},
                "dsc_by_run": scores.by_run[name],
                "runs": [
                    {
                        **dataclasses.asdict(run),
                        "slices": run.slices,
                        "prediction_s_per_case": run.prediction_s_per_case,
                    }
                    for run in runs
                ],
            }
            for name, runs in methods.items()
        ],
        "tests": [dataclasses.asdict(test) for test in scores.tests],
    }
    return json.dumps(finite(content), indent=1) + "\n"


def _title(conditions: Conditions) -> str:
    cores = plural(conditions.threads, "core")
    return f"{conditions.dataset}, fold {conditions.fold}: {duration(conditions.budget_s)} of training on {cores}"


def _rows(methods: Runs, scores: Scores) -> Rows:
    regions = next(iter(scores.dsc.values()))
    header = ["Method", *(f"{region} (n {summary.n})" for region, summary in regions.items())]
    header += ["Training", "Slices seen", "Parameters", "Precision", "Peak memory", "Prediction of a case"]
    return [header, *([name, *_cells(scores, name), *_costs(runs)] for name, runs in methods.items())]


def _cells(scores: Scores, method: str) -> Iterator[str]:
    """Return the DSC of each region: mean and SD, of several runs also the mean of each."""
    for region, summary in scores.dsc[method].items():
        by_run = scores.by_run[method][region]
        shown = f" ({' '.join(map(decimals, by_run))})" if len(by_run) > 1 else ""
        yield _mean_sd(summary) + shown


def _costs(runs: Sequence[Method]) -> list[str]:
    """Return means over the runs, but of the memory the peak."""
    slices, steps = (round(statistics.fmean(values)) for values in ([r.slices for r in runs], [r.steps for r in runs]))
    return [
        duration(statistics.fmean(run.training_s for run in runs)),
        f"{slices:,} in {plural(steps, 'step')}",
        f"{runs[0].parameters / 1e6:.2f} million",
        ", ".join(sorted({run.precision for run in runs})),
        size(max(run.peak_bytes for run in runs)),
        f"{statistics.fmean(run.prediction_s_per_case for run in runs):.2f} s",
    ]


def _mean_sd(summary: Summary) -> str:
    """Format with three decimals: the methods differ by hundredths."""
    return f"{decimals(summary.mean)} ± {decimals(summary.sd)}"


def decimals(value: float) -> str:
    """Format with three decimals."""
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _notes(methods: Runs, scores: Scores, conditions: Conditions, machine: str) -> list[str]:
    union = " The labels of predicted voxels do not count, because a method predicts the union of the labels."
    chosen = "what a short trial finds faster" if conditions.precision == "auto" else conditions.precision
    notes = [
        "Cells: mean ± SD of the DSC over the patients with truth in the region (n).",
        f"Machine: {machine}.",
        f"Region rule: {scores.rule.removesuffix('.')}.{union if scores.values == 'lesion' else ''}",
        f"The time starts after preprocessing. Training: the training loop, without its preparation. The learning "
        f"rate of {NNUNET} falls to 0 within the time.",
        "Slices seen: slices, or patches of slices. Peak memory: the largest process of training and prediction. "
        "Prediction of a case: the whole command, with its start, over the number of cases.",
        f"Number format of the recipes: {chosen}.",
    ]
    if any(len(runs) > 1 for runs in methods.values()):
        notes.append(
            "A method with several runs has the mean over the runs for each patient; in parentheses: the mean of each "
            "run. The runs of a recipe differ by the seed; nnU-Net has none. Time, slices and steps are means."
        )
    if not scores.reference:
        notes.append(f"No training of {NNUNET} is finished, so there is no test.")
    commits = {run.name: run.commit for runs in methods.values() for run in runs if run.commit}
    if len(set(commits.values())) > 1:
        named = (f"{name} {commit}" for name, commit in commits.items())
        notes.append(f"Trained by different commits of dvtplan: {', '.join(named)}.")
    return [*notes, "docs/developer/comparing.md lists what is not equal."]


def _test_rows(scores: Scores) -> Rows:
    return [TEST_HEADER, *map(_test_row, scores.tests)]


def _test_row(test: PairedTest) -> tuple[str, ...]:
    one = test.difference
    interval = "-" if math.isnan(one.ci_low) else f"{one.ci_low:+.3f} to {one.ci_high:+.3f}"
    estimate = "n/a" if math.isnan(one.estimate) else f"{one.estimate:+.3f}"
    return test.method, test.region, str(one.n), estimate, interval, p_value(one.p), p_value(test.p_holm)


def p_value(value: float) -> str:
    """Format a p-value."""
    return "n/a" if math.isnan(value) else "<0.0001" if value < 0.0001 else f"{value:.4f}"


def _test_title(scores: Scores) -> str:
    return f"Against {scores.reference}"


def _test_notes(scores: Scores) -> list[str]:
    several = sum(name.startswith(NNUNET) for name in scores.dsc) > 1
    best = "It is the best batch size, chosen on the test patients in its favour. "
    return [f"{best if several else ''}The method minus {scores.reference}: {paired_tests.RULE}."]


def finite(content: Any) -> Any:
    """Replace numbers that JSON does not have by None."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
