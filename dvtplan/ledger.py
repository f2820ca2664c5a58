"""Which masks of a folder predictions made, and of what; so that what was changed by hand is never replaced.

The ledger, ``predictions.json``, vouches for a mask by its digest. A mask whose bytes it does not know was changed,
or comes from elsewhere.
"""

from __future__ import annotations

import contextlib
import glob
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dvtplan import artifacts, journal
from dvtplan.errors import DvtError
from dvtplan.records import Composition, Predicted, Prediction
from dvtplan.workspace import predictions_ledger, predictions_ledgers, stem


class Ledger:
    """What a folder holds of earlier predictions, and what is added by this one."""

    def __init__(
        self, folder: Path, model_digest: str, classes: Mapping[str, int], *, part: tuple[int, int] | None = None,
        overwrite: bool = False,
    ) -> None:  # fmt: skip
        """Read all ledgers of a folder.

        Args:
            folder: of the masks.
            model_digest: of the model that predicts now.
            classes: its names and values.
            part: (i, n), which of several processes this is; each has a ledger of its own.
            overwrite: nothing is to be kept, so that a ledger need not be readable.

        Raises:
            DvtError: if a ledger is not readable.
        """
        self._model_digest, self._classes, self._path = model_digest, dict(classes), predictions_ledger(folder, part)
        self._cases: dict[str, str] = {}
        self.masks: dict[str, str] = {}
        """Case -> digest of its mask, made by this model."""
        self.vouched: dict[str, str] = {}
        """The same as they were found, also where all is made anew."""
        self._others: dict[str, str] = {}
        self._full: set[str] = set()
        self._mine: set[str] = set()
        self._overwrite = overwrite
        self.written: dict[str, set[str]] = {}
        """As of the function, with what was added since."""
        for path in predictions_ledgers(folder):
            try:
                held = artifacts.load(Predicted, path, "dvt_predict --overwrite")
            except DvtError:
                if overwrite:
                    continue
                raise
            _gather(self.written, held)
            self._others |= held.others
            if held.model_digest == model_digest and not overwrite:
                self._take(held)
            else:
                self._others |= held.masks
                self.vouched |= held.masks if held.model_digest == model_digest else {}
        self.vouched |= self.masks

    def _take(self, held: Predicted) -> None:
        """What another ledger tells of this model's masks; of two that differ, the one that is on disk holds."""
        for case_id, digest in held.masks.items():
            if self.masks.get(case_id, digest) != digest and not self._stands(case_id, digest):
                continue
            self._enter(case_id, held.cases[case_id], digest, full=case_id in held.with_probabilities)

    def _enter(self, case_id: str, images: str, mask: str, *, full: bool) -> None:
        """A mask by this model: digests of its images and of itself, and whether its probabilities lie beside it."""
        self._cases[case_id], self.masks[case_id] = images, mask
        self._full = self._full | {case_id} if full else self._full - {case_id}

    def _stands(self, case_id: str, digest: str | None) -> bool:
        """Whether the mask of a case is there and has a digest."""
        mask = self._path.with_name(f"{case_id}.nii.gz")
        return digest is not None and mask.exists() and artifacts.file_digest((mask,)) == digest

    def is_changed(self, mask: Path) -> bool:
        """Whether a mask is there that no prediction wrote."""
        return mask.exists() and is_changed(mask, self.written.get(mask.name, ()))

    def keeps(self, case_id: str, images: Sequence[str], probabilities: Sequence[Path]) -> bool:
        """Whether the mask of a case is the one that this model made from images of these digests.

        Args:
            case_id: which.
            images: SHA-256 of each file.
            probabilities: files that are to lie beside it.
        """
        if self._overwrite:
            return False
        same = self._cases.get(case_id) == _of_all(images) and self._stands(case_id, self.masks.get(case_id))
        return same and all(p.exists() for p in probabilities) and (case_id in self._full or not probabilities)

    def add(self, case_id: str, images: Sequence[str], mask_digest: str, *, with_probabilities: bool = False) -> None:
        """Note a mask before it takes its place: of images, and itself of these SHA-256. The one that it replaces
        stays known, since a run may end between the two."""
        self._mine.add(case_id)
        if case_id in self.masks:
            self._others[case_id] = self.masks[case_id]
        self._enter(case_id, _of_all(images), artifacts.digest_of_digests([mask_digest]), full=with_probabilities)
        self.written.setdefault(f"{case_id}.nii.gz", set()).add(self.masks[case_id])
        self._save()

    def drop(self, case_id: str) -> None:
        """Note that a mask is no more."""
        self._mine.add(case_id)
        if self._cases.pop(case_id, None) is not None or case_id in self._others:
            self.masks.pop(case_id, None)
            self._others.pop(case_id, None)
            self._full.discard(case_id)
            self._save()

    def _save(self) -> None:
        """With what other runs have noted meanwhile."""
        with contextlib.suppress(DvtError):
            held = artifacts.load(Predicted, self._path, "")
            self._others = {k: v for k, v in held.others.items() if k not in self._mine} | self._others
            for case_id, digest in held.masks.items():
                if case_id in self._mine:
                    continue
                if held.model_digest == self._model_digest:
                    self._enter(case_id, held.cases[case_id], digest, full=case_id in held.with_probabilities)
                else:
                    self._others[case_id] = digest
        now = Predicted(
            model_digest=self._model_digest,
            classes=self._classes,
            cases=self._cases,
            masks=self.masks,
            with_probabilities=tuple(sorted(self._full)),
            others=self._others,
        )
        artifacts.save(now, self._path)


