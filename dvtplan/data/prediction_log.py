"""Log of the masks that predictions wrote into a folder, so that edited masks are never overwritten."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dvtplan.core import json_records
from dvtplan.core.digests import combine_digests, files_digest
from dvtplan.core.errors import DvtError
from dvtplan.core.files import exclusive_lock, remove_abandoned, remove_unlocked
from dvtplan.data import edited_masks
from dvtplan.data.mask_files import mask_name, mask_path
from dvtplan.data.paths import prediction_index, prediction_indexes, prediction_record, prediction_records
from dvtplan.data.prediction_records import (
    CasePrediction,
    PredictionIndex,
    PredictionRecord,
    PredictionSession,
    read_record,
    require_prediction_record,
)
from dvtplan.imaging.volume_io import WRITTEN

LOCK_NAME = ".predictions.lock"
"""Held while both files are read or written, so that runs into one folder do not lose each other's entries."""
LOCK_TRIES = 300
"""A minute: a write takes milliseconds, but many runs may wait."""


@dataclass(slots=True)
class _IndexState:
    """The contents of a ``PredictionIndex`` while they grow."""

    images: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    with_probabilities: set[str] = field(default_factory=set)
    from_other_models: dict[str, str] = field(default_factory=dict)

    def put(self, case_id: str, images: str, mask: str, *, with_probabilities: bool) -> None:
        """Enter a mask of this model, by the digests of its images and of itself."""
        self.images[case_id], self.masks[case_id] = images, mask
        (self.with_probabilities.add if with_probabilities else self.with_probabilities.discard)(case_id)

    def copy(self, index: PredictionIndex, case_id: str) -> None:
        """Enter a mask of this model as another index lists it."""
        full = case_id in index.with_probabilities
        self.put(case_id, index.cases[case_id], index.masks[case_id], with_probabilities=full)

    def __contains__(self, case_id: str) -> bool:
        return case_id in self.masks or case_id in self.from_other_models

    def remove(self, case_id: str) -> None:
        self.images.pop(case_id, None)
        self.masks.pop(case_id, None)
        self.from_other_models.pop(case_id, None)
        self.with_probabilities.discard(case_id)


