"""Draw the cases of a cohort, and write nnU-Net's raw layout, cases.csv and metadata."""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from phantom import VERSION, files
from phantom.case import PATTERNS, STREAMS, PhantomCase, Request, make_case, second_label
from phantom.centres import CENTRES, NO_CENTRE
from phantom.grid import MATRICES, SCALES
from phantom.thrombus import REGIONS
from phantom.workers import over_cases

BILATERAL = 2
"""Number of the 58 patients with proximal thrombus only, in both limbs: 56 proximal lesions, 43 distal."""
OTHER_MATRIX = 0.1
"""Share of cases with another matrix than the standard one."""
GZIP_WINDOW = 31
"""zlib's code for a gzip container with the largest window."""
HEADER_BYTES = 352
"""Bytes of a NIfTI-1 file before its voxels."""
EXTRAS = ("truth", "veins", "rater2")
"""Optional masks: the exact truth, the map of veins, a second rater's label."""

OUR_FILE = re.compile(
    r"\.?(dataset\.json|cases\.csv)|metadata/\.?leg_\d+\.json"
    r"|(imagesTr/\.?(?P<image>leg_\d+)_0000|(labelsTr|truth|veins|rater2)/\.?(?P<label>leg_\d+))\.nii\.gz"
    r"|(imagesTr/\.leg_\d+_0000|(labelsTr|truth|veins|rater2)/\.leg_\d+)\.nii"
)
"""Matches every path that this tool writes in a dataset folder; a leading dot is an interrupted write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Which patients a cohort has. Equal designs give equal cohorts.

    Raises:
        ValueError: for an unknown scale, fewer cases than one, or a wrong number of centres.
    """

    scale: str = "tiny"
    """A key of ``grid.SCALES``."""
    cases: int | None = None
    """Number of cases; None for the default of the scale."""
    seed: int = 0
    difficulty: str = "default"
    """A key of ``DIFFICULTIES``."""
    thrombus: bool = True
    """False for the same patients without clot."""
    centres: int = 1
    """Number of centres that the cases are dealt to, the first of ``CENTRES``."""

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale is one of {', '.join(SCALES)}, not {self.scale!r}")
        if not 1 <= self.centres <= len(CENTRES):
            raise ValueError(f"centres is 1 to {len(CENTRES)}, not {self.centres}")
        if self.count < 1:
            raise ValueError(f"a cohort needs at least one case, not {self.count}")

    @property
    def count(self) -> int:
        """Return the number of cases."""
        return SCALES[self.scale].cases if self.cases is None else self.cases

    @property
    def description(self) -> str:
        """Return the description for ``dataset.json``; it begins with 'synthetic'."""
        text = (
            f"synthetic: phantom legs, generator {VERSION}, scale {self.scale}, difficulty {self.difficulty}, "
            f"seed {self.seed}"
        )
        text = text if self.centres == 1 else f"{text}, {self.centres} centres"
        return text if self.thrombus else f"{text}, without thrombus"

    def requests(self) -> list[Request]:
        """Draw the patients in the proportions of ``PATTERNS``; from 8 cases on, all patterns occur."""
        count, total = self.count, sum(PATTERNS.values())
        counts = {p: max(count * n // total, int(count >= 8)) for p, n in PATTERNS.items()}
        counts["both"] += count - sum(counts.values())
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, 0, STREAMS["cohort"]])))
        patterns = [str(p) for p in rng.permutation([p for p, n in counts.items() for _ in range(n)])]
        alone = [i for i, pattern in enumerate(patterns) if pattern == "proximal"]
        bilateral = set(alone[: round(BILATERAL * count / total)])
        others = [name for name in MATRICES if name != "standard"]
        odd = rng.permutation(count)[: round(OTHER_MATRIX * count)]
        matrices = {int(i): others[k % len(others)] for k, i in enumerate(odd)}
        return [
            Request(
                self.scale, self.seed, i + 1, p, self.difficulty, i in bilateral, matrices.get(i, "standard"),
                self.thrombus, centre=centre,
            )
            for i, (p, centre) in enumerate(zip(patterns, self._deal(patterns), strict=True))
        ]  # fmt: skip

    def _deal(self, patterns: list[str]) -> list[int]:
        """Return the centre of each case: as many of each pattern in every centre as possible, and of all cases."""
        if self.centres == 1:
            return [NO_CENTRE] * len(patterns)
        centres = [NO_CENTRE] * len(patterns)
        by_pattern = [i for pattern in PATTERNS for i, p in enumerate(patterns) if p == pattern]
        for k, i in enumerate(by_pattern):
            centres[i] = 1 + k % self.centres
        return centres


