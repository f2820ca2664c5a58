"""Which masks of a folder predictions made, and of what; so that what was changed by hand is never replaced.

The ledger, ``predictions.json``, vouches for a mask by its digest. A mask whose bytes it does not know was changed,
or comes from elsewhere.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.metadata
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dvtplan import __version__
from dvtplan.core import console, json_records
from dvtplan.core.digests import combine_digests, files_digest
from dvtplan.core.errors import DvtError, require
from dvtplan.data.paths import predictions_ledger, predictions_ledgers
from dvtplan.imaging.volume_io import stem

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
        require(
            all(0 <= case.start < len(self.starts) for case in self.cases.values()),
            f"start must be a number below {len(self.starts)}, how many runs are listed",
        )


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
                held = json_records.load(Predicted, path, "dvt_predict --overwrite")
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
        return digest is not None and mask.exists() and files_digest((mask,)) == digest

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
        self._enter(case_id, _of_all(images), combine_digests([mask_digest]), full=with_probabilities)
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
            held = json_records.load(Predicted, self._path, "")
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
        json_records.save(now, self._path)


def _of_all(digests: Sequence[str]) -> str:
    """One digest of all files of a case."""
    return combine_digests(digests) if digests else ""


def written(folder: Path) -> dict[str, set[str]]:
    """Name of a mask -> digest (``digests.files_digest``) of every mask that predictions of whole folders wrote here
    under that name. Ledgers that cannot be read tell nothing."""
    found: dict[str, set[str]] = {}
    for path in predictions_ledgers(folder):
        with contextlib.suppress(DvtError):
            _gather(found, json_records.load(Predicted, path, ""))
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
    return files_digest((mask,)) not in {*known, *_of_its_own(mask)}


def _of_its_own(mask: Path) -> set[str]:
    """Digests that records beside a mask tell: of a prediction of it alone, or of the stations that it is one of."""
    name, found = stem(mask), set()
    with contextlib.suppress(DvtError):
        alone = json_records.load(Prediction, mask.with_name(f"{name}_run.json"), "")
        found |= {case.mask_digest for case in alone.cases.values() if case.mask == mask.name}
    with contextlib.suppress(DvtError):
        whole = name.rpartition("_station_")[0]
        found |= {json_records.load(Composition, mask.with_name(f"{whole}_stations.json"), "").masks.get(mask.name, "")}
    return {combine_digests([digest]) for digest in found if digest}


def withdraw(mask: Path, known: Mapping[str, Collection[str]]) -> None:
    """Remove a mask and those of its stations, which must not pass for what a scan shows that cannot be analysed now;
    one that was changed is not ours to remove, and is told.

    Args:
        mask: may be missing.
        known: what was ``written`` into its folder.
    """
    for path in (mask, *mask.parent.glob(f"{glob.escape(stem(mask))}_station_*.nii.gz")):
        if path.exists() and is_changed(path, known.get(path.name, ())):
            console.warn(f"{path}: was changed since it was made, or comes from elsewhere, and stays.")
        else:
            path.unlink(missing_ok=True)


PACKAGES = ("torch", "SimpleITK", "numpy")
"""What decides a mask's voxels beside this package and Python."""


def versions() -> dict[str, str]:
    """Of this package, Python and ``PACKAGES``."""
    found = {"dvtplan": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


class Diary:
    """The record of one prediction, written anew after each mask.

    Cases of an earlier run by the same model stay in it, with that run's device and versions.
    """

    def __init__(self, path: Path, opening: Prediction, *, overwrite: bool = False, alone: bool = False) -> None:
        """Begin, or go on with what is there.

        Args:
            path: of the record.
            opening: the model, one start (this run) and no cases.
            overwrite: whether what is there may be lost, so that it need not be readable.
            alone: it tells of one mask, and of nothing that it told before.

        Raises:
            DvtError: if something else is there under this name.
        """
        _require_ours(path, overwrite=overwrite)
        self._path, self._record, self._alone = path, opening, alone
        self._mine: set[str] = set()
        self._at_first = {} if alone else self._cases_there()

    def keep(self, earlier: Sequence[Path], masks: Mapping[str, str], cases: Collection[str]) -> None:
        """Take over what earlier records tell of masks that still stand.

        Args:
            earlier: files of records.
            masks: case -> digest of its mask, for the masks that this model made.
            cases: which may be taken over.

        Raises:
            DvtError: if a record is not readable.
        """
        for path in earlier:
            held = json_records.load(Prediction, path, "dvt_predict --overwrite")
            if held.model_digest != self._record.model_digest:
                continue
            for name, case in held.cases.items():
                if name in cases and masks.get(name, "") == combine_digests([case.mask_digest]):
                    self._take(name, case, held.starts[case.start])

    def add(self, name: str, case: PredictionOfCase) -> None:
        """A mask that this run makes; it is about to take its place."""
        self._mine.add(name)
        self._take(name, case, self._record.starts[0])
        self._save()

    def drop(self, name: str) -> None:
        """A mask is no more."""
        self._mine.add(name)
        if name in self._record.cases:
            self._record = replace(self._record, cases={k: c for k, c in self._record.cases.items() if k != name})
            self._save()

    def _save(self) -> None:
        """With what other runs by this model have noted meanwhile."""
        for name, (case, start) in ({} if self._alone else self._cases_there()).items():
            if name not in self._mine and self._at_first.get(name) != (case, start):
                self._take(name, case, start)
        json_records.save(self._tidy(), self._path)

    def _cases_there(self) -> dict[str, tuple[PredictionOfCase, PredictionStart]]:
        """What the record on disk tells of masks by this model."""
        with contextlib.suppress(DvtError):
            held = json_records.load(Prediction, self._path, "")
            if held.model_digest == self._record.model_digest:
                return {name: (case, held.starts[case.start]) for name, case in held.cases.items()}
        return {}

    def _take(self, name: str, case: PredictionOfCase, start: PredictionStart) -> None:
        starts = self._record.starts if start in self._record.starts else (*self._record.starts, start)
        cases = self._record.cases | {name: replace(case, start=starts.index(start))}
        self._record = replace(self._record, starts=starts, cases=cases)

    def _tidy(self) -> Prediction:
        """With starts in order of time, those alone that made a mask, and cases in order of name."""
        used = {case.start for case in self._record.cases.values()}
        order = sorted(used, key=lambda k: (self._record.starts[k].started, -k))
        return replace(
            self._record,
            starts=tuple(self._record.starts[k] for k in order),
            cases={
                name: replace(case, start=order.index(case.start)) for name, case in sorted(self._record.cases.items())
            },
        )


def _require_ours(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace what only happens to have a record's name, such as the ``run.json`` of a training."""
    if not path.exists():
        return
    try:
        json_records.load(Prediction, path, "dvt_predict --overwrite")
    except DvtError as error:
        if overwrite and not json_records.is_json(path):
            return
        raise DvtError(f"{error} Or name another -o.") from error