class PredictionLog:
    """The masks of one folder: which exist, by which model, from which images.

    Every event goes into two files at once: the index (``predictions.json``), which later runs look up, and the record
    (``run.json``), which is meant for readers. Each part of a divided prediction writes files of its own
    (``predictions_1_of_4.json``) and reads all.
    """

    def __init__(
        self, folder: Path, opening: PredictionRecord, cases: Collection[str], *, part: tuple[int, int] | None = None,
        overwrite: bool = False,
    ) -> None:  # fmt: skip
        """Read what earlier runs left.

        Args:
            folder: of the masks; may be missing.
            opening: the model and one session, this run, without cases.
            cases: IDs of the cases that this run is to predict.
            part: (i, n), the share of this process; None if it does all.
            overwrite: predict all again; then damaged files are ignored.

        Raises:
            DvtError: if a file is damaged, or another file has the record's name.
        """
        self._index_path, self._record_path = prediction_index(folder, part), prediction_record(folder, part)
        self._record, self._overwrite = opening, overwrite
        self._index, self._touched = _IndexState(), set[str]()
        self.known_digests: dict[str, set[str]] = {}
        """File name of a mask -> digests of all masks that predictions wrote under it, whatever the model."""
        self._read_state = _index_files(folder)
        """Versions of the indexes when they were last read; an unchanged folder is not read again."""
        with _lock(folder) if os.access(folder, os.W_OK) else contextlib.nullcontext():
            carried = self._read_indexes(folder)
            require_prediction_record(self._record_path, overwrite=overwrite)
            self._on_disk_at_start = self._cases_on_disk()
        if overwrite:
            carried = {case_id: mask for case_id, mask in carried.items() if case_id not in cases}
        elif part is not None:
            carried = {case_id: mask for case_id, mask in carried.items() if case_id in cases}
        self._carry_over(folder, carried)

    # --- questions --------------------------------------------------------------------------------

    @property
    def masks(self) -> dict[str, str]:
        """Case -> digest of its mask, made by this model."""
        return dict(self._index.masks)

    def is_edited(self, mask: Path) -> bool:
        """Return whether a mask exists that no prediction wrote."""
        return edited_masks.is_edited(mask, self.known_digests)

    def is_current(self, case_id: str, images: Sequence[str], probabilities: Sequence[Path]) -> bool:
        """Return whether this model made the mask on disk from these images.

        Args:
            case_id: the case.
            images: SHA-256 of each image file.
            probabilities: files that must be next to the mask.
        """
        if self._overwrite or self._index.images.get(case_id) != _images_digest(images):
            return False
        if not self._exists_unchanged(case_id, self._index.masks.get(case_id)):
            return False
        has_probabilities = case_id in self._index.with_probabilities
        return not probabilities or (has_probabilities and all(path.exists() for path in probabilities))

    def refresh(self) -> None:
        """Take over what other runs entered since the log was read.

        Raises:
            DvtError: if the log is locked for a minute, or the folder cannot be written.
        """
        folder = self._index_path.parent
        state = _index_files(folder)
        if state == self._read_state:
            return
        with _lock(folder) if os.access(folder, os.W_OK) else contextlib.nullcontext():
            self._merge_index()
            self._merge_record()
            for path in prediction_indexes(folder):
                with contextlib.suppress(DvtError):
                    edited_masks.add_known_digests(self.known_digests, read_record(PredictionIndex, path))
        self._read_state = state

    # --- events -----------------------------------------------------------------------------------

    def record(self, case_id: str, case: CasePrediction, *, with_probabilities: bool = False) -> None:
        """Enter a mask just before it is moved into place.

        The digest of the mask that it replaces stays known, since a run may end between the two steps.

        Raises:
            DvtError: if the log cannot be written.
        """
        digest = combine_digests([case.mask_digest])
        with self._updated(case_id):
            if case_id in self._index.masks:
                self._index.from_other_models[case_id] = self._index.masks[case_id]
            images = _images_digest(list(case.images.values()))
            self._index.put(case_id, images, digest, with_probabilities=with_probabilities)
            self._put_record(case_id, case, self._record.starts[0])
        self.known_digests.setdefault(mask_name(case_id), set()).add(digest)

    def remove(self, case_id: str) -> None:
        """Enter that a case has no mask any more.

        Raises:
            DvtError: if the log cannot be written.
        """
        self._touched.add(case_id)
        if case_id not in self._index and case_id not in self._record.cases:
            return
        with self._updated(case_id):
            self._index.remove(case_id)
            self._drop_record(case_id)

    # --- the files --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _updated(self, case_id: str) -> Iterator[None]:
        """Change the entry of a case: lock, take over what other runs wrote meanwhile, change, write both files."""
        self._touched.add(case_id)
        with _lock(self._index_path.parent):
            self._merge_index()
            self._merge_record()
            yield
            json_records.save(_sorted_record(self._record), self._record_path)
            json_records.save(self._index_now(), self._index_path)

    def _index_now(self) -> PredictionIndex:
        return PredictionIndex(
            model_digest=self._record.model_digest,
            classes=dict(self._record.classes),
            cases=self._index.images,
            masks=self._index.masks,
            with_probabilities=tuple(sorted(self._index.with_probabilities)),
            others=self._index.from_other_models,
        )

    def _read_indexes(self, folder: Path) -> dict[str, str]:
        """Fill the index from all that are on disk.

        Returns:
            Case -> digest of its mask, of all masks by this model, also with ``overwrite``.
        """
        by_this_model: dict[str, str] = {}
        for path in prediction_indexes(folder):
            try:
                found = read_record(PredictionIndex, path)
            except DvtError:
                if self._overwrite:
                    continue
                raise
            edited_masks.add_known_digests(self.known_digests, found)
            self._index.from_other_models |= found.others
            ours = found.model_digest == self._record.model_digest
            if ours and not self._overwrite:
                self._take_valid(found)
            else:
                self._index.from_other_models |= found.masks
                by_this_model |= found.masks if ours else {}
        return by_this_model | self._index.masks

    def _take_valid(self, found: PredictionIndex) -> None:
        """Take the entries of this model; of two that differ, the one that matches the mask on disk."""
        for case_id, digest in found.masks.items():
            if self._index.masks.get(case_id, digest) == digest or self._exists_unchanged(case_id, digest):
                self._index.copy(found, case_id)

    def _exists_unchanged(self, case_id: str, digest: str | None) -> bool:
        """Return whether the mask of a case is on disk with this digest."""
        mask = self._mask(case_id)
        return digest is not None and mask.exists() and files_digest((mask,)) == digest

    def _mask(self, case_id: str) -> Path:
        return mask_path(self._index_path.parent, case_id)

    def _merge_index(self) -> None:
        """Take over what other runs wrote into this index since it was read."""
        try:
            found = read_record(PredictionIndex, self._index_path)
        except DvtError:
            return
        untouched = {k: v for k, v in found.others.items() if k not in self._touched}
        self._index.from_other_models = untouched | self._index.from_other_models
        for case_id, digest in found.masks.items():
            if case_id in self._touched:
                continue
            if found.model_digest == self._record.model_digest:
                self._index.copy(found, case_id)
            else:
                self._index.from_other_models[case_id] = digest

    def _merge_record(self) -> None:
        """Take over the cases that other runs wrote into this record since it was read."""
        for case_id, (case, session) in self._cases_on_disk().items():
            if case_id not in self._touched and self._on_disk_at_start.get(case_id) != (case, session):
                self._put_record(case_id, case, session)

    def _cases_on_disk(self) -> dict[str, tuple[CasePrediction, PredictionSession]]:
        """Cases of this model in the record on disk, each with its session."""
        with contextlib.suppress(DvtError):
            found = read_record(PredictionRecord, self._record_path)
            if found.model_digest == self._record.model_digest:
                return {case_id: (case, found.starts[case.start]) for case_id, case in found.cases.items()}
        return {}

    def _carry_over(self, folder: Path, masks: dict[str, str]) -> None:
        """Copy what earlier records say of masks that are still valid.

        Args:
            folder: of the records.
            masks: case -> digest of its mask.
        """
        for path in prediction_records(folder):
            try:
                found = read_record(PredictionRecord, path)
            except DvtError:
                if self._overwrite:
                    continue
                raise
            if found.model_digest != self._record.model_digest:
                continue
            for case_id, case in found.cases.items():
                if masks.get(case_id) == combine_digests([case.mask_digest]):
                    self._put_record(case_id, case, found.starts[case.start])

    def _put_record(self, case_id: str, case: CasePrediction, session: PredictionSession) -> None:
        sessions = self._record.starts if session in self._record.starts else (*self._record.starts, session)
        cases = self._record.cases | {case_id: replace(case, start=sessions.index(session))}
        self._record = replace(self._record, starts=sessions, cases=cases)

    def _drop_record(self, case_id: str) -> None:
        self._record = replace(self._record, cases={k: c for k, c in self._record.cases.items() if k != case_id})