def make_cohort(
    root: Path,
    design: Design,
    dataset: str = "Phantom",
    *,
    jobs: int = 1,
    extras: Collection[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a cohort to ``root/datasets_raw/dataset`` and return that folder.

    ``dataset.json`` is written last: a folder without it is incomplete.

    Args:
        root: where ``datasets_raw`` is or will be.
        design: which patients to make.
        dataset: name of the data set.
        jobs: number of processes; it has no influence on what is written.
        extras: some of ``EXTRAS``, each written to its own folder.
        overwrite: replace an earlier cohort of this tool with this name.

    Raises:
        FileExistsError: if the folder holds files that may not be replaced. Nothing is written.
        OSError: if a file cannot be written; no partial file is left.
    """
    if unknown := set(extras) - set(EXTRAS):
        raise ValueError(f"extras are some of {', '.join(EXTRAS)}, not {', '.join(sorted(unknown))}")
    folder = Path(root) / "datasets_raw" / dataset
    present = _present(folder)
    if present and not overwrite:
        raise FileExistsError(f"{folder} already holds files. Choose another --dataset or add --overwrite.")
    if foreign := _foreign(folder, present):
        raise FileExistsError(f"{folder}: {foreign}, so --overwrite does not replace it. Choose another --dataset.")
    # Metadata is removed last, so that files left by an interruption are still recognised.
    for path in sorted((p for p in present if not p.is_dir()), key=lambda p: p.suffix == ".json"):
        files.remove(path)
    for name in set(EXTRAS) - set(extras):
        with contextlib.suppress(OSError):  # missing or not empty
            (folder / name).rmdir()
    for name in ("imagesTr", "labelsTr", "metadata", *extras):
        files.make_folder(folder / name, "--root")
    work = [(folder, request, tuple(extras)) for request in design.requests()]
    rows = list(tqdm(over_cases(_write_case, work, jobs), desc=dataset, total=len(work), unit="case"))
    table = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"
    files.replace(folder / "cases.csv", lambda draft: draft.write_text(table))
    _write_json(folder / "dataset.json", dataset_content(dataset, design.description, len(rows)))
    return folder


def dataset_content(name: str, description: str, cases: int) -> dict[str, Any]:
    """Return the content of ``dataset.json``."""
    return {
        "name": name,
        "description": description,
        "channel_names": {"0": "CE-MR"},
        "labels": {"background": 0, **REGIONS},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }


def table_row(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the row of ``cases.csv`` of a case; with its centre, if the cohort has several."""
    row = {
        "case_id": metadata["case"],
        "patient_id": f"patient_{metadata['index']:03d}",
        "level_left_mm": str(metadata["level_mm"]["left"]),
        "level_right_mm": str(metadata["level_mm"]["right"]),
        "midline_mm": str(metadata["midline_mm"]),
    }
    return row | ({"centre": str(metadata["centre"])} if "centre" in metadata else {})


def _present(folder: Path) -> list[Path]:
    """Return all paths in a folder; nothing if it does not exist."""
    try:
        return sorted(folder.rglob("*")) if folder.exists() else []
    except OSError as error:
        raise OSError(
            f"{folder}: cannot be read ({error.strerror}). Fix the permissions or choose another --root."
        ) from error


def _foreign(folder: Path, present: list[Path]) -> str | None:
    """Return why the paths of a folder are not an earlier cohort of the same name; None if they are."""
    names = {p.relative_to(folder).as_posix(): p for p in present if not p.is_dir()}
    for name, path in names.items():
        match = OUR_FILE.fullmatch(name)
        if not match:
            return f"{name} is not a file of this tool"
        case = match["image"] or match["label"]
        if case and f"metadata/{case}.json" not in names:
            return f"{name} has no metadata of this tool"
        if name == "dataset.json" and f'"name": "{folder.name}"' not in path.read_text(errors="replace"):
            return "dataset.json names another dataset"
    return None


def _write_case(work: tuple[Path, Request, tuple[str, ...]]) -> dict[str, str]:
    """Make and write one case; return its row of ``cases.csv``."""
    folder, request, extras = work
    case, name = make_case(request, diagnostics=bool({"truth", "veins"} & set(extras))), request.name
    _write_json(folder / "metadata" / f"{name}.json", case.metadata)
    _write_nifti(folder / "imagesTr" / f"{name}_0000.nii.gz", case.image, case)
    masks = {"labelsTr": case.label, "truth": case.truth, "veins": case.veins}
    if "rater2" in extras:
        masks["rater2"] = second_label(request, case)
    for kind, mask in masks.items():
        if mask is not None and kind in ("labelsTr", *extras):
            _write_nifti(folder / kind / f"{name}.nii.gz", mask, case)
    return table_row(case.metadata)


def _write_nifti(path: Path, array: np.ndarray, case: PhantomCase) -> None:
    """Write an array (S, H, W) on the grid of a case."""
    volume = sitk.GetImageFromArray(array)
    volume.SetSpacing(case.spacing_mm[::-1])
    volume.SetOrigin(case.origin_mm)
    volume.SetDirection(np.array(case.direction[::-1]).T.ravel().tolist())

    def write(draft: Path) -> None:
        # Noise hardly compresses and labels are long runs. Run-length coding takes a tenth of the time of the
        # default strategy, and no more bytes.
        plain = draft.with_name(draft.name.removesuffix(".gz"))
        try:
            content = _plain_bytes(volume, plain, HEADER_BYTES + array.nbytes)
        finally:
            plain.unlink(missing_ok=True)
        packer = zlib.compressobj(1, zlib.DEFLATED, GZIP_WINDOW, 9, zlib.Z_RLE)
        draft.write_bytes(packer.compress(content) + packer.flush())

    files.replace(path, write)


def _plain_bytes(volume: sitk.Image, path: Path, expected: int) -> bytes:
    """Return the uncompressed NIfTI file of a volume, written to disk and read back.

    Raises:
        OSError: if it was not written completely: SimpleITK's NIfTI writer does not report a full disk.
    """
    path.write_bytes(bytes(expected))  # unlike SimpleITK, this reports why it fails
    try:
        sitk.WriteImage(volume, str(path), useCompression=False)
    except RuntimeError as error:
        raise OSError("SimpleITK failed") from error
    content = path.read_bytes()
    if len(content) != expected:
        raise OSError(f"cut off after {len(content)} of {expected} bytes, as on a full disk")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    files.replace(path, lambda draft: draft.write_text(json.dumps(content, indent=2) + "\n"))
