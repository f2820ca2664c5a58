"""What is told of a scan beside its mask: the record of what was found, its page, a warning where it is unlike the
training; or that it could not be analysed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dvtplan import (
    agreement,
    artifacts,
    burden,
    familiarity,
    findings,
    fingerprint,
    journal,
    levels,
    scans,
    summary,
    volumes,
)
from dvtplan.agreement import Tally
from dvtplan.errors import DvtError, how_many
from dvtplan.familiarity import Oddity
from dvtplan.findings import Division, Findings
from dvtplan.geometry import to_slice_order
from dvtplan.inference import Model, Opened
from dvtplan.landmarks import Landmarks
from dvtplan.records import Case, Levels
from dvtplan.slicefile import SliceFile
from dvtplan.workspace import stem


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be told of each scan beside its mask."""

    record: bool = True
    """``ID_findings.json``; else only how the scan is divided is decided."""
    page: bool = False
    """The summary as HTML, PDF and PNG too."""
    table: Mapping[str, Levels | None] = field(default_factory=dict)
    """Levels by case, or by name of the mask, which come first."""
    given: Levels | None = None
    """Of all other scans."""
    estimate: bool = False
    """Look for the knees of those that have none by then."""
    divided: dict[str, Division] = field(default_factory=dict)
    """Is filled: name of each mask -> how its scan was divided."""
    remarks: tuple[str, ...] = ()
    """What a reader must know of the scan before anything else."""


def divide(case: Case, mask: Path, asked: Asked) -> Division:
    """How a scan is divided; what is found in its first image is written beside its mask.

    Raises:
        DvtError: if the image has to be looked at and cannot be read.
    """
    name = stem(mask)
    told = asked.table.get(case.id) or asked.table.get(name)
    found: dict[str, Landmarks] = {}
    if told is None and asked.given is None and asked.estimate:
        found[name] = levels.of_image(case.images[0])
        artifacts.save(found[name], scans.levels_path(mask))
    asked.divided[name] = findings.divide([name], {name: told}, asked.given, found)[name]
    return asked.divided[name]


def told(case: Case, mask: Path, model: Model, asked: Asked | None) -> bool:
    """Whether all that is asked about a case that was predicted is told already; a page that is missing is made."""
    if asked is None:
        return True
    division = divide(case, mask, asked)
    if not asked.record:
        return True
    found = findings.read(findings_path(mask))
    if found is None or found.status != findings.ANALYSED or found.levels != division.levels:
        return False
    if found.maker.digest != model.digest or found.mask_digest != artifacts.sha256(mask):
        return False
    if asked.page and not all(path.exists() for path in summary_paths(mask)):
        image, grid = volumes.read(case.images[0])
        order = to_slice_order(grid, model.plan.slice_axis)
        values, _ = volumes.read(mask)
        summary.write(found, order.apply(image), order.apply(values), order.grid(grid), summary_paths(mask))
    return True


def tell_failure(case: Case, mask: Path, model: Model, error: DvtError, spoken: Mapping[Path, str]) -> None:
    """Leave the record of a case that could not be analysed, in place of any that was made earlier."""
    forget(mask)
    with contextlib.suppress(DvtError):
        if scans.levels_path(mask).exists() and artifacts.load(Landmarks, scans.levels_path(mask), ""):
            scans.levels_path(mask).unlink()
    said = in_one_line(error, spoken)
    record = findings.not_analysed(case.id, names(case, spoken), said, journal.now(), model.maker)
    artifacts.save(record, findings_path(mask))


def forget(mask: Path) -> None:
    """Remove what was told of an earlier mask of that name; what is no record of ours stays."""
    if findings.read(findings_path(mask)) is not None:
        for path in (findings_path(mask), *summary_paths(mask)):
            path.unlink(missing_ok=True)


def forget_failure(mask: Path) -> None:
    """Remove the record that a scan could not be analysed, which it can be now."""
    found = findings.read(findings_path(mask))
    if found is not None and found.status == findings.NOT_ANALYSED:
        findings_path(mask).unlink(missing_ok=True)


def in_one_line(error: DvtError, spoken: Mapping[Path, str]) -> str:
    """What hindered, with files called as the user knows them."""
    return scans.spoken_of(" ".join(str(error).splitlines()), spoken)


