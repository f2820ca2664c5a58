"""Read the channels and the mask of one imported study, on the grid of its first channel."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.dicom.import_options import ImportOptions
from dvtplan.dicom.mask_objects import Segmentation
from dvtplan.dicom.mask_search import find_mask
from dvtplan.dicom.mask_volume import grid_mismatch, read_mask_volume
from dvtplan.dicom.reader import MR
from dvtplan.dicom.segmentation_reader import read_segmentation
from dvtplan.dicom.series import (
    StudyContents,
    Volume,
    choose_volumes,
    list_volumes,
    read_study,
    read_volume,
)
from dvtplan.dicom.slice_grid import POSITION_TOLERANCE_MM
from dvtplan.imaging import volume_checks, volume_io
from dvtplan.imaging.geometry import Grid, reorientation_between, same_grid


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportSource:
    """A folder or archive with the volumes and the mask to import from it."""

    path: Path
    study: StudyContents
    volumes: tuple[Volume, ...]
    """One for each channel."""
    mask: Path | Segmentation | None
    unused: tuple[str, ...] = ()
    """What may be a mask as well, each with the reason why it is not used."""

    @property
    def series(self) -> str:
        """Return the identity of the case: series UIDs, each with its letter if the series has several volumes.

        Without any UID it is the path.
        """
        return " ".join((v.series_key or str(self.path)) + re.sub(r"[\d-]", "", v.name) for v in self.volumes)

    @property
    def patient_id(self) -> str:
        """Return the PatientID (0010,0020), as in the hospital."""
        return self.volumes[0].patient_id

    @property
    def modalities(self) -> tuple[Path, tuple[str, ...]]:
        """Return the path, and the modality of each channel; empty if it is unknown."""
        return self.path, tuple(volume.modality for volume in self.volumes)

    @property
    def mask_name(self) -> str:
        """Return the origin of the mask, for the key; empty without a mask."""
        if isinstance(self.mask, Segmentation):
            return f"{self.path}: {self.mask.file}"
        return "" if self.mask is None else str(self.mask)


def open_source(path: Path, options: ImportOptions, mask_table: Mapping[str, str]) -> ImportSource:
    """Choose the series and the mask of one input.

    Args:
        path: folder or archive of one patient or study.
        options: of the import.
        mask_table: input -> mask file or number of a segmentation object, as ``options.masks`` lists them.

    Raises:
        DvtError: if a series or the mask is missing or ambiguous.
    """
    study = read_study(path)
    if options.series is None and len(options.channels) > 1:
        raise DvtError(
            f"{path}: `channels` names {len(options.channels)} channels. Give a series for each as `series`: "
            f"{list_volumes(study.volumes)}."
        )
    names: Sequence[str | None] = options.series or [None] * len(options.channels)
    volumes = choose_volumes(study, names)
    found = find_mask(path, study, volumes, options, mask_table)
    return ImportSource(path=path, study=study, volumes=volumes, mask=found.mask, unused=found.unused)


def read_images(source: ImportSource) -> tuple[list[np.ndarray], Grid]:
    """Read the channels on the grid of the first.

    Raises:
        DvtError: if they lie on different grids, or an image is damaged or constant.
    """
    first = source.volumes[0]
    images = []
    for volume in source.volumes:
        array, grid = read_volume(source.study, volume)
        name = Path(f"{source.path}: series {volume.name}")
        turn = reorientation_between(grid, first.grid, POSITION_TOLERANCE_MM)
        if turn is None:
            raise DvtError(
                f"{grid_mismatch(name, grid, first.name, first.grid)} All channels must have one grid: export them so, "
                "or choose other series."
            )
        faults = [*volume_checks.image_faults(name, array)]
        if faults:
            raise DvtError("\n".join(faults))
        images.append(np.ascontiguousarray(turn.apply(array)))
    return images, first.grid


def modality_warnings(channels: Sequence[str], sources: Iterable[tuple[Path, Sequence[str]]]) -> list[str]:
    """Warn of each channel with scans of another modality than MR, or of several modalities.

    Args:
        channels: their names. One that is called by a modality, such as CT, may have this modality.
        sources: path and modality of each channel, for every scan of an import; an empty modality is unknown.
    """
    by_channel: list[dict[str, list[str]]] = [{} for _ in channels]
    for path, modalities in sources:
        for of_channel, modality in zip(by_channel, modalities, strict=True):
            if modality:
                of_channel.setdefault(modality, []).append(str(path))
    found = []
    for name, of_channel in zip(channels, by_channel, strict=True):
        expected = sorted(set(of_channel) & set(re.split(r"[\W_]+", name.upper()))) or [MR]
        if len(of_channel) > 1 or not set(of_channel) <= set(expected):
            rarest_first = sorted(of_channel.items(), key=lambda item: len(item[1]))
            shown = "; ".join(f"{modality} ({shorten_list(paths)})" for modality, paths in rarest_first)
            found.append(
                f"channel {name}: expected scans of one modality, {expected[0]}, found {shown}. Check the series, or "
                "make a data set for each modality."
            )
    return found


def require_same_scan(source: ImportSource, case_id: str, earlier: str, images: Sequence[Path]) -> None:
    """Refuse a scan whose series was imported before, but from another scan: an anonymizer gave both one series UID.

    The voxels are compared only if the scan comes from another path than the earlier one.

    Args:
        source: the scan.
        case_id: the case of its series.
        earlier: path that the case was imported from.
        images: files of the case, one for each channel; the last ones may be missing.

    Raises:
        DvtError: if an image lies on other voxels, or has other values.
    """
    is_elsewhere = earlier != str(source.path)
    for path, volume in zip(images, source.volumes, strict=False):
        first = source.volumes[0].grid
        is_same = same_grid(volume_io.read_grid(path), first, POSITION_TOLERANCE_MM)
        if is_same and is_elsewhere:
            array, grid = read_volume(source.study, volume)
            turn = reorientation_between(grid, first, POSITION_TOLERANCE_MM)
            is_same = turn is not None and np.array_equal(turn.apply(array), volume_io.read(path)[0])
        if not is_same:
            raise DvtError(
                f"{source.path}: series {volume.name} has the UID of case {case_id}, which holds another scan "
                f"({earlier}). Export it with its own UIDs, or choose another `output`."
            )


def read_mask(source: ImportSource, grid: Grid, labels: dict[str, int]) -> np.ndarray | None:
    """Read the mask on the grid of the images.

    Args:
        source: what is imported.
        grid: of its images.
        labels: name -> value.

    Returns:
        uint8 with the shape of the grid; None without a mask.

    Raises:
        DvtError: if the mask lies on another grid or has unknown labels.
    """
    if source.mask is None:
        return None
    if isinstance(source.mask, Segmentation):
        if source.mask.algorithm:
            console.warn(
                f"{source.mask_name}: was drawn automatically by {source.mask.algorithm} and not edited by a person. "
                "Check that it is meant as ground truth."
            )
        return read_segmentation(source.study, source.mask, grid, labels)
    return read_mask_volume(source.mask, grid, labels, source.volumes[0].name)
