"""Check a phantom cohort on disk against what it has to be: neither damaged, nor trivial, nor leaky.

Every case is made again from its metadata and compared with its files; the same patient without clot, the
veins and a second rater come that way too. The clauses in the table:

(0) files hold what their metadata says; (1) naive methods fail even with parameters from the truth;
(2) finding the veins is most of the task, and distal is the harder part; (3) the cohort has the clots of
the recipe; (4) clot changes an image nowhere else, and nothing else gives a patient's pattern away;
(5) two raters agree as much as people do. What a network reaches is no part of this.

Below the table stand the cases that fail a row which every case has to pass.

    python tools/phantom_check.py --root . --dataset Phantom --jobs 2
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from make_phantom import at_least
from phantom import VERSION, files, probes
from phantom.cohort import PhantomCase, dataset_content, make_case, request_of, second_label, table_row
from phantom.workers import over_cases
from tqdm import tqdm

from dvtplan import volumes
from dvtplan.errors import DvtError, some
from dvtplan.geometry import to_slice_order

FULL_SCALES = ("half", "paper")
"""Where vessels are narrow enough, in voxels and in mm, for the targets to mean something."""
STANDARD_CASES = 58
"""Patients of Huang 2019, and of the recipe whose counts of clots are known."""
LIMB_REGIONS = {"proximal": 56, "distal": 43}
"""Limbs with clot in a region, among the standard cases."""
REACH_VOXELS = 4
"""How far from clotted veins clot may change an image: partial volume, a rim, the blur, the first ringing."""
TOLERANCE = 12.0
"""What is no change of a stored intensity: 3 % of venous blood, below the standard deviation of the noise (4 %).
K-space ends sharply, so ringing from a clot dies away along its row and column and never quite ends; where a
coil flares it reached 10 among 58 patients of `half`."""
EDGES = ("shifted", "dilated", "eroded")
"""Keys of ``probes.moved_dice``."""

MET, NOT_MET = "met", "NOT MET"
AGAIN = "make the cohort again with --overwrite"


class CheckError(Exception):
    """What the user can mend, in one line."""


# ---- one case --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What one case gave; scores of a region are not a number where it has no clot."""

    name: str
    """As in its file names."""
    scale: str
    """Of the generator."""
    difficulty: str
    """Of the generator."""
    image_equal: bool
    """Whether the image on disk is the one made again: voxels, type and spacing."""
    label_equal: bool
    """The same of the label."""
    metadata_equal: bool
    """Whether the metadata on disk are those made again."""
    row_equal: bool
    """Whether its row of ``cases.csv`` is the one that goes with them."""
    regions_agree: bool
    """Whether pattern, lesions, truth and label have the same regions."""
    limb_regions: tuple[tuple[str, str], ...]
    """(limb, region) with clot."""
    interval: float
    """``probes.best_interval_dice``."""
    top_hat: float
    """``probes.top_hat_dice``."""
    lumen: dict[str, float]
    """``probes.oracle_lumen_dice`` in all veins that may clot, of both legs."""
    clotted_lumen: dict[str, float]
    """The same in the veins that hold clot."""
    moved: dict[str, dict[str, float]]
    """``probes.moved_dice``."""
    positive_slices: float
    """Share of coronal slices with label."""
    twin: probes.Difference
    """From the same patient without clot, away from ``clotted_veins``."""
    rater: dict[str, float]
    """Dice of the second rater's label against the label."""
    statistics: np.ndarray
    """``probes.global_statistics`` without oedema, the one honest cue."""
    shape: tuple[int, int, int]
    """(S, H, W)."""
    spacing_mm: tuple[float, float, float]
    """Along S, H, W."""
    truth_voxels: np.ndarray
    """Flat indices of the exact truth: few, so that a cohort's truths fit into memory."""

    def truth_mask(self) -> np.ndarray:
        """bool (S, H, W)."""
        mask = np.zeros(self.shape, bool)
        mask.reshape(-1)[self.truth_voxels] = True
        return mask


