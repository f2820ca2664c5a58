"""Make one case of the phantom: its request, image, labels and metadata."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from phantom import VERSION
from phantom.anatomy import Anatomy, draw_anatomy
from phantom.artefacts import Scan, acquire, draw_scan, paint_wrap
from phantom.body import paint_tissue
from phantom.centres import CENTRES, NO_CENTRE, centre, scanned_at
from phantom.confounders import OEDEMA, paint_collaterals, paint_confounders, paint_oedema
from phantom.contrast import paint_vessels, vein_ids
from phantom.difficulty import DIFFICULTIES
from phantom.grid import DIRECTION, MATRICES, SCALES, Frame
from phantom.rater import draw_label
from phantom.signals import Look
from phantom.skeleton import paint_bones
from phantom.thrombus import Clot, Lesion, draw_clots, lesions_of, paint_clots, truth_label, widen

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
REPORTED_RESOLUTION_MM = (0.75, 0.55, 0.6)
"""Resolution stated by Huang 2019. It does not fit the paper's matrix and field of view, and is only recorded."""
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
    centre: int = NO_CENTRE
    """Number of the centre whose scanner is used, from 1; ``NO_CENTRE`` in a cohort without centres."""

    def __post_init__(self) -> None:
        for field, known in (
            ("scale", SCALES),
            ("pattern", PATTERNS),
            ("difficulty", DIFFICULTIES),
            ("matrix", MATRICES),
        ):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} is one of {', '.join(known)}, not {getattr(self, field)!r}")
        if not NO_CENTRE <= self.centre <= len(CENTRES):
            raise ValueError(f"centre is {NO_CENTRE} (none) to {len(CENTRES)}, not {self.centre}")
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
class Patient:
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
    recorded = [field for field in fields(Request) if field.name != "centre" or "centre" in metadata]
    for field in recorded:
        kind, called = JSON_KINDS[str(field.type)]
        if field.name not in metadata:
            raise ValueError(f"{field.name!r} is missing; make it again")
        if type(metadata[field.name]) is not kind:  # for isinstance, True is an integer
            raise ValueError(f"{field.name} is {metadata[field.name]!r}, expected {called}; make it again")
    try:
        return Request(**{field.name: metadata[field.name] for field in recorded})
    except ValueError as error:
        raise ValueError(f"{error}; make it again") from None


def make_case(request: Request, diagnostics: bool = True) -> PhantomCase:
    """Draw and sample one patient; without ``diagnostics`` the truth and the map of veins are omitted."""
    size, difficulty = SCALES[request.scale], scanned_at(request.centre, DIFFICULTIES[request.difficulty])
    patient = draw_patient(request)
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
    patient = draw_patient(request)
    return patient.scan.move(
        draw_label(patient.frame, patient.clots, SCALES[request.scale].boost, request.rng("second rater"))
    )


def draw_patient(request: Request) -> Patient:
    """Draw a patient and a scan without painting them."""
    size = SCALES[request.scale]
    frame = Frame.of(size, request.matrix, centre(request.centre).voxel)
    anatomy = draw_anatomy(request.rng("anatomy"), size.boost, step_mm=0.6 * frame.voxel_mm)
    clots = widen(frame, draw_clots(request.rng("thrombus"), anatomy, request.pattern, request.bilateral))
    scan = draw_scan(
        request.rng("artefact"), frame, anatomy, scanned_at(request.centre, DIFFICULTIES[request.difficulty])
    )
    return Patient(frame, anatomy, clots, scan)


def _metadata(
    request: Request, patient: Patient, case: PhantomCase, lesions: list[Lesion], present: dict[str, Any]
) -> dict[str, Any]:
    frame, anatomy, scan = patient.frame, patient.anatomy, patient.scan
    person = request.rng("person")
    knee = {limb: anatomy.knee_mm(limb) for limb in anatomy.limbs}
    confluence = {limb: anatomy.confluence_mm(limb) for limb in anatomy.limbs}
    middle = float(anatomy.trunk.midline_mm(float(np.mean(list(knee.values())))))
    return {
        "case": request.name,
        "version": VERSION,
        **{name: value for name, value in asdict(request).items() if name != "centre" or value != NO_CENTRE},
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
