"""Draw the cases of a cohort, make one case, and write nnU-Net's raw layout, cases.csv and metadata."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import zlib
from collections.abc import Collection
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from tqdm import tqdm

from phantom import VERSION, files
from phantom.anatomy import Anatomy, draw_anatomy
from phantom.artefacts import Scan, acquire, draw_scan, paint_wrap
from phantom.body import paint_tissue
from phantom.confounders import OEDEMA, paint_collaterals, paint_confounders, paint_oedema
from phantom.contrast import paint_vessels, vein_ids
from phantom.difficulty import DIFFICULTIES
from phantom.grid import DIRECTION, MATRICES, SCALES, Frame
from phantom.rater import draw_label
from phantom.signals import Look
from phantom.skeleton import paint_bones
from phantom.thrombus import REGIONS, Clot, Lesion, draw_clots, lesions_of, paint_clots, truth_label, widen
from phantom.workers import over_cases

STREAMS = {
    name: number
    for number, name in enumerate(
        (
            "cohort",
            "anatomy",
            "thrombus",
            "contrast",
            "artefact",
            "rater",
            "second rater",
            "noise",
            "confounders",
            "person",
            "texture",
        )
    )
}
"""Independent random streams of a case, so that a change of one does not affect the others."""
PATTERNS = {"proximal": 15, "both": 39, "distal": 4}
"""Regions with clot, and the number of patients with them among the 58 of Huang 2019."""
BILATERAL = 2
"""Number of the 58 patients with proximal thrombus only, in both limbs: 56 proximal lesions, 43 distal."""
OTHER_MATRIX = 0.1
"""Share of cases with another matrix than the standard one."""
REPORTED_RESOLUTION_MM = (0.75, 0.55, 0.6)
"""Resolution stated by Huang 2019. It does not fit the paper's matrix and field of view, and is only recorded."""
GZIP_WINDOW = 31
"""zlib's code for a gzip container with the largest window."""
HEADER_BYTES = 352
"""Bytes of a NIfTI-1 file before its voxels."""
EXTRAS = ("truth", "veins", "rater2")
"""Optional masks: the exact truth, the map of veins, a second rater's label."""


JSON_KINDS = {"str": (str, "text"), "int": (int, "a whole number"), "bool": (bool, "true or false")}
"""Type of a field of a request -> its Python type after JSON, and its name in messages."""


@dataclass(frozen=True, slots=True)
class Request:
    """All parameters of one case: equal requests give equal voxels."""

    scale: str
    """A key of ``grid.SCALES``."""
    seed: int
    """Seed of the cohort."""
    index: int
    """Number of the case in the cohort, from 1."""
    pattern: str
    """A key of ``PATTERNS``."""
    difficulty: str = "default"
    """A key of ``DIFFICULTIES``."""
    bilateral: bool = False
    """Whether both limbs have proximal thrombus."""
    matrix: str = "standard"
    """A key of ``grid.MATRICES``."""
    thrombus: bool = True
    """False gives the same patient with the same noise, without clot."""
    oedema: bool = True
    """False omits oedema, the only cue outside the veins that is related to thrombus."""

    def __post_init__(self) -> None:
        for field, known in (
            ("scale", SCALES),
            ("pattern", PATTERNS),
            ("difficulty", DIFFICULTIES),
            ("matrix", MATRICES),
        ):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} is one of {', '.join(known)}, not {getattr(self, field)!r}")
        if self.seed < 0 or self.index < 1:
            raise ValueError(f"seed is 0 or more and index 1 or more, not {self.seed} and {self.index}")

    @property
    def name(self) -> str:
        """The case id."""
        return f"leg_{self.index:03d}"

    def rng(self, stream: str) -> np.random.Generator:
        """Return a new random generator for a key of ``STREAMS``."""
        seeds = np.random.SeedSequence([self.seed, self.index, STREAMS[stream]])
        return np.random.Generator((np.random.SFC64 if stream == "noise" else np.random.PCG64)(seeds))


