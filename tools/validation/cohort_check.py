"""Check a phantom cohort: check its cases, judge the results against targets, and format the table."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from phantom import VERSION, probes
from phantom.cohort import dataset_content
from phantom.workers import over_cases
from tqdm import tqdm

from dvtplan.core.text import shorten_list
from validation.case_check import (
    AGAIN,
    REACH_VOXELS,
    CaseResult,
    CheckError,
    check_case,
    image_path,
    label_path,
    read_json,
    read_table,
)

FULL_SCALES = ("half", "paper")
"""Scales whose vessels are narrow enough, in voxels and in mm, for the targets to be meaningful."""
STANDARD_CASES = 58
"""Patients of Huang 2019, and of a standard cohort, whose counts of clots are known."""
LIMB_REGIONS = {"proximal": 56, "distal": 43}
"""Limbs with clot in a region, among the standard cases."""
EDGES = ("shifted", "dilated", "eroded")
"""Keys of ``probes.moved_dice``."""

MET, NOT_MET = "met", "NOT MET"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    clause: str
    """Number of the clause (see tools/check_phantom.py); empty for a value that is not judged."""
    probe: str
    """Name of the measurement."""
    n: int
    """Number of patients or cases."""
    measured: str
    """Measured value as printed."""
    target: str
    """Target as printed; empty without a target."""
    value: float
    """The value that is judged."""
    verdict: str
    """'met', 'NOT MET', the reason why it is not judged here, or empty."""
    failed: tuple[str, ...] = ()
    """Cases that fail, where every case must pass."""


def check_cohort(
    root: Path, dataset: str, cases: int | None = None, jobs: int = 1
) -> tuple[list[CaseResult], list[Row]]:
    """Check ``root/datasets_raw/dataset``, or its first cases.

    Args:
        root: folder that contains ``datasets_raw``.
        dataset: name of the cohort.
        cases: number of cases, in the order of their names; None for all.
        jobs: number of processes; it has no influence on the result.

    Raises:
        CheckError: if the cohort cannot be checked.
    """
    folder = Path(root) / "datasets_raw" / dataset
    names = sorted(path.stem for path in (folder / "metadata").glob("leg_*.json"))
    if not names:
        raise CheckError(f"{folder}: contains no metadata/leg_*.json. Make a phantom cohort there first.")
    _verify_whole(folder, names)
    names = names[:cases]
    work = partial(check_case, folder)
    results = list(tqdm(over_cases(work, names, jobs), desc=dataset, total=len(names), unit="case"))
    if len({result.scale for result in results}) > 1 or len({result.difficulty for result in results}) > 1:
        raise CheckError(f"{folder}: contains cases of several scales or difficulties; {AGAIN}.")
    if not any(result.limb_regions for result in results):
        raise CheckError(f"{folder}: no case has clot, so nothing can be checked. Make the cohort with thrombus.")
    return results, judge(results)


def _verify_whole(folder: Path, names: Sequence[str]) -> None:
    """Raise an error if files of the cohort are missing, or if it contains other files."""
    images, labels = [image_path(folder, name) for name in names], [label_path(folder, name) for name in names]
    for path in (*images, *labels):
        if not path.is_file():
            raise CheckError(f"{path}: not found, but its metadata exist; {AGAIN}.")
    found = [path for kind in ("imagesTr", "labelsTr") for path in sorted((folder / kind).glob("[!.]*"))]
    if strange := [path.relative_to(folder).as_posix() for path in found if path not in {*images, *labels}]:
        raise CheckError(
            f"{folder}: no metadata of {shorten_list(strange)}; remove files of other origin, then {AGAIN}."
        )
    path = folder / "dataset.json"
    if not path.is_file():
        raise CheckError(f"{path}: not found. It is written last, so the cohort is incomplete; {AGAIN}.")
    content = read_json(path)
    expected = dataset_content(str(content.get("name")), str(content.get("description")), len(names))
    for key, value in expected.items():
        if content.get(key) != value:
            raise CheckError(f"{path}: expected {key} {value!r}, found {content.get(key)!r}; {AGAIN}.")
    path = folder / "cases.csv"
    if strange := sorted(set(read_table(path)) ^ set(names)):
        raise CheckError(
            f"{path}: expected a row for every case with metadata; differs in {shorten_list(strange)}; {AGAIN}."
        )


def judge(results: Sequence[CaseResult]) -> list[Row]:
    """Return the table of a cohort of one scale and difficulty."""
    scale = "" if results[0].scale in FULL_SCALES else "not required at this scale"
    if any(result.centre > 1 for result in results):
        scale = scale or "not required of several centres"
    if results[0].difficulty == "noiseless":
        scale = scale or "not required without noise"
    easy = scale or ("" if results[0].difficulty == "default" else "not required at this difficulty")
    few = scale or ("" if len(results) >= STANDARD_CASES else f"not required of fewer than {STANDARD_CASES} cases")
    recipe = "" if len(results) == STANDARD_CASES else f"required of {STANDARD_CASES} cases only"
    atlas = probes.atlas_dice(((r.truth_mask(), r.spacing_mm) for r in results), *_usual_grid(results))
    lumen = {region: [r.lumen[region] for r in results] for region in ("all", *probes.REGIONS)}
    clotted = {region: [r.clotted_lumen[region] for r in results] for region in ("all", *probes.REGIONS)}
    rater = {region: [r.rater[region] for r in results] for region in ("all", *probes.REGIONS)}
    slices = [r.positive_slices for r in results]
    return [
        _all_row("image equals the image made from its metadata", results, lambda r: r.image_equal),
        _all_row("label is what its metadata make", results, lambda r: r.label_equal),
        _all_row("metadata equal those made from them", results, lambda r: r.metadata_equal),
        _all_row("row of cases.csv is what its metadata make", results, lambda r: r.row_equal),
        _all_row("pattern, lesions, truth and label agree", results, lambda r: r.regions_agree),
        _mean_row("1", "best intensity interval", [r.interval for r in results], below=0.02, not_judged=scale),
        _mean_row("1", "2-D black top-hat", [r.top_hat for r in results], below=0.10, not_judged=scale),
        _mean_row("1", "mean-label atlas of the others", atlas, below=0.15, not_judged=scale),
        _mean_row("2", "known clotted veins and one threshold", clotted["all"], above=0.75, not_judged=easy),
        _mean_row("", "- proximal", clotted["proximal"]),
        _mean_row("", "- distal", clotted["distal"]),
        _gap_row("- proximal minus distal", clotted["proximal"], clotted["distal"], at_least=0.10, not_judged=easy),
        *(_mean_row("", f"all deep veins and one threshold, {region}", scores) for region, scores in lumen.items()),
        _mean_row("3", "share of slices with label", slices, above=0.45, below=0.55, not_judged=few),
        *(_count_row(results, region, recipe) for region in LIMB_REGIONS),
        _twin_row(results),
        *(_leak_row(results, region) for region in probes.REGIONS),
        _mean_row("5", "second rater, proximal", rater["proximal"], above=0.85, below=0.90, not_judged=scale),
        _mean_row("5", "second rater, distal", rater["distal"], above=0.65, below=0.78, not_judged=scale),
        _mean_row("", "second rater, all", rater["all"]),
        *(
            _mean_row("", f"truth {edge} by 1 px, {region}", [r.moved[edge][region] for r in results])
            for edge in EDGES
            for region in probes.REGIONS
        ),
    ]


def _usual_grid(results: Sequence[CaseResult]) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Return the most frequent shape and spacing."""
    return Counter((r.shape, r.spacing_mm) for r in results).most_common(1)[0][0]


