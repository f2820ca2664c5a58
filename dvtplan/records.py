"""The vocabulary: what passes between stages. Frozen, keyword-only, validated when made."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from dvtplan.errors import how_many
from dvtplan.geometry import AXES


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


ASIDE = "aside"
"""Metadata of a field that was added later and that nothing follows from: no digest counts it."""


# --- the raw data set ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """Where proximal ends and distal begins in each limb, as LPS z in mm (superior is larger).

    In patient coordinates, so that it survives any resize. Where only one limb's level is known
    it holds for the whole volume.
    """

    left_mm: float | None = None
    right_mm: float | None = None
    midline_mm: float | None = None
    """LPS x between the legs; none: the middle of the volume."""

    def __post_init__(self) -> None:
        _require(self.left_mm is not None or self.right_mm is not None, "levels without any limb")

    @property
    def both_mm(self) -> tuple[float, float]:
        """Left and right; one known level serves both limbs."""
        known = [level for level in (self.left_mm, self.right_mm) if level is not None]
        return known[0], known[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One scan: an image file per channel and, where it is known, the truth."""

    id: str
    patient: str
    """Cases of one patient share a fold."""
    images: tuple[Path, ...]
    label: Path | None = None
    levels: Levels | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set in nnU-Net's raw layout."""

    name: str
    folder: Path
    channels: tuple[str, ...]
    labels: dict[str, int]
    """Foreground label name -> value in the files; background is always 0 and not listed."""
    cases: tuple[Case, ...]
    description: str = ""
    """What ``dataset.json`` says of it."""

    @property
    def is_phantom(self) -> bool:
        """Whether it says of itself that it is synthetic."""
        return is_synthetic(self.description)

    @property
    def subject(self) -> str:
        """Its name for captions, never without the word where its patients are phantoms."""
        return called(self.name, self.is_phantom)


def is_synthetic(description: str) -> bool:
    """Whether a data set of that description says of itself that its images were computed."""
    return description.lower().startswith("synthetic")


def called(dataset: str, phantom: bool | None) -> str:
    """What a data set is called where its phantoms must not pass for patients."""
    return f"{dataset} (phantom)" if phantom else dataset


PHANTOM_WARNING = "Phantom scores rank methods and catch bugs; they are no evidence of clinical accuracy."
"""Stands beside every score of a phantom."""
PHANTOM_NOTE = f"Phantom data: images and truth were computed. {PHANTOM_WARNING}"
"""Stands below every table of them."""


# --- what was measured ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelFingerprint:
    """Intensities of one image file, in scanner units."""

    minimum: float
    low: float
    """0.5th percentile."""
    high: float
    """99.5th percentile."""
    maximum: float
    slice_maximum_spread: dict[str, float]
    """Per axis: 90th over 10th percentile of the slices' maxima above the minimum."""
    shares_below: tuple[float, float] | None = field(default=None, metadata={ASIDE: True})
    """Share of the voxels below a tenth (background, mostly air) and below half of the way from ``low`` to
    ``high``. None in fingerprints from before it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegionFingerprint:
    """How much of one label a case holds."""

    voxels: int
    ml: float
    components: int
    """26-connected pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseFingerprint:
    """What one case looks like. Axes are anatomical (LR, AP, SI), whatever the file's order."""

    id: str
    patient: str
    shape: dict[str, int]
    spacing_mm: dict[str, float]
    orientation: str
    channels: tuple[ChannelFingerprint, ...]
    positive_slices: dict[str, int]
    """Per axis: how many slices hold any foreground."""
    regions: dict[str, RegionFingerprint]
    source_digest: str
    """SHA-256 of the raw files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What the data set looks like, case by case."""

    dataset: str
    channels: tuple[str, ...]
    labels: dict[str, int]
    cases: tuple[CaseFingerprint, ...]

    def __post_init__(self) -> None:
        _require(len(self.cases) > 0, "a fingerprint of no cases")