def check_case(folder: Path, name: str) -> CaseResult:
    """Make a case of a dataset folder again and run every probe on it.

    Raises:
        CheckError: if a file is missing or unreadable, or the metadata are no request.
    """
    path = folder / "metadata" / f"{name}.json"
    metadata = _read_json(path)
    try:
        request = request_of(metadata)
    except ValueError as error:
        raise CheckError(f"{path}: {error}.") from error
    case = make_case(request)
    truth, lumen, clotted = case.truth > 0, lumen_region(case), clotted_veins(case)
    without = make_case(replace(request, thrombus=False)).image
    return CaseResult(
        name=name,
        scale=request.scale,
        difficulty=request.difficulty,
        image_equal=_on_disk(_image_path(folder, name), case.image, case),
        label_equal=_on_disk(_label_path(folder, name), case.label, case),
        metadata_equal=json.loads(json.dumps(case.metadata)) == metadata,
        row_equal=_read_table(folder / "cases.csv").get(name) == table_row(case.metadata),
        regions_agree=_regions_agree(case),
        limb_regions=tuple(sorted({(lesion["limb"], lesion["region"]) for lesion in case.metadata["lesions"]})),
        interval=probes.best_interval_dice(case.image, truth),
        top_hat=probes.top_hat_dice(case.image, truth, case.spacing_mm),
        lumen=probes.oracle_lumen_dice(case.image, lumen, case.truth),
        clotted_lumen=probes.oracle_lumen_dice(case.image, lumen * clotted, case.truth),
        moved=probes.moved_dice(case.truth),
        positive_slices=probes.positive_slices(case.label),
        twin=probes.twin_difference(case.image, without, clotted, REACH_VOXELS, TOLERANCE),
        rater=probes.region_dice(case.label, second_label(request, case)),
        statistics=probes.global_statistics(make_case(replace(request, oedema=False)).image),
        shape=case.image.shape,
        spacing_mm=tuple(case.spacing_mm),
        truth_voxels=np.flatnonzero(truth),
    )


def lumen_region(case: PhantomCase) -> np.ndarray:
    """uint8 (S, H, W): the region of the vein that a voxel is in; 0 outside veins that may clot."""
    of_vein = np.zeros(256, np.uint8)
    for vein in case.metadata["vein_ids"]:
        of_vein[vein["id"]] = probes.REGIONS.get(vein["region"], 0)
    return of_vein[case.veins]


def clotted_veins(case: PhantomCase) -> np.ndarray:
    """bool (S, H, W): the truth, and every vein that holds clot.

    The veins too, because a tapering end, or a clot of a thin vein, may cover no voxel by half and be in the
    image all the same.
    """
    clotted = {(lesion["limb"], vein) for lesion in case.metadata["lesions"] for vein in lesion["veins"]}
    ids = [vein["id"] for vein in case.metadata["vein_ids"] if (vein["limb"], vein["vein"]) in clotted]
    return (case.truth > 0) | np.isin(case.veins, ids)


def _regions_agree(case: PhantomCase) -> bool:
    """Whether everything that names a region names the same ones."""
    pattern = case.metadata["pattern"]
    expected = {value for region, value in probes.REGIONS.items() if pattern in (region, "both")}
    lesions = {probes.REGIONS[lesion["region"]] for lesion in case.metadata["lesions"]}
    found = [set(np.unique(label).tolist()) - {0} for label in (case.truth, case.label)]
    return all(regions == expected for regions in (lesions, *found))


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckError(f"{path}: cannot be read as JSON ({error}); {AGAIN}.") from error
    if not isinstance(content, dict):
        raise CheckError(f"{path}: holds no JSON object; {AGAIN}.")
    return content