def _of_all(digests: Sequence[str]) -> str:
    """One digest of all files of a case."""
    return artifacts.digest_of_digests(digests) if digests else ""


def written(folder: Path) -> dict[str, set[str]]:
    """Name of a mask -> digest (``artifacts.file_digest``) of every mask that predictions of whole folders wrote here
    under that name. Ledgers that cannot be read tell nothing."""
    found: dict[str, set[str]] = {}
    for path in predictions_ledgers(folder):
        with contextlib.suppress(DvtError):
            _gather(found, artifacts.load(Predicted, path, ""))
    return found


def _gather(found: dict[str, set[str]], ledger: Predicted) -> None:
    """Add what one ledger tells of masks, by whatever model."""
    for case_id, digest in (*ledger.masks.items(), *ledger.others.items()):
        found.setdefault(f"{case_id}.nii.gz", set()).add(digest)


def changed(masks: Collection[Path]) -> set[Path]:
    """Those of some masks that are there and are not what a prediction wrote: they were changed by hand, or come from
    elsewhere, and are not to be replaced."""
    known = {folder: written(folder) for folder in {mask.parent for mask in masks}}
    return {mask for mask in masks if mask.exists() and is_changed(mask, known[mask.parent].get(mask.name, set()))}


def is_changed(mask: Path, known: Collection[str] = ()) -> bool:
    """Whether a mask that is there is none of those with a known digest, nor told by a record of its own."""
    return artifacts.file_digest((mask,)) not in {*known, *_of_its_own(mask)}


def _of_its_own(mask: Path) -> set[str]:
    """Digests that records beside a mask tell: of a prediction of it alone, or of the stations that it is one of."""
    name, found = stem(mask), set()
    with contextlib.suppress(DvtError):
        alone = artifacts.load(Prediction, mask.with_name(f"{name}_run.json"), "")
        found |= {case.mask_digest for case in alone.cases.values() if case.mask == mask.name}
    with contextlib.suppress(DvtError):
        whole = name.rpartition("_station_")[0]
        found |= {artifacts.load(Composition, mask.with_name(f"{whole}_stations.json"), "").masks.get(mask.name, "")}
    return {artifacts.digest_of_digests([digest]) for digest in found if digest}


def withdraw(mask: Path, known: Mapping[str, Collection[str]]) -> None:
    """Remove a mask and those of its stations, which must not pass for what a scan shows that cannot be analysed now;
    one that was changed is not ours to remove, and is told.

    Args:
        mask: may be missing.
        known: what was ``written`` into its folder.
    """
    for path in (mask, *mask.parent.glob(f"{glob.escape(stem(mask))}_station_*.nii.gz")):
        if path.exists() and is_changed(path, known.get(path.name, ())):
            journal.warn(f"{path}: was changed since it was made, or comes from elsewhere, and stays.")
        else:
            path.unlink(missing_ok=True)