# --- what was decided -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One augmentation of a slice: rotate, scale about the centre, then perhaps mirror columns."""

    angle_deg: float
    """Counter-clockwise as displayed."""
    scale: float
    """Above 1 enlarges what is seen."""
    mirror: bool

    def __post_init__(self) -> None:
        _require(-180 <= self.angle_deg <= 180, f"angle_deg must lie in -180..180, not {self.angle_deg}")
        _require(0.1 <= self.scale <= 10, f"scale must lie in 0.1..10, not {self.scale}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalization:
    """Min-max scaling (Huang 2019, eq. 1) and what its minimum and maximum are taken over."""

    scope: str
    """'slice' or 'volume'."""
    clip_percentiles: tuple[float, float] | None = None
    """Percentiles of the scope that stand in for minimum and maximum; none: the true ones."""

    def __post_init__(self) -> None:
        _require(self.scope in ("slice", "volume"), f"scope must be 'slice' or 'volume', not {self.scope!r}")
        if self.clip_percentiles is not None:
            low, high = self.clip_percentiles
            _require(
                0 <= low < high <= 100,
                f"clip_percentiles must rise within 0..100, not {self.clip_percentiles}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How every case of a data set is cut, resized, normalized and augmented."""

    dataset: str
    preset: str
    """'auto' (derived from the fingerprint) or 'paper' (Huang 2019 to the letter)."""
    slice_axis: str
    """Anatomical axis that counts slices."""
    target_shape: tuple[int, int]
    """Rows and columns that the network sees."""
    normalization: Normalization
    variants: tuple[Variant, ...]
    channels: tuple[str, ...]
    labels: dict[str, int]
    because: dict[str, str]
    """For each decision, the sentence that explains it with its numbers."""
    fingerprint_digest: str

    def __post_init__(self) -> None:
        _require(self.slice_axis in AXES, f"slice_axis must be one of {', '.join(AXES)}, not {self.slice_axis!r}")
        _require(
            all(16 <= n <= 8192 and n % 16 == 0 for n in self.target_shape),
            f"target_shape must hold multiples of 16 (four poolings) from 16 to 8192, not {self.target_shape}",
        )
        values = list(self.labels.values())
        _require(
            values == sorted(set(values)) and all(1 <= v <= 254 for v in values),
            f"labels must map names to rising values from 1 to 254 (the network's classes have that order), "
            f"not {self.labels}",
        )
        _require(len(self.variants) > 0, "variants must hold at least one entry; no augmentation is "
                 '[{"angle_deg": 0, "scale": 1, "mirror": false}]')  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One division of the cases; no patient stands on both sides."""

    index: int
    train: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """All folds of a cross-validation."""

    source: str
    """'seed N', or the file that they were read from."""
    folds: tuple[Fold, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides a training beside the plan, the fold and the network's shape.

    The defaults are the recipe `paper`; what the paper leaves open is marked "ours".
    """

    name: str = "paper"
    """What it is called; of a changed one, which fields were."""
    epochs: int = 250
    """Passes over the training slices, each in one random variant (section 2.4)."""
    batch_size: int = 2
    """Slices per step, over all processes together (section 2.4)."""
    learning_rate: float = 1e-3
    """Adam's step size at the start (section 2.4)."""
    lr_drops: tuple[float, ...] = (0.6, 0.85)
    """Fractions of the epochs after which the learning rate falls (ours)."""
    lr_factor: float = 0.1
    """What it is multiplied with: the paper's "gamma 0.1" in the solver's sense (our reading)."""
    beta1: float = 0.9
    """Adam's first moment decay, the paper's "momentum" (section 2.4)."""
    focal_gamma: float = 2.0
    """Focusing exponent (Lin et al. 2017; the paper gives none)."""
    focal_alpha: float | None = None
    """Weight of the foreground, 1 - alpha for the background; none: both weigh 1 (ours)."""
    oversampling: float = 0.0
    """Share of the slices of an epoch that are drawn anew from those with lesions, every label equally
    often; 0: every slice comes once (ours)."""
    norm_groups: int = 32
    """Groups of a group normalization (Keras' default; the paper gives none)."""
    width: int = 32
    """Channels of the first level; 32 gives the paper's "about 7.8 million" parameters."""
    target: str = "auto"
    """'lesion' trains the union of all labels, 'labels' a class each; 'auto' is 'lesion' for a single
    label and for proximal/distal, which differ by place and not by look, else 'labels'."""
    seed: int = 0
    """Decides initial weights, the order of slices and their variants."""

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"epochs must be at least 1, not {self.epochs}")
        _require(self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}")
        for name in ("learning_rate", "lr_factor", "focal_gamma"):
            value = getattr(self, name)
            _require(math.isfinite(value), f"{name} must be finite, not {value}")
        _require(self.learning_rate > 0, f"learning_rate must be positive, not {self.learning_rate}")
        _require(
            all(0 < f < 1 for f in self.lr_drops) and list(self.lr_drops) == sorted(self.lr_drops),
            f"lr_drops must rise within 0..1, not {self.lr_drops}",
        )
        _require(self.lr_factor > 0, f"lr_factor must be positive, not {self.lr_factor}")
        _require(0 <= self.beta1 < 1, f"beta1 must lie in [0, 1), not {self.beta1}")
        _require(self.focal_gamma >= 0, f"focal_gamma must not be negative, not {self.focal_gamma}")
        _require(
            self.focal_alpha is None or 0 < self.focal_alpha < 1,
            f"focal_alpha must lie in (0, 1) or be none, not {self.focal_alpha}",
        )
        _require(0 <= self.oversampling <= 1, f"oversampling must lie in [0, 1], not {self.oversampling}")
        _require(self.width >= 1 and self.norm_groups >= 1, "width and norm_groups must be at least 1")
        _require(
            self.width % self.norm_groups == 0,
            f"norm_groups {self.norm_groups} must divide width {self.width}",
        )
        _require(self.seed >= 0, f"seed must not be negative, not {self.seed}")
        _require(
            self.target in ("auto", "lesion", "labels"),
            f"target must be 'auto', 'lesion' or 'labels', not {self.target!r}",
        )
        _require(self.seed >= 0, f"seed must not be negative, not {self.seed}")

    def learning_rate_at(self, epoch: int) -> float:
        """The learning rate during an epoch, counted from 0."""
        passed = sum(epoch >= round(f * self.epochs) for f in self.lr_drops)
        return self.learning_rate * self.lr_factor**passed


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What a fold was trained with, and how far: ``run.json``."""

    network: str
    fold: int
    recipe: Recipe
    """As used, every field decided."""
    classes: dict[str, int]
    """What the network's outputs mean: name -> value in predicted masks; one: a sigmoid."""
    channels: int
    parameters: int
    train: tuple[str, ...]
    test: tuple[str, ...]
    plan_digest: str
    splits_digest: str
    setup: str
    """Device and precision."""
    processes: int
    versions: dict[str, str]
    started: str
    epochs_done: int
    seconds: float
    """Of training, over all resumes."""
    waiting_share: float
    """Of that time, the share spent waiting for data."""


def alike(runs: Sequence[Run]) -> list[str]:
    """A line if folds, or networks, were trained by different recipes or plans; none if all are alike."""
    kinds: dict[tuple[Recipe, str], list[Run]] = {}
    for run in runs:
        kinds.setdefault((replace(run.recipe, name=""), run.plan_digest), []).append(run)
    if len(kinds) < 2:
        return []
    networks = dict.fromkeys(run.network for run in runs)
    told = []
    for of in kinds.values():
        folds = {name: ", ".join(str(run.fold) for run in of if run.network == name) for name in networks}
        who = [f"{name} fold {k}" if len(networks) > 1 else f"fold {k}" for name, k in folds.items() if k]
        told.append(f"{', '.join(who)}: {of[0].recipe.name}, {how_many(of[0].recipe.epochs, 'epoch')}")
    plans = len({digest for _, digest in kinds})
    also = f"; by {plans} plans" if plans > 1 else ""
    what = "networks" if len(networks) > 1 else "folds"
    return [f"These {what} were not trained alike ({'; '.join(told)}{also})."]


# --- what came out --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """What lies in a folder of predictions, and where it came from: ``predictions.json``."""

    model_digest: str
    classes: dict[str, int]
    cases: dict[str, str]
    """Case -> digest of the image files that its mask was made from."""
    masks: dict[str, str] = field(default_factory=dict)
    """Case -> digest of its mask as it was written."""
    with_probabilities: tuple[str, ...] = ()
    """Cases whose probability volumes lie beside their masks."""
    others: dict[str, str] = field(default_factory=dict)
    """Case -> digest of its mask, of masks that another model made before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Composition:
    """How table stations became one scan, and the masks that went back to them: ``ID_stations.json``."""

    stations_from_head_to_foot: tuple[str, ...]
    gains: tuple[float, ...]
    """What each was multiplied with."""
    seams_lps_z_mm: tuple[float, ...]
    masks: dict[str, str]
    """File of a station's mask -> its SHA-256 as it was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionStart:
    """One run of ``dvt_predict``, or of a fold's prediction: what was asked for, and what did it."""

    started: str
    device: str
    precision: str
    setup: str
    """Device, precision and memory layout in words."""
    options: dict[str, str]
    """As given, by name; those left at their default are not listed."""
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionOfCase:
    """How one mask came to be."""

    images: dict[str, str]
    """Input file by name, a channel each -> SHA-256; of DICOM: series -> SHA-256 of its volume as it was read."""
    mask: str
    """Name of its file."""
    mask_digest: str
    """SHA-256 of that file."""
    slices: int
    reading_s: float
    network_s: float
    """With resizing there and back."""
    writing_s: float
    finished: str
    start: int
    """Which of the runs made it, counted from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Where masks come from: ``run.json`` beside them.

    ``predictions.json`` is for the machine: it vouches for masks, so that they are kept. This is for a reader, and
    for what is to be cited.
    """

    model: str
    """Path of the results folder or archive."""
    model_digest: str
    network: str
    folds: tuple[int, ...]
    classes: dict[str, int]
    """Name -> value in the masks."""
    starts: tuple[PredictionStart, ...]
    """Several where a prediction was taken up again."""
    cases: dict[str, PredictionOfCase]

    def __post_init__(self) -> None:
        _require(
            all(0 <= case.start < len(self.starts) for case in self.cases.values()),
            f"start must be a number below {len(self.starts)}, how many runs are listed",
        )


class Confusion(NamedTuple):
    """Voxel counts of a prediction against the truth, and the scores that follow from them."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: object) -> Confusion:
        if not isinstance(other, Confusion):
            return NotImplemented
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def truth(self) -> int:
        """Voxels of the truth."""
        return self.tp + self.fn

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def dsc(self) -> float:
        """Dice similarity coefficient (eq. 2); not a number where there is no truth."""
        return _score(2 * self.tp, 2 * self.tp + self.fp + self.fn, self.truth)

    @property
    def precision(self) -> float:
        """Share of the prediction that is true (eq. 3); 0 where nothing was predicted."""
        return _score(self.tp, self.predicted, self.truth)

    @property
    def recall(self) -> float:
        """Share of the truth that was found (eq. 4)."""
        return _score(self.tp, self.truth, self.truth)

    @property
    def iou(self) -> float:
        """Intersection over union; the DSC's d / (2 - d), for a single case."""
        return _score(self.tp, self.tp + self.fp + self.fn, self.truth)


def _score(part: int, whole: int, truth: int) -> float:
    """The empty-mask table: no truth, no score; truth but nothing predicted, zero."""
    if truth == 0:
        return float("nan")
    return part / whole if whole else 0.0