def _read_table(path: Path) -> dict[str, dict[str, str]]:
    """Case -> its row of ``cases.csv``."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise CheckError(f"{path}: cannot be read as a table ({error}); {AGAIN}.") from error
    table = {row.get("case_id") or "": row for row in rows}
    if len(table) < len(rows):
        raise CheckError(f"{path}: expected one row a case, found {len(rows)} rows of {len(table)} cases; {AGAIN}.")
    return table


def _image_path(folder: Path, name: str) -> Path:
    return folder / "imagesTr" / f"{name}_0000.nii.gz"


def _label_path(folder: Path, name: str) -> Path:
    return folder / "labelsTr" / f"{name}.nii.gz"


def _on_disk(path: Path, expected: np.ndarray, case: PhantomCase) -> bool:
    """Whether a file holds this array (S, H, W) with the spacing of the case."""
    try:
        stored, grid = volumes.read(path)
    except DvtError as error:
        raise CheckError(str(error)) from error
    turn = to_slice_order(grid, "AP")
    spacing_mm = turn.grid(grid).spacing_mm
    same_place = np.allclose(spacing_mm, case.spacing_mm, rtol=1e-5, atol=0)  # NIfTI stores 32-bit floats
    return bool(same_place and stored.dtype == expected.dtype and np.array_equal(turn.apply(stored), expected))


# ---- the cohort ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    clause: str
    """Number of the list at the top of this file, or empty for what is only shown."""
    probe: str
    """What was measured."""
    n: int
    """Patients, or cases, behind the number."""
    measured: str
    """As printed."""
    target: str
    """As printed; empty where there is none."""
    value: float
    """The number that is judged."""
    verdict: str
    """'met', 'NOT MET', why it does not count here, or empty."""
    failed: tuple[str, ...] = ()
    """Cases that fail it, where every case has to pass."""


def check_cohort(
    root: Path, dataset: str, cases: int | None = None, jobs: int = 1
) -> tuple[list[CaseResult], list[Row]]:
    """Check ``root/datasets_raw/dataset``, or its first cases.

    Args:
        root: folder that holds ``datasets_raw``.
        dataset: name of the cohort.
        cases: how many, in the order of their names; None takes all.
        jobs: processes; they have no influence on the result.

    Raises:
        CheckError: if there is no cohort that can be checked.
    """
    folder = Path(root) / "datasets_raw" / dataset
    names = sorted(path.stem for path in (folder / "metadata").glob("leg_*.json"))
    if not names:
        raise CheckError(f"{folder}: no metadata/leg_*.json in it; make a phantom cohort there first.")
    _verify_whole(folder, names)
    names = names[:cases]
    work = partial(check_case, folder)
    results = list(tqdm(over_cases(work, names, jobs), desc=dataset, total=len(names), unit="case"))
    if len({result.scale for result in results}) > 1 or len({result.difficulty for result in results}) > 1:
        raise CheckError(f"{folder}: cases of several scales or difficulties; {AGAIN}.")
    if not any(result.limb_regions for result in results):
        raise CheckError(f"{folder}: no case has clot, so there is nothing to probe; make it with thrombus.")
    return results, judge(results)


def _verify_whole(folder: Path, names: Sequence[str]) -> None:
    """Refuse a cohort that lacks files, or has more than were made."""
    images, labels = [_image_path(folder, name) for name in names], [_label_path(folder, name) for name in names]
    for path in (*images, *labels):
        if not path.is_file():
            raise CheckError(f"{path}: not found, but there are metadata of it; {AGAIN}.")
    found = [path for kind in ("imagesTr", "labelsTr") for path in sorted((folder / kind).glob("[!.]*"))]
    if strange := [path.relative_to(folder).as_posix() for path in found if path not in {*images, *labels}]:
        raise CheckError(f"{folder}: no metadata of {some(strange)}; remove what is not of the cohort, then {AGAIN}.")
    path = folder / "dataset.json"
    if not path.is_file():
        raise CheckError(f"{path}: not found, and it is written last, so the cohort is not complete; {AGAIN}.")
    content = _read_json(path)
    expected = dataset_content(str(content.get("name")), str(content.get("description")), len(names))
    for key, value in expected.items():
        if content.get(key) != value:
            raise CheckError(f"{path}: expected {key} {value!r}, found {content.get(key)!r}; {AGAIN}.")
    path = folder / "cases.csv"
    if strange := sorted(set(_read_table(path)) ^ set(names)):
        raise CheckError(f"{path}: expected a row for every case with metadata; differs in {some(strange)}; {AGAIN}.")


def judge(results: Sequence[CaseResult]) -> list[Row]:
    """The table of a cohort of one scale and difficulty."""
    scale = "" if results[0].scale in FULL_SCALES else "not required at this scale"
    easy = scale or ("" if results[0].difficulty == "default" else "not required at this difficulty")
    few = scale or ("" if len(results) >= STANDARD_CASES else f"not required of fewer than {STANDARD_CASES} cases")
    recipe = "" if len(results) == STANDARD_CASES else f"required of {STANDARD_CASES} cases only"
    atlas = probes.atlas_dice(((r.truth_mask(), r.spacing_mm) for r in results), *_usual_grid(results))
    lumen = {region: [r.lumen[region] for r in results] for region in ("all", *probes.REGIONS)}
    clotted = {region: [r.clotted_lumen[region] for r in results] for region in ("all", *probes.REGIONS)}
    rater = {region: [r.rater[region] for r in results] for region in ("all", *probes.REGIONS)}
    slices = [r.positive_slices for r in results]
    return [
        _all_row("image is what its metadata make", results, lambda r: r.image_equal),
        _all_row("label is what its metadata make", results, lambda r: r.label_equal),
        _all_row("metadata are what they make", results, lambda r: r.metadata_equal),
        _all_row("row of cases.csv is what its metadata make", results, lambda r: r.row_equal),
        _all_row("pattern, lesions, truth and label agree", results, lambda r: r.regions_agree),
        _mean_row("1", "best intensity interval", [r.interval for r in results], below=0.02, excuse=scale),
        _mean_row("1", "2-D black top-hat", [r.top_hat for r in results], below=0.10, excuse=scale),
        _mean_row("1", "mean-label atlas of the others", atlas, below=0.15, excuse=scale),
        _mean_row("2", "known clotted veins and one threshold", clotted["all"], above=0.75, excuse=easy),
        _mean_row("", "- proximal", clotted["proximal"]),
        _mean_row("", "- distal", clotted["distal"]),
        _gap_row("- proximal less distal", clotted["proximal"], clotted["distal"], at_least=0.10, excuse=easy),
        *(_mean_row("", f"all deep veins and one threshold, {region}", scores) for region, scores in lumen.items()),
        _mean_row("3", "share of slices with label", slices, above=0.45, below=0.55, excuse=few),
        *(_count_row(results, region, recipe) for region in LIMB_REGIONS),
        _twin_row(results),
        *(_leak_row(results, region) for region in probes.REGIONS),
        _mean_row("5", "second rater, proximal", rater["proximal"], above=0.85, below=0.90, excuse=scale),
        _mean_row("5", "second rater, distal", rater["distal"], above=0.65, below=0.78, excuse=scale),
        _mean_row("", "second rater, all", rater["all"]),
        *(
            _mean_row("", f"truth {edge} by 1 px, {region}", [r.moved[edge][region] for r in results])
            for edge in EDGES
            for region in probes.REGIONS
        ),
    ]


def _usual_grid(results: Sequence[CaseResult]) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape and spacing of most cases."""
    return Counter((r.shape, r.spacing_mm) for r in results).most_common(1)[0][0]


