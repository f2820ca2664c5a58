"""Which masks of a folder predictions made, and of what; so that what was changed by hand is never replaced.

The ledger, ``predictions.json``, vouches for a mask by its digest. A mask whose bytes it does not know was changed,
or comes from elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dvtplan import artifacts, journal
from dvtplan.errors import DvtError
from dvtplan.records import Composition, Predicted, Prediction
from dvtplan.workspace import predictions_ledger, predictions_ledgers


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
        self._others: dict[str, str] = {}
        self._full: set[str] = set()
        self.written = written(folder)
        """As of the function, with what was added since."""
        for path in predictions_ledgers(folder):
            try:
                held = artifacts.load(Predicted, path, "dvt_predict --overwrite")
            except DvtError:
                if overwrite:
                    continue
                raise
            self._others |= held.others
            if held.model_digest == model_digest and not overwrite:
                self._cases |= held.cases
                self.masks |= held.masks
                self._full |= set(held.with_probabilities)
            else:
                self._others |= held.masks

    def is_changed(self, mask: Path) -> bool:
        """Whether a mask is there that no prediction wrote."""
        return mask.exists() and is_changed(mask, self.written.get(mask.name, ()))

    def keeps(self, case_id: str, images: Sequence[str], probabilities: Sequence[Path]) -> bool:
        """Whether the mask of a case was made by this model from images of these digests.

        Args:
            case_id: which.
            images: SHA-256 of each file.
            probabilities: files that are to lie beside it.
        """
        mask = self._path.with_name(f"{case_id}.nii.gz")
        same = self._cases.get(case_id) == _of_all(images) and all(p.exists() for p in (mask, *probabilities))
        return same and (case_id in self._full or not probabilities)

    def add(self, case_id: str, images: Sequence[str], mask_digest: str, *, with_probabilities: bool = False) -> None:
        """Note a mask that was made: of images, and itself of these SHA-256."""
        self._cases[case_id] = _of_all(images)
        self.masks[case_id] = artifacts.digest_of_digests([mask_digest])
        self.written.setdefault(f"{case_id}.nii.gz", set()).add(self.masks[case_id])
        self._others.pop(case_id, None)
        self._full = self._full | {case_id} if with_probabilities else self._full - {case_id}
        self._save()

    def drop(self, case_id: str) -> None:
        """Note that a mask is no more."""
        if self._cases.pop(case_id, None) is not None or case_id in self._others:
            self.masks.pop(case_id, None)
            self._others.pop(case_id, None)
            self._full.discard(case_id)
            self._save()

    def _save(self) -> None:
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
    """Name of a mask -> digest of every mask that a prediction wrote into this folder under that name.

    Whatever else lies there was changed by hand or comes from elsewhere, and is not to be replaced. Records that
    cannot be read tell nothing.
    """
    found: dict[str, set[str]] = {}
    for path in predictions_ledgers(folder):
        with contextlib.suppress(DvtError):
            ledger = artifacts.load(Predicted, path, "")
            for case_id, digest in (*ledger.masks.items(), *ledger.others.items()):
                found.setdefault(f"{case_id}.nii.gz", set()).add(digest)
    for path in folder.glob("*_stations.json"):
        with contextlib.suppress(DvtError):
            for name, digest in artifacts.load(Composition, path, "").masks.items():
                found.setdefault(name, set()).add(artifacts.digest_of_digests([digest]))
    for path in folder.glob("*_run.json"):
        with contextlib.suppress(DvtError):
            for case in artifacts.load(Prediction, path, "").cases.values():
                found.setdefault(case.mask, set()).add(artifacts.digest_of_digests([case.mask_digest]))
    return found


def changed(masks: Collection[Path]) -> set[Path]:
    """Those of some masks that are there and are not what a prediction wrote."""
    known = {folder: written(folder) for folder in {mask.parent for mask in masks}}
    return {mask for mask in masks if mask.exists() and is_changed(mask, known[mask.parent].get(mask.name, set()))}


def is_changed(mask: Path, known: Collection[str]) -> bool:
    """Whether a mask that is there is none of those with a known digest (``artifacts.file_digest``)."""
    return artifacts.file_digest((mask,)) not in known


def withdraw(mask: Path, known: Mapping[str, Collection[str]]) -> None:
    """Remove a mask, which must not pass for what a scan shows that cannot be analysed now; one that was changed is not
    ours to remove, and is told.

    Args:
        mask: may be missing.
        known: what was ``written`` into its folder.
    """
    if not mask.exists():
        return
    if is_changed(mask, known.get(mask.name, ())):
        journal.warn(f"{mask}: was changed since it was made, or comes from elsewhere, and stays.")
    else:
        mask.unlink()
