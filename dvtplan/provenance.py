"""How masks came to be: the record beside them, kept up to date mask by mask."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dvtplan import __version__, artifacts
from dvtplan.errors import DvtError
from dvtplan.records import Prediction, PredictionOfCase, PredictionStart

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
            held = artifacts.load(Prediction, path, "dvt_predict --overwrite")
            if held.model_digest != self._record.model_digest:
                continue
            for name, case in held.cases.items():
                if name in cases and masks.get(name, "") == artifacts.digest_of_digests([case.mask_digest]):
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
        artifacts.save(self._tidy(), self._path)

    def _cases_there(self) -> dict[str, tuple[PredictionOfCase, PredictionStart]]:
        """What the record on disk tells of masks by this model."""
        with contextlib.suppress(DvtError):
            held = artifacts.load(Prediction, self._path, "")
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
        artifacts.load(Prediction, path, "dvt_predict --overwrite")
    except DvtError as error:
        if overwrite and not artifacts.is_json(path):
            return
        raise DvtError(f"{error} Or name another -o.") from error