@dataclass(frozen=True, slots=True, kw_only=True)
class PhantomCase:
    """One sampled patient; spacing, origin and direction are as in ``dvtplan.imaging.geometry.Grid``."""

    image: np.ndarray
    """int16 (S, H, W); venous blood at 1 mM is about 400."""
    label: np.ndarray
    """uint8 (S, H, W), drawn by a rater: 0 background, 1 proximal, 2 distal thrombus."""
    truth: np.ndarray | None
    """uint8 (S, H, W), exact: voxels that clot covers by at least half."""
    veins: np.ndarray | None
    """uint8 (S, H, W): 0, or the number of a vein in ``metadata["vein_ids"]``; clot belongs to its vein."""
    spacing_mm: tuple[float, float, float]
    """Voxel size along S, H, W."""
    origin_mm: tuple[float, float, float]
    """LPS position of the centre of voxel (0, 0, 0)."""
    direction: tuple[tuple[float, float, float], ...]
    """LPS unit vector along S, H, W."""
    metadata: dict[str, Any]
    """Content of the case's JSON file."""


@dataclass(frozen=True, slots=True)
class _Patient:
    """The random draws of a patient, made before any voxel is painted."""

    frame: Frame
    anatomy: Anatomy
    clots: list[Clot]
    scan: Scan


def request_of(metadata: dict[str, Any]) -> Request:
    """Read the request of a case from its JSON file.

    Raises:
        ValueError: if the file is of another version of this generator, or a field is missing or invalid.
    """
    if metadata.get("version") != VERSION:
        raise ValueError(f"made by version {metadata.get('version')} of the generator, not {VERSION}; make it again")
    for field in fields(Request):
        kind, called = JSON_KINDS[str(field.type)]
        if field.name not in metadata:
            raise ValueError(f"{field.name!r} is missing; make it again")
        if type(metadata[field.name]) is not kind:  # for isinstance, True is an integer
            raise ValueError(f"{field.name} is {metadata[field.name]!r}, expected {called}; make it again")
    try:
        return Request(**{field.name: metadata[field.name] for field in fields(Request)})
    except ValueError as error:
        raise ValueError(f"{error}; make it again") from None


def make_case(request: Request, diagnostics: bool = True) -> PhantomCase:
    """Draw and sample one patient; without ``diagnostics`` the truth and the map of veins are omitted."""
    size, difficulty = SCALES[request.scale], DIFFICULTIES[request.difficulty]
    patient = _draw_patient(request)
    frame, anatomy, clots, scan = patient.frame, patient.anatomy, patient.clots, patient.scan
    ids = vein_ids(anatomy)
    contrast, confounders = request.rng("contrast"), request.rng("confounders")
    look = Look.draw(contrast)

    image = paint_tissue(frame, anatomy, look, request.rng("texture"))
    nets, winding = confounders.spawn(2)
    swollen = bool(confounders.random() < OEDEMA) and request.oedema
    if swollen:
        paint_oedema(image, frame, anatomy, clots[0].limb, look, nets)
    paint_bones(image, frame, anatomy, look)
    present: dict[str, Any] = paint_confounders(image, frame, anatomy, look, size.boost, confounders)
    present["oedema"] = swollen
    old = next((c for c in clots if c.age == "old" and c.region == "proximal"), None)
    present["collaterals"] = old is not None
    if old is not None:
        paint_collaterals(image, frame, old.tube, size.boost, winding)
    veins, pulsation = paint_vessels(image, frame, anatomy, look, difficulty, size.boost, contrast)
    painted = clots if request.thrombus else []
    paint_clots(image, veins, frame, painted, look, size.boost, ids)
    paint_wrap(image, frame, anatomy, scan)
    stored = acquire(image, pulsation, frame, scan, difficulty, request.rng("artefact"), request.rng("noise"))
    label = draw_label(frame, painted, size.boost, request.rng("rater"))
    case = PhantomCase(
        image=stored,
        label=scan.move(label),
        truth=scan.move(truth_label(frame, painted)) if diagnostics else None,
        veins=scan.move(veins) if diagnostics else None,
        spacing_mm=frame.spacing_mm,
        origin_mm=(float(frame.x[0]), float(frame.y[0]), float(frame.z[0])),
        direction=DIRECTION,
        metadata={},
    )
    return replace(case, metadata=_metadata(request, patient, case, lesions_of(frame, painted), present))