def _mean_row(
    clause: str,
    probe: str,
    values: Sequence[float],
    above: float = -math.inf,
    below: float = math.inf,
    excuse: str = "",
) -> Row:
    """Mean and range over patients with a score; the mean is judged, as that of a method would be."""
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
        verdict=_verdict(above < mean < below, excuse or "not measurable" * (not kept)) if bounds else "",
    )


def _gap_row(probe: str, first: list[float], second: list[float], at_least: float, excuse: str) -> Row:
    """How much higher the mean of the first is than that of the second, each over its own patients."""
    gap = _mean_row("", "", first).value - _mean_row("", "", second).value
    known = not math.isnan(gap)
    return Row(
        clause="2",
        probe=probe,
        n=sum(not math.isnan(a + b) for a, b in zip(first, second, strict=True)),
        measured=f"{gap:.3f}" if known else "",
        target=f">= {at_least:g}",
        value=gap,
        verdict=_verdict(gap >= at_least, excuse or "not measurable" * (not known)),
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


def _count_row(results: Sequence[CaseResult], region: str, excuse: str) -> Row:
    found, expected = sum(there == region for r in results for _, there in r.limb_regions), LIMB_REGIONS[region]
    return Row(
        clause="3",
        probe=f"limbs with {region} clot",
        n=len(results),
        measured=str(found),
        target=str(expected),
        value=found,
        verdict=_verdict(found == expected, excuse),
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
    """AUC and its interval, of global statistics without oedema."""
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


def _verdict(met: bool, excuse: str = "") -> str:
    return excuse or (MET if met else NOT_MET)


def table(rows: Sequence[Row]) -> str:
    """The rows as text, columns aligned."""
    cells = [("", "probe", "n", "measured: mean (range)", "target", "verdict")]
    cells += [(f"({r.clause})" if r.clause else "", r.probe, str(r.n), r.measured, r.target, r.verdict) for r in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def failures(rows: Sequence[Row]) -> str:
    """The cases that fail a row, one line a row that has such."""
    return "".join(f"{row.probe}: {', '.join(row.failed)}\n" for row in rows if row.failed)


def as_json(dataset: str, results: Sequence[CaseResult], rows: Sequence[Row]) -> str:
    """Rows and every case's values; what is not a number becomes null."""
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


# ---- the command -----------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status: 0 all met, 1 not all met, 2 nothing to check."""
    parser = argparse.ArgumentParser(description="Check a phantom cohort against what it has to be.")
    parser.add_argument("--root", type=Path, required=True, help="folder that holds datasets_raw/")
    parser.add_argument("--dataset", default="Phantom", help="name of the cohort (default: Phantom)")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="cases checked at the same time (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows and every case's values")
    parser.add_argument("--cases", type=at_least(1), help="only the first so many")
    options = parser.parse_args(arguments)
    try:
        if options.json:
            _verify_writable(options.json)
        results, rows = check_cohort(options.root, options.dataset, options.cases, options.jobs)
    except (CheckError, OSError) as error:
        print(f"phantom_check: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("phantom_check: interrupted; nothing is judged, run it again.", file=sys.stderr)
        return 130
    first, missed = results[0], sum(row.verdict == NOT_MET for row in rows)
    head = f"{options.dataset}: {len(results)} cases, scale {first.scale}, difficulty {first.difficulty}"
    print(f"{head}, generator {VERSION}\n\n{table(rows)}\n")
    if failed := failures(rows):
        print(failed)
    print(f"{missed} of the required rows are NOT MET." if missed else "Every required row is met.")
    if options.json:
        try:
            options.json.write_text(as_json(options.dataset, results, rows), encoding="utf-8")
        except OSError as error:
            print(f"phantom_check: {files.cannot_write(options.json, error, '--json')}", file=sys.stderr)
            return 2
    return 1 if missed else 0


def _verify_writable(path: Path) -> None:
    """Refuse a place for the JSON file before the check, which takes minutes."""
    if path.is_dir():
        raise CheckError(f"{path}: expected a file, found a folder; name a file in it.")
    if not path.resolve().parent.is_dir():
        raise CheckError(f"{path}: its folder does not exist; make it first.")
    if not os.access(path if path.exists() else path.resolve().parent, os.W_OK):
        raise CheckError(f"{path}: no permission to write; mend it or name another file.")


if __name__ == "__main__":
    sys.exit(main())