def _lock(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Lock both files of a folder. Drafts of other runs are kept."""
    return exclusive_lock(folder, name=LOCK_NAME, tries=LOCK_TRIES, clean=False)


@contextlib.contextmanager
def mask_lock(mask: Path) -> Iterator[None]:
    """Lock one mask for the time of its prediction, so that two runs do not write its files at the same time.

    A folder that is created for the lock is removed again if nothing was written into it.

    Raises:
        FolderInUse: if another process predicts it.
        WriteFailed: if its folder cannot be created. A folder that exists and is read-only is not locked.
    """
    exists = mask.parent.is_dir()
    if exists and not os.access(mask.parent, os.W_OK):
        yield
        return
    try:
        with exclusive_lock(mask.parent, name=f".{mask.name}.lock", clean=False):
            _remove_abandoned(mask.parent)
            yield
    finally:
        if not exists:
            with contextlib.suppress(OSError):
                mask.parent.rmdir()


@functools.lru_cache(maxsize=64)
def _remove_abandoned(folder: Path) -> None:
    """Remove what killed predictions left in a folder: drafts, and locks of masks; once per process."""
    remove_abandoned(folder)
    for lock in folder.glob(".*.lock"):
        if lock.name.removesuffix(".lock").endswith(WRITTEN):
            remove_unlocked(lock)


def forget_masks(folder: Path) -> None:
    """Mark all masks of a folder as out of date. Their digests stay known, so that an edit is still noticed.

    Raises:
        WriteFailed: if the index cannot be written.
    """
    path = prediction_index(folder)
    if not path.exists():
        return
    try:
        index = read_record(PredictionIndex, path)
    except DvtError:
        path.unlink()
        return
    known = index.others | index.masks
    json_records.save(replace(index, cases={}, masks={}, with_probabilities=(), others=known), path)


def write_single_record(path: Path, opening: PredictionRecord, case_id: str, case: CasePrediction) -> None:
    """Write the record of one mask that has a name of its own, in place of any earlier record.

    Raises:
        DvtError: if another file has the record's name, or it cannot be written.
    """
    require_prediction_record(path, overwrite=True)
    json_records.save(replace(opening, cases={case_id: case}), path)


def _index_files(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """Return what identifies the present version of each index; every write is a new file."""
    versions = []
    for path in prediction_indexes(folder):
        with contextlib.suppress(FileNotFoundError):  # replaced or removed meanwhile
            status = path.stat()
            versions.append((path.name, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(versions)


def _images_digest(digests: Sequence[str]) -> str:
    """One digest of all image files of a case; empty without images."""
    return combine_digests(digests) if digests else ""


def _sorted_record(record: PredictionRecord) -> PredictionRecord:
    """Sort sessions by time and cases by name; omit sessions without a case."""
    used = {case.start for case in record.cases.values()}
    order = sorted(used, key=lambda k: (record.starts[k].started, -k))
    cases = {k: replace(case, start=order.index(case.start)) for k, case in sorted(record.cases.items())}
    return replace(record, starts=tuple(record.starts[k] for k in order), cases=cases)