def _mean_row(
    clause: str,
    probe: str,
    values: Sequence[float],
    above: float = -math.inf,
    below: float = math.inf,
    not_judged: str = "",
) -> Row:
    """Return mean and range over patients with a score; the mean is judged."""
    kept = [value for value in values if not math.isnan(value)]
    mean = float(np.mean(kept)) if kept else math.nan
    bounds = [f"> {above:g}"] * (above > -math.inf) + [f"< {below:g}"] * (below < math.inf)
    return Row(
        clause=clause,
        probe=probe,
        n=len(kept),
        measured=f"{mean:.3f} ({min(kept):.3f} to {max(kept):.3f})" if kept else "",
        target=" and ".join(bounds),
        value=mean,
        verdict=_verdict(above < mean < below, not_judged or "not measurable" * (not kept)) if bounds else "",
    )


def _gap_row(probe: str, first: list[float], second: list[float], at_least: float, not_judged: str) -> Row:
    """Return the difference of the means of two scores, each over its own patients."""
    gap = _mean_row("", "", first).value - _mean_row("", "", second).value
    known = not math.isnan(gap)
    return Row(
        clause="2",
        probe=probe,
        n=sum(not math.isnan(a + b) for a, b in zip(first, second, strict=True)),
        measured=f"{gap:.3f}" if known else "",
        target=f">= {at_least:g}",
        value=gap,
        verdict=_verdict(gap >= at_least, not_judged or "not measurable" * (not known)),
    )