def names(case: Case, spoken: Mapping[Path, str]) -> list[str]:
    """Of a case's images, as the user knows them."""
    return [spoken.get(path, path.name) for path in case.images]


def findings_path(mask: Path) -> Path:
    """Where it is told what was found, beside a mask."""
    return mask.with_name(f"{stem(mask)}_findings.json")


def summary_paths(mask: Path) -> tuple[Path, Path, Path]:
    """Where the summary of a scan lies, beside its mask: HTML, PDF, PNG."""
    html, pdf, png = (mask.with_name(f"{stem(mask)}_summary.{ending}") for ending in ("html", "pdf", "png"))
    return html, pdf, png


def oddities(case: Case, opened: Opened, model: Model) -> list[Oddity] | None:
    """What is odd about a scan, after warning of it; none where the training scans are not known."""
    if model.training is None:
        return None
    odd = familiarity.compare(fingerprint.unlabelled(case.id, opened.looks, opened.grid), model.training)
    if odd:
        journal.warn(
            f"{case.id}: is unlike the {how_many(model.training.cases, 'training scan')}, so its mask may be "
            f"wrong. Outside their range: {'; '.join(one.in_words for one in odd)}."
        )
    return odd


class Evidence:
    """Probabilities and votes of a case, slice by slice on disk, and what is told by them."""

    def __init__(
        self,
        case: Case,
        opened: Opened,
        model: Model,
        asked: Asked,
        division: Division,
        scratch: Path,
        stack: contextlib.ExitStack,
    ) -> None:
        self._case, self._opened, self._model, self._asked = case, opened, model, asked
        self._division, self._levels = division, division.levels
        self._chances, self._votes = (stack.enter_context(SliceFile(scratch)) for _ in range(2))
        self._tally = Tally(grid=opened.sliced_grid, levels=self._levels)

    def add(self, chance_BHW: np.ndarray, marked_BHW: np.ndarray, votes_BHW: np.ndarray | None) -> None:
        """Take the next slices: probability of thrombus, the mask, and a bit per fold."""
        self._tally.add(chance_BHW, marked_BHW)
        self._chances.append(chance_BHW.astype(np.float16))
        if votes_BHW is not None:
            self._votes.append(votes_BHW)

    def tell(
        self, mask: Path, marked_SHW: np.ndarray, odd: Sequence[Oddity] | None, spoken: Mapping[Path, str]
    ) -> None:
        """Write the record of the case, and its page where that is asked for, beside its mask."""
        found = self._findings(mask, marked_SHW, odd, spoken)
        if self._asked.page:
            image = self._opened.channels[0].read()
            summary.write(found, image, marked_SHW, self._opened.sliced_grid, summary_paths(mask))
        artifacts.save(found, findings_path(mask))

    def _findings(
        self, mask: Path, marked_SHW: np.ndarray, odd: Sequence[Oddity] | None, spoken: Mapping[Path, str]
    ) -> Findings:
        model, of_limbs, grid = self._model, self._levels, self._opened.sliced_grid
        measured = burden.measure(marked_SHW, grid, of_limbs)
        lesions = agreement.lesions(
            marked_SHW,
            grid,
            of_limbs,
            lambda s: self._chances.read(s, s + 1)[0],
            None if len(self._votes) == 0 else lambda s: self._votes.read(s, s + 1)[0],
            len(model.folds),
            model.classes,
        )
        intensities = model.training is not None and familiarity.compares_intensities(model.training)
        return Findings(
            case_id=self._case.id,
            status=findings.ANALYSED,
            in_words=findings.words(measured),
            warnings=(*self._asked.remarks, *findings.warnings(model.maker, odd, intensities, self._division)),
            images=tuple(names(self._case, spoken)),
            made=journal.now(),
            maker=model.maker,
            mask=mask.name,
            mask_digest=artifacts.sha256(mask),
            levels=of_limbs,
            level_source=None if of_limbs is None else self._division.source,
            level_note=self._division.note,
            burden=tuple(measured),
            lesions=tuple(lesions),
            nearly_marked_ml=self._tally.nearly_ml,
            highest_probability=self._tally.highest,
            oddities=None if odd is None else tuple(odd),
        )