def second_label(request: Request, case: PhantomCase) -> np.ndarray:
    """Draw the label of another rater of the same case, uint8 (S, H, W)."""
    if not request.thrombus:
        return np.zeros_like(case.label)
    patient = _draw_patient(request)
    return patient.scan.move(
        draw_label(patient.frame, patient.clots, SCALES[request.scale].boost, request.rng("second rater"))
    )


def _draw_patient(request: Request) -> _Patient:
    size = SCALES[request.scale]
    frame = Frame.of(size, request.matrix)
    anatomy = draw_anatomy(request.rng("anatomy"), size.boost, step_mm=0.6 * frame.voxel_mm)
    clots = widen(frame, draw_clots(request.rng("thrombus"), anatomy, request.pattern, request.bilateral))
    scan = draw_scan(request.rng("artefact"), frame, anatomy, DIFFICULTIES[request.difficulty])
    return _Patient(frame, anatomy, clots, scan)


def _metadata(
    request: Request, patient: _Patient, case: PhantomCase, lesions: list[Lesion], present: dict[str, Any]
) -> dict[str, Any]:
    frame, anatomy, scan = patient.frame, patient.anatomy, patient.scan
    person = request.rng("person")
    knee = {limb: anatomy.knee_mm(limb) for limb in anatomy.limbs}
    confluence = {limb: anatomy.confluence_mm(limb) for limb in anatomy.limbs}
    middle = float(anatomy.trunk.midline_mm(float(np.mean(list(knee.values())))))
    return {
        "case": request.name,
        "version": VERSION,
        **asdict(request),
        "shape": list(frame.shape),
        "spacing_mm": list(frame.spacing_mm),
        "paper_reported_resolution_mm": list(REPORTED_RESOLUTION_MM),
        "sex": "F" if person.random() < 33 / 58 else "M",
        "age_years": int(np.clip(person.normal(58, 15), 28, 96)),
        "knee_mm": {limb: round(z, 2) for limb, z in knee.items()},
        "level_mm": {limb: round(z, 2) for limb, z in confluence.items()},
        "midline_mm": round(middle, 2),
        "knee_row": {limb: frame.row(z) for limb, z in knee.items()},
        "split_row": {limb: frame.row(z) for limb, z in confluence.items()},
        "midline_column": frame.column(middle),
        "stations": [asdict(station) for station in scan.stations],
        "blend_rows": scan.blend_rows,
        "artefacts": {
            "bias": [round(b, 3) for b in scan.bias],
            "flares": len(scan.flares),
            "ghost": round(scan.ghost, 3),
            "wrap": scan.arm is not None,
        },
        "confounders": present,
        "duplications": [f"{limb} {n}" for limb, veins in anatomy.veins.items() for n in veins if n.endswith("double")],
        "lesions": [asdict(lesion) for lesion in lesions],
        "vein_ids": [
            {"id": number, "limb": limb, "vein": name, "region": anatomy.veins[limb][name].region}
            for (limb, name), number in vein_ids(anatomy).items()
        ],
        "sha256": {"image": _digest(case.image), "label": _digest(case.label)},
    }


def _digest(array: np.ndarray) -> str:
    """Return the SHA-256 of the voxels in array order, little-endian."""
    return hashlib.sha256(
        np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data
    ).hexdigest()


# ---- cohort and files --------------------------------------------------------------------------------

OUR_FILE = re.compile(
    r"\.?(dataset\.json|cases\.csv)|metadata/\.?leg_\d+\.json"
    r"|(imagesTr/\.?(?P<image>leg_\d+)_0000|(labelsTr|truth|veins|rater2)/\.?(?P<label>leg_\d+))\.nii\.gz"
    r"|(imagesTr/\.leg_\d+_0000|(labelsTr|truth|veins|rater2)/\.leg_\d+)\.nii"
)
"""Matches every path that this tool writes in a dataset folder; a leading dot is an interrupted write."""