def _all_row(probe: str, results: Sequence[CaseResult], holds: Callable[[CaseResult], bool]) -> Row:
    failed = tuple(r.name for r in results if not holds(r))
    n, kept = len(results), len(results) - len(failed)
    return Row(
        clause="0",
        probe=probe,
        n=n,
        measured=str(kept),
        target=str(n),
        value=kept,
        verdict=_verdict(not failed),
        failed=failed,
    )


def _count_row(results: Sequence[CaseResult], region: str, not_judged: str) -> Row:
    found, expected = sum(there == region for r in results for _, there in r.limb_regions), LIMB_REGIONS[region]
    return Row(
        clause="3",
        probe=f"limbs with {region} clot",
        n=len(results),
        measured=str(found),
        target=str(expected),
        value=found,
        verdict=_verdict(found == expected, not_judged),
    )


def _twin_row(results: Sequence[CaseResult]) -> Row:
    voxels, largest = sum(r.twin.voxels for r in results), max(r.twin.largest for r in results)
    return Row(
        clause="4",
        probe=f"voxels changed by clot > {REACH_VOXELS} away",
        n=len(results),
        measured=f"{voxels}, by {largest:g}" if voxels else "0",
        target="0",
        value=voxels,
        verdict=_verdict(voxels == 0),
        failed=tuple(r.name for r in results if r.twin.voxels),
    )


def _leak_row(results: Sequence[CaseResult], region: str) -> Row:
    """Return AUC and interval of global statistics without oedema."""
    has_region = np.array([any(there == region for _, there in r.limb_regions) for r in results])
    leak = probes.leak_auc(np.stack([r.statistics for r in results]), has_region)
    return Row(
        clause="4",
        probe=f"AUC of global statistics, {region}",
        n=len(results),
        measured="" if leak.reason else f"{leak.auc:.3f} (95 %: {leak.low:.3f} to {leak.high:.3f})",
        target="0.5 in interval",
        value=leak.auc,
        verdict=_verdict(leak.low <= 0.5 <= leak.high, f"not measurable: {leak.reason}" if leak.reason else ""),
    )


def _verdict(met: bool, not_judged: str = "") -> str:
    return not_judged or (MET if met else NOT_MET)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text with aligned columns."""
    cells = [("", "probe", "n", "measured: mean (range)", "target", "verdict")]
    cells += [(f"({r.clause})" if r.clause else "", r.probe, str(r.n), r.measured, r.target, r.verdict) for r in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def failures(rows: Sequence[Row]) -> str:
    """Return the failed cases, one line for each row with such cases."""
    return "".join(f"{row.probe}: {', '.join(row.failed)}\n" for row in rows if row.failed)


def as_json(dataset: str, results: Sequence[CaseResult], rows: Sequence[Row]) -> str:
    """Return rows and values of every case as JSON; NaN becomes null."""
    large = ("truth_voxels", "statistics")
    cases = [{key: value for key, value in asdict(r).items() if key not in large} for r in results]
    statistics = [dict(zip(probes.STATISTICS, r.statistics.tolist(), strict=True)) for r in results]
    content = {
        "dataset": dataset,
        "version": VERSION,
        "scale": results[0].scale,
        "difficulty": results[0].difficulty,
        "rows": [asdict(row) for row in rows],
        "cases": [case | {"statistics": some} for case, some in zip(cases, statistics, strict=True)],
    }
    return json.dumps(_without_nan(content), indent=2) + "\n"


def _without_nan(content: object) -> object:
    if isinstance(content, dict):
        return {key: _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    return None if isinstance(content, float) and math.isnan(content) else content
