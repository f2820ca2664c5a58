"""Whether raw files are still those that a data set was planned from, and masks were predicted from.

Digests decide. A file is read for its digest only if its size or times differ from those at which it was last read, so
a copied data set is read once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvtplan.core import json_records
from dvtplan.core.digests import combine_digests, sha256
from dvtplan.core.errors import DvtError, cannot_read
from dvtplan.data.dataset import Case, Dataset
from dvtplan.data.dataset_json import FILE_NAME as DESCRIPTION
from dvtplan.data.json_text import read_json
from dvtplan.data.paths import Workspace
from dvtplan.imaging.volume_io import files_of

STAGE = "`plan_and_preprocess`"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFile:
    """The content of a raw file when it was last read, and its size and times at that moment."""

    sha256: str
    size: int
    modified_ns: int
    changed_ns: int
    """Of the file's entry in the file system; programs that write cannot set it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenFiles:
    """The raw files of a data set that were read; nothing is lost without this file but time."""

    files: dict[str, SeenFile]
    """By path in the raw data set; by whole path for a file that lies elsewhere."""


def see(case: Case) -> dict[Path, SeenFile]:
    """Read every file of a case for its digest: the channels, then the label.

    Raises:
        DvtError: if one cannot be read.
    """
    return {path: _see(path) for path in _files(case)}


def source_digest(files: Iterable[SeenFile]) -> str:
    """Return the digest of the files of a case, in the order of ``see``."""
    return combine_digests([file.sha256 for file in files])


def remember(workspace: Workspace, files: Mapping[Path, SeenFile]) -> None:
    """Add files to those that were seen. A disk that is full or read-only is no fault: they are read again."""
    seen = _load(workspace) | {_key(workspace, path): file for path, file in files.items()}
    with contextlib.suppress(DvtError):
        json_records.save(SeenFiles(files=seen), workspace.seen_files)


def require_unchanged(workspace: Workspace, dataset: Dataset, case_ids: Collection[str]) -> None:
    """Refuse a data set of which a raw file has changed since it was planned.

    Raises:
        DvtError: as ``find_changes``, and for a file that has changed.
    """
    changed, _ = find_changes(workspace, dataset, case_ids)
    if changed:
        raise DvtError(
            f"{changed[0]}: has changed since the data set was planned. Restore it, or run {STAGE} again; then train "
            "and predict again."
        )


def find_changes(
    workspace: Workspace, dataset: Dataset, case_ids: Collection[str]
) -> tuple[list[str], dict[Path, str]]:
    """Compare the raw files of cases with those that the data set was planned from.

    Args:
        workspace: of the data set. If it is not planned nothing is known, and nothing has changed.
        dataset: as it is now.
        case_ids: whose files are compared.

    Returns:
        The files that have changed, for a message; and file -> SHA-256, of all that were compared.

    Raises:
        DvtError: names a case that is missing, or ``dataset.json`` if it has other labels or channels.
    """
    if not workspace.fingerprint.exists():
        return [], {}
    planned = _planned_digests(workspace, dataset)
    cases, seen = {case.id: case for case in dataset.cases}, _load(workspace)
    changed: list[str] = []
    found, again = dict[Path, SeenFile](), dict[Path, SeenFile]()
    for case_id in case_ids:
        if case_id not in cases or case_id not in planned:
            raise DvtError(
                f"{workspace.raw}: the case {case_id} is not there with its label, or was not when the data set was "
                f"planned. Restore its files, or run {STAGE} again."
            )
        before = {path: seen.get(_key(workspace, path)) for path in _files(cases[case_id])}
        files = {path: _see_again(path, file) for path, file in before.items()}
        found |= files
        if source_digest(files.values()) == planned[case_id]:
            again |= {path: file for path, file in files.items() if file != before[path]}
        else:
            other = [p for p, file in files.items() if (was := before[p]) is not None and was.sha256 != file.sha256]
            changed.append(str(other[0]) if other else f"{cases[case_id].label} or its image")
    if again:
        remember(workspace, again)
    return changed, {path: file.sha256 for path, file in found.items()}


def require_same_images(case: Case, predicted_from: str, mask: Path, known: Mapping[Path, str]) -> None:
    """Refuse a mask that was predicted from other images than a case has now.

    Args:
        case: as it is now.
        predicted_from: digest of the images, as the log of the predictions has it; empty: unknown.
        mask: for the message.
        known: SHA-256 of files; others are read.

    Raises:
        DvtError: names the mask and an image.
    """
    if not predicted_from:
        return
    digests = [[known.get(file) or sha256(file) for file in files_of(path)] for path in case.images]
    images = [of_files[0] if len(of_files) == 1 else combine_digests(of_files) for of_files in digests]
    if combine_digests(images) != predicted_from:
        raise DvtError(
            f"{mask}: was predicted from another image than {case.images[0]} is now. Restore the image, or predict "
            f"again: run {STAGE}, then `train_fold` with `overwrite=True`."
        )


def planned_again(workspace: Workspace, network: str) -> bool:
    """Return whether the data set was planned from other files or patients after a network was trained."""
    found = set()
    for path in (workspace.plan, workspace.results_plan(network)):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # reported where it is needed
            found.add(str(read_json(path)["fingerprint_digest"]))
    return len(found) > 1


def _planned_digests(workspace: Workspace, dataset: Dataset) -> dict[str, str]:
    """Return the digest of each planned case, from ``fingerprint.json``.

    Raises:
        DvtError: if it cannot be read, or ``dataset.json`` has other labels or channels now.
    """
    try:
        body: Any = read_json(workspace.fingerprint)
        digests = {case["id"]: case["source_digest"] for case in body["cases"]}
        labels, channels = dict(body["labels"]), tuple(body["channels"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DvtError(f"{workspace.fingerprint}: is not a readable fingerprint. Run {STAGE} again.") from error
    if labels != dataset.labels or channels != dataset.channels:
        raise DvtError(
            f"{dataset.folder / DESCRIPTION}: names other labels or channels than when the data set was planned "
            f"({', '.join(labels)}; {', '.join(channels)}). Restore it, or run {STAGE} again."
        )
    return digests


def _files(case: Case) -> list[Path]:
    paths = (*case.images, *(() if case.label is None else (case.label,)))
    try:
        return [file for path in paths for file in files_of(path)]
    except OSError as error:
        raise DvtError(cannot_read(paths[0], error)) from error


def _see_again(path: Path, seen: SeenFile | None) -> SeenFile:
    """Return what is known of a file if its size and times are as they were, else read it."""
    if seen is not None and _stamp(path) == (seen.size, seen.modified_ns, seen.changed_ns):
        return seen
    return _see(path)


def _see(path: Path) -> SeenFile:
    size, modified, changed = _stamp(path)  # before its content, so that a change meanwhile is noticed
    try:
        return SeenFile(sha256=sha256(path), size=size, modified_ns=modified, changed_ns=changed)
    except OSError as error:
        raise DvtError(cannot_read(path, error)) from error


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DvtError(cannot_read(path, error)) from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _load(workspace: Workspace) -> dict[str, SeenFile]:
    try:
        return json_records.load(SeenFiles, workspace.seen_files, STAGE).files
    except DvtError:
        return {}


def _key(workspace: Workspace, path: Path) -> str:
    """Return a path in the raw data set; a header may name a file of voxels elsewhere."""
    return (path.relative_to(workspace.raw) if path.is_relative_to(workspace.raw) else path.absolute()).as_posix()