def draw_requests(
    scale: str, seed: int = 0, cases: int | None = None, difficulty: str = "default", thrombus: bool = True
) -> list[Request]:
    """Draw the requests of a cohort in the proportions of ``PATTERNS``; from 8 cases on, all patterns occur."""
    if scale not in SCALES:
        raise ValueError(f"scale is one of {', '.join(SCALES)}, not {scale!r}")
    count = SCALES[scale].cases if cases is None else cases
    if count < 1:
        raise ValueError(f"a cohort needs at least one case, not {count}")
    total = sum(PATTERNS.values())
    counts = {p: max(count * n // total, int(count >= 8)) for p, n in PATTERNS.items()}
    counts["both"] += count - sum(counts.values())
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, 0, STREAMS["cohort"]])))
    patterns = [str(p) for p in rng.permutation([p for p, n in counts.items() for _ in range(n)])]
    alone = [i for i, pattern in enumerate(patterns) if pattern == "proximal"]
    bilateral = set(alone[: round(BILATERAL * count / total)])
    others = [name for name in MATRICES if name != "standard"]
    odd = rng.permutation(count)[: round(OTHER_MATRIX * count)]
    matrices = {int(i): others[k % len(others)] for k, i in enumerate(odd)}
    return [
        Request(scale, seed, i + 1, p, difficulty, i in bilateral, matrices.get(i, "standard"), thrombus)
        for i, p in enumerate(patterns)
    ]


def make_cohort(
    root: Path,
    dataset: str = "Phantom",
    scale: str = "tiny",
    cases: int | None = None,
    seed: int = 0,
    difficulty: str = "default",
    jobs: int = 1,
    thrombus: bool = True,
    extras: Collection[str] = (),
    overwrite: bool = False,
) -> Path:
    """Write a cohort to ``root/datasets_raw/dataset`` and return that folder.

    ``dataset.json`` is written last: a folder without it is incomplete.

    Args:
        root: where ``datasets_raw`` is or will be.
        dataset: name of the data set.
        scale: a key of ``grid.SCALES``.
        cases: number of cases; None for the default of the scale.
        seed: equal seeds give equal cohorts.
        difficulty: a key of ``DIFFICULTIES``.
        jobs: number of processes; it has no influence on what is written.
        thrombus: False writes the same patients without clot.
        extras: some of ``EXTRAS``, each written to its own folder.
        overwrite: replace an earlier cohort of this tool with this name.

    Raises:
        FileExistsError: if the folder holds files that may not be replaced. Nothing is written.
        OSError: if a file cannot be written; no partial file is left.
    """
    if unknown := set(extras) - set(EXTRAS):
        raise ValueError(f"extras are some of {', '.join(EXTRAS)}, not {', '.join(sorted(unknown))}")
    folder = Path(root) / "datasets_raw" / dataset
    requests = draw_requests(scale, seed, cases, difficulty, thrombus)
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
    work = [(folder, request, tuple(extras)) for request in requests]
    rows = list(tqdm(over_cases(_write_case, work, jobs), desc=dataset, total=len(work), unit="case"))
    table = "\n".join([",".join(rows[0]), *(",".join(row.values()) for row in rows)]) + "\n"
    files.replace(folder / "cases.csv", lambda draft: draft.write_text(table))
    description = description_of(scale, difficulty, seed, thrombus)
    _write_json(folder / "dataset.json", dataset_content(dataset, description, len(rows)))
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


def description_of(scale: str, difficulty: str, seed: int, thrombus: bool = True) -> str:
    """Return the description of a cohort in ``dataset.json``; it begins with 'synthetic'."""
    text = f"synthetic: phantom legs, generator {VERSION}, scale {scale}, difficulty {difficulty}, seed {seed}"
    return text if thrombus else f"{text}, without thrombus"


def table_row(metadata: dict[str, Any]) -> dict[str, str]:
    """Return the row of ``cases.csv`` of a case."""
    return {
        "case_id": metadata["case"],
        "patient_id": f"patient_{metadata['index']:03d}",
        "level_left_mm": str(metadata["level_mm"]["left"]),
        "level_right_mm": str(metadata["level_mm"]["right"]),
        "midline_mm": str(metadata["midline_mm"]),
    }


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
