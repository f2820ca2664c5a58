"""The plan of a data set: how its cases are preprocessed and augmented."""

from __future__ import annotations

from dataclasses import dataclass, replace

from dvtplan.core.errors import require
from dvtplan.core.json_records import added_later, digest
from dvtplan.data.names import label_faults
from dvtplan.imaging.geometry import AXES
from dvtplan.imaging.normalize import Normalization


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One augmentation of a slice: rotation, scaling about the centre, then optional mirroring of columns."""

    angle_deg: float
    """Counter-clockwise as displayed."""
    scale: float
    """Above 1 enlarges the image content."""
    mirror: bool

    def __post_init__(self) -> None:
        require(-180 <= self.angle_deg <= 180, f"angle_deg must lie in -180..180, not {self.angle_deg}")
        require(0.1 <= self.scale <= 10, f"scale must lie in 0.1..10, not {self.scale}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How every case of a data set is sliced, resized, normalized and augmented."""

    dataset: str
    preset: str
    """'auto' (derived from the fingerprint) or 'paper' (Huang 2019 to the letter)."""
    slice_axis: str
    """Anatomical axis along which slices are stacked: LR, AP or SI."""
    target_shape: tuple[int, int]
    """Rows and columns of the network's input."""
    normalization: Normalization
    variants: tuple[Variant, ...]
    channels: tuple[str, ...]
    labels: dict[str, int]
    because: dict[str, str]
    """For each decision, a sentence that gives the reason with its numbers."""
    fingerprint_digest: str
    trust: str | None = added_later(None)
    """Form by which contradictory NIfTI headers of the data set are read; None: they are refused."""

    def __post_init__(self) -> None:
        require(self.slice_axis in AXES, f"slice_axis must be one of {', '.join(AXES)}, not {self.slice_axis!r}")
        require(
            all(16 <= n <= 8192 and n % 16 == 0 for n in self.target_shape),
            f"target_shape must be multiples of 16 (four poolings) from 16 to 8192, not {self.target_shape}",
        )
        values = list(self.labels.values())
        require(
            values == sorted(set(values)) and all(1 <= v <= 254 for v in values),
            f"labels must map names to rising values from 1 to 254 (the network's classes have that order), "
            f"not {self.labels}",
        )
        faults = label_faults(self.labels)
        require(not faults, "; ".join(faults))
        require(len(self.variants) > 0, "variants must hold at least one entry; no augmentation is "
                 '[{"angle_deg": 0, "scale": 1, "mirror": false}]')  # fmt: skip


def differences(a: Plan, b: Plan) -> list[str]:
    """Return the names of the decisions in which two plans differ."""
    fields = ("slice_axis", "target_shape", "normalization", "variants", "labels", "channels")
    return [name for name in fields if getattr(a, name) != getattr(b, name)]


def preprocessing_digest(plan: Plan) -> str:
    """Return the digest of what preprocessed slices depend on: the plan without variants and reasons."""
    identity = (Variant(angle_deg=0.0, scale=1.0, mirror=False),)
    return digest(replace(plan, variants=identity, because={}, preset="", fingerprint_digest=""))
