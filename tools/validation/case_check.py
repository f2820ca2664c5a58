"""Check one phantom case: make it again from its metadata, compare it with its files, and run the probes."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from phantom import probes
from phantom.case import PhantomCase, make_case, request_of, second_label
from phantom.cohort import table_row

from dvtplan.core.errors import DvtError
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import to_slice_order

REACH_VOXELS = 4
"""Distance from clotted veins within which clot may change an image: partial volume, rim, blur, first ringing."""
TOLERANCE = 12.0
"""Largest difference of stored intensities that counts as equal: 3 % of venous blood, below the SD of the noise (4 %).
Sampling of k-space ends sharply, so ringing from a clot decreases along its row and column but never ends. Close to a
coil it reached 10 among 58 patients of `half`."""
AGAIN = "make the cohort again with --overwrite"


class CheckError(Exception):
    """An error that the user can fix, explained in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """Results of one case; the scores of a region are NaN if it has no clot."""

    name: str
    """Case id."""
    scale: str
    """Scale of the generator."""
    difficulty: str
    """Difficulty of the generator."""
    centre: int
    """Number of the centre; 0 in a cohort without centres."""
    image_equal: bool
    """Whether the image on disk equals the image made again: voxels, type and spacing."""
    label_equal: bool
    """Whether the label on disk equals the label made again."""
    metadata_equal: bool
    """Whether the metadata on disk equal those made again."""
    row_equal: bool
    """Whether its row of ``cases.csv`` agrees with the metadata."""
    regions_agree: bool
    """Whether pattern, lesions, truth and label have the same regions."""
    limb_regions: tuple[tuple[str, str], ...]
    """(limb, region) with clot."""
    interval: float
    """``probes.best_interval_dice``."""
    top_hat: float
    """``probes.top_hat_dice``."""
    lumen: dict[str, float]
    """``probes.oracle_lumen_dice`` in all veins of both legs that may have clot."""
    clotted_lumen: dict[str, float]
    """``probes.oracle_lumen_dice`` in the veins with clot."""
    moved: dict[str, dict[str, float]]
    """``probes.moved_dice``."""
    positive_slices: float
    """Share of coronal slices with label."""
    twin: probes.Difference
    """Difference from the same patient without clot, outside ``clotted_veins``."""
    rater: dict[str, float]
    """Dice of the second rater's label and the label."""
    statistics: np.ndarray
    """``probes.global_statistics`` without oedema, the only intended cue."""
    shape: tuple[int, int, int]
    """Voxels along S, H, W."""
    spacing_mm: tuple[float, float, float]
    """Voxel size along S, H, W."""
    truth_voxels: np.ndarray
    """Flat indices of the exact truth, so that the truths of a cohort fit into memory."""

    def truth_mask(self) -> np.ndarray:
        """Return the exact truth, bool (S, H, W)."""
        mask = np.zeros(self.shape, bool)
        mask.reshape(-1)[self.truth_voxels] = True
        return mask


def check_case(folder: Path, name: str) -> CaseResult:
    """Make a case of a dataset folder again and run every probe on it.

    Raises:
        CheckError: if a file is missing or unreadable, or the metadata are invalid.
    """
    path = folder / "metadata" / f"{name}.json"
    metadata = read_json(path)
    try:
        request = request_of(metadata)
    except ValueError as error:
        raise CheckError(f"{path}: {error}.") from error
    case = make_case(request)
    truth, lumen, clotted = whole(case.truth) > 0, lumen_region(case), clotted_veins(case)
    without = make_case(replace(request, thrombus=False)).image
    return CaseResult(
        name=name,
        scale=request.scale,
        difficulty=request.difficulty,
        centre=request.centre,
        image_equal=_on_disk(image_path(folder, name), case.image, case),
        label_equal=_on_disk(label_path(folder, name), case.label, case),
        metadata_equal=json.loads(json.dumps(case.metadata)) == metadata,
        row_equal=read_table(folder / "cases.csv").get(name) == table_row(case.metadata),
        regions_agree=_regions_agree(case),
        limb_regions=tuple(sorted({(lesion["limb"], lesion["region"]) for lesion in case.metadata["lesions"]})),
        interval=probes.best_interval_dice(case.image, truth),
        top_hat=probes.top_hat_dice(case.image, truth, case.spacing_mm),
        lumen=probes.oracle_lumen_dice(case.image, lumen, whole(case.truth)),
        clotted_lumen=probes.oracle_lumen_dice(case.image, lumen * clotted, whole(case.truth)),
        moved=probes.moved_dice(whole(case.truth)),
        positive_slices=probes.positive_slices(case.label),
        twin=probes.twin_difference(case.image, without, clotted, REACH_VOXELS, TOLERANCE),
        rater=probes.region_dice(case.label, second_label(request, case)),
        statistics=probes.global_statistics(make_case(replace(request, oedema=False)).image),
        shape=case.image.shape,
        spacing_mm=case.spacing_mm,
        truth_voxels=np.flatnonzero(truth),
    )


def whole(array: np.ndarray | None) -> np.ndarray:
    """Return a volume of a case that was made with diagnostics."""
    if array is None:
        raise ValueError("the case was made without this volume")
    return array


def lumen_region(case: PhantomCase) -> np.ndarray:
    """Return the region of the vein of each voxel, uint8 (S, H, W); 0 outside veins that may have clot."""
    of_vein = np.zeros(256, np.uint8)
    for vein in case.metadata["vein_ids"]:
        of_vein[vein["id"]] = probes.REGIONS.get(vein["region"], 0)
    return of_vein[whole(case.veins)]


def clotted_veins(case: PhantomCase) -> np.ndarray:
    """Return the truth and every vein with clot, bool (S, H, W).

    Veins are included because a tapered end, or a clot in a thin vein, may cover no voxel by half but still
    change the image.
    """
    clotted = {(lesion["limb"], vein) for lesion in case.metadata["lesions"] for vein in lesion["veins"]}
    ids = [vein["id"] for vein in case.metadata["vein_ids"] if (vein["limb"], vein["vein"]) in clotted]
    return (whole(case.truth) > 0) | np.isin(whole(case.veins), ids)


def _regions_agree(case: PhantomCase) -> bool:
    """Return whether pattern, lesions, truth and label have the same regions."""
    pattern = case.metadata["pattern"]
    expected = {value for region, value in probes.REGIONS.items() if pattern in (region, "both")}
    lesions = {probes.REGIONS[lesion["region"]] for lesion in case.metadata["lesions"]}
    found = [set(np.unique(label).tolist()) - {0} for label in (whole(case.truth), case.label)]
    return all(regions == expected for regions in (lesions, *found))


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        CheckError: if the file cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckError(f"{path}: cannot be read as JSON ({error}); {AGAIN}.") from error
    if not isinstance(content, dict):
        raise CheckError(f"{path}: is not a JSON object; {AGAIN}.")
    return content


def read_table(path: Path) -> dict[str, dict[str, str]]:
    """Return the rows of ``cases.csv`` by case."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise CheckError(f"{path}: cannot be read as a table ({error}); {AGAIN}.") from error
    table = {row.get("case_id") or "": row for row in rows}
    if len(table) < len(rows):
        raise CheckError(f"{path}: expected one row a case, found {len(rows)} rows of {len(table)} cases; {AGAIN}.")
    return table


def image_path(folder: Path, name: str) -> Path:
    return folder / "imagesTr" / f"{name}_0000.nii.gz"


def label_path(folder: Path, name: str) -> Path:
    return folder / "labelsTr" / f"{name}.nii.gz"


def _on_disk(path: Path, expected: np.ndarray, case: PhantomCase) -> bool:
    """Return whether a file contains this array (S, H, W) with the spacing of the case."""
    try:
        stored, grid = volume_io.read(path)
    except DvtError as error:
        raise CheckError(str(error)) from error
    reorientation = to_slice_order(grid, "AP")
    spacing_mm = reorientation.grid(grid).spacing_mm
    same_spacing = np.allclose(spacing_mm, case.spacing_mm, rtol=1e-5, atol=0)  # NIfTI stores 32-bit floats
    same_voxels = np.array_equal(reorientation.apply(stored), expected)
    return bool(same_spacing and stored.dtype == expected.dtype and same_voxels)
