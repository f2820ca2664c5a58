"""Rules that divide truth and prediction into regions."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dvtplan.anatomy.landmarks import LEVEL_BELOW_KNEE_MM
from dvtplan.anatomy.levels import ALL, PROXIMAL_DISTAL, Levels
from dvtplan.anatomy.regions import NEAR_MM
from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data.cases_table import level_warnings
from dvtplan.evaluation.options import EvaluationOptions, require_choice
from dvtplan.evaluation.pairing import Pair
from dvtplan.imaging import volume_io
from dvtplan.imaging.nifti_forms import trusting

RULES = {
    "by-label": "A true voxel has the region of its label. A predicted voxel has the region of the nearest true voxel. "
    f"Where cases.csv gives a level, this true voxel must be in the same limb and within {NEAR_MM:g} mm; otherwise "
    "the level divides. In a case without truth and without a level, predicted voxels count in 'all' only.",
    "level": "The level of each limb divides truth and prediction: at the level and above is proximal. Levels are from "
    "cases.csv; a note says where they were estimated from the image.",
    "none": "No regions.",
}
"""Name of a rule, as in every output -> how it divides truth and prediction."""

OWN_LABELS = "A true voxel and a predicted voxel each have the region of their own label."
"""What by-label means where the prediction distinguishes the labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScheme:
    """How the masks of every case are read and divided."""

    rule: str
    """A key of ``RULES``."""
    regions: tuple[str, ...]
    """Regions of truth and prediction, in the order of their numbers."""
    reported: tuple[str, ...]
    """Regions that get rows, in addition to ``ALL``."""
    truth_numbers: dict[int, int] | None
    """Value in a label file -> number of its label; None: every value above 0 is thrombus."""
    predicted_numbers: dict[int, int] | None
    """The same for predictions."""

    @property
    def text(self) -> str:
        """Name and meaning of the rule, and how predictions are read."""
        lesion = self.predicted_numbers is None
        meaning = RULES[self.rule] if lesion or self.rule != "by-label" else OWN_LABELS
        read = "Every predicted value above 0 is thrombus" if lesion else "Predicted values are labels"
        return f"{self.rule}. {meaning} {read}"


# --- which labels, which regions ------------------------------------------------------------------


def region_order(labels: dict[str, int]) -> tuple[str, ...]:
    """Sort label names by value; proximal comes before distal if these are all labels, as levels need it."""
    if set(labels) == set(PROXIMAL_DISTAL):
        return PROXIMAL_DISTAL
    return tuple(sorted(labels, key=lambda name: labels[name]))


def label_numbers(values: dict[str, int], labels: dict[str, int]) -> dict[int, int]:
    """Map each value in a file to its label's number, which follows ``region_order``."""
    return {value: region_order(labels).index(name) + 1 for name, value in values.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringPlan:
    """Which cases are scored by which rule."""

    scheme: LabelScheme
    pairs: tuple[Pair, ...]
    cases_table: Path
    """``cases.csv``; it need not exist."""
    notes: tuple[str, ...]
    """Notes of Table 1: regions that are missing, and levels that were estimated."""
    levels_to_shift: dict[str, Levels] | None
    """Case -> the level to move; None: without level sensitivity."""
    shift_notes: tuple[str, ...]
    """Notes of the level sensitivity."""


def plan_scoring(
    options: EvaluationOptions,
    pairs: Sequence[Pair],
    names: tuple[str, ...],
    cases_table: Path,
    images: Mapping[str, Path],
    *,
    truth_numbers: dict[int, int] | None,
    predicted_numbers: dict[int, int] | None,
) -> ScoringPlan:
    """Choose the rule that gives the wanted regions, and fill in the levels that it needs.

    Args:
        options: wanted regions, rule and levels.
        pairs: the cases, with the levels of ``cases_table``.
        names: the labels of the truth, as ``region_order`` sorts them.
        cases_table: ``cases.csv``, for messages.
        images: case -> image from which a level can be estimated.
        truth_numbers: as in ``LabelScheme``.
        predicted_numbers: as in ``LabelScheme``.

    Raises:
        DvtError: for unknown regions, regions that the rule does not give, or levels that are missing.
    """
    with trusting(options.trust):
        _warn_of_levels(pairs)
    wanted = _wanted_regions(options.split, names)
    estimate = options.estimate_levels or _rule(options, wanted, names, all_have_levels=False) == "level"
    filled = given = _Levels(pairs=tuple(pairs), reasons={}, notes=())
    if estimate or options.level_sensitivity:
        with trusting(options.trust):
            filled = _estimate_missing(pairs, images, cases_table, options.jobs)
    # Moved levels have a table of their own and do not change Table 1.
    used = filled if estimate else given
    rule = _rule(options, wanted, names, all_have_levels=not used.missing)
    available = {"by-label": names, "level": PROXIMAL_DISTAL, "none": ()}[rule]
    _require_available(wanted, available, rule)
    if rule == "level" or options.level_sensitivity:
        _require_levels(filled, names, cases_table)
    return ScoringPlan(
        scheme=LabelScheme(
            rule=rule,
            regions=available,
            reported=available if wanted is None else wanted,
            truth_numbers=truth_numbers,
            predicted_numbers=predicted_numbers,
        ),
        pairs=used.pairs,
        cases_table=cases_table,
        notes=(*used.notes, *(_note_missing(used, cases_table) if rule == "none" and wanted is None else ())),
        levels_to_shift=filled.known if options.level_sensitivity else None,
        shift_notes=filled.notes,
    )


def _warn_of_levels(pairs: Sequence[Pair]) -> None:
    """Warn of levels outside their scan. A mask that cannot be read is reported when it is scored."""
    for pair in pairs:
        if pair.levels is not None:
            with contextlib.suppress(DvtError):
                for line in level_warnings(pair.case_id, pair.levels, volume_io.read_stated_grid(pair.truth)):
                    console.warn(line)


def _note_missing(used: _Levels, cases_table: Path) -> tuple[str, ...]:
    """Explain why nothing is divided, if some cases have a level and some do not."""
    if not used.known or not used.missing:
        return ()
    without = f"{len(used.missing)} of {len(used.pairs)} cases: {shorten_list(used.missing)}"
    return (f"No proximal and distal, since {cases_table} gives no level for {without}.",)


def _wanted_regions(split: Sequence[str] | None, names: Sequence[str]) -> tuple[str, ...] | None:
    """Return the regions of ``split``, each once and without ``ALL``, which is always reported."""
    for region in split or ():
        require_choice("split", region, (*names, *(n for n in PROXIMAL_DISTAL if n not in names), ALL))
    return None if split is None else tuple(dict.fromkeys(region for region in split if region != ALL))


def _require_available(wanted: Sequence[str] | None, available: Sequence[str], rule: str) -> None:
    missing = [region for region in wanted or () if region not in available]
    if missing:
        raise DvtError(
            f"`split={'/'.join(wanted or ())}`: the rule {rule} gives {shorten_list(available)}, not "
            f"{', '.join(missing)}. Name it among the labels in dataset.json, or choose another region."
        )


# --- levels ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Levels:
    """Cases with their levels, where missing ones were estimated from the image."""

    pairs: tuple[Pair, ...]
    reasons: dict[str, str]
    """Case -> why its image gives no level."""
    notes: tuple[str, ...]

    @property
    def known(self) -> dict[str, Levels]:
        """Return case -> its level."""
        return {pair.case_id: pair.levels for pair in self.pairs if pair.levels is not None}

    @property
    def missing(self) -> list[str]:
        """Return the cases without a level."""
        return [pair.case_id for pair in self.pairs if pair.levels is None]


def _require_levels(filled: _Levels, names: Sequence[str], cases_table: Path) -> None:
    without = filled.missing
    if not without:
        return
    first = without[0]
    found = f" The image of {first} gives none either: {filled.reasons[first]}." if first in filled.reasons else ""
    fault = "gives no level" if cases_table.exists() else "not found, so there is no level"
    raise DvtError(
        f"{cases_table}: {fault} for {len(without)} of {len(filled.pairs)} cases: {shorten_list(without)}.{found} The "
        f"labels are {shorten_list(names)}. Add level_left_mm or level_right_mm (LPS z in mm) for these cases, or "
        "label the truth proximal and distal in dataset.json."
    )


def _estimate_missing(
    pairs: Sequence[Pair], images: Mapping[str, Path], cases_table: Path, jobs: int | None
) -> _Levels:
    """Estimate the levels of cases without one from their images."""
    from dvtplan.anatomy import scan_landmarks  # slow to load, and seldom needed

    missing = [pair.case_id for pair in pairs if pair.levels is None and pair.case_id in images]
    found = scan_landmarks.estimate_scans({case_id: images[case_id] for case_id in missing}, jobs)
    done = [case_id for case_id, of in found.items() if of.levels is not None]
    note = (
        f"{cases_table} gives no level for {len(done)} of {len(pairs)} cases: {shorten_list(done)}. Their level is "
        f"estimated from the image, {LEVEL_BELOW_KNEE_MM:g} mm below the knee joint line."
    )
    return _Levels(
        pairs=tuple(replace(p, levels=found[p.case_id].levels) if p.case_id in found else p for p in pairs),
        reasons={case_id: of.text for case_id, of in found.items() if of.levels is None},
        notes=(note,) if done else (),
    )


def _rule(
    options: EvaluationOptions, wanted: tuple[str, ...] | None, names: tuple[str, ...], *, all_have_levels: bool
) -> str:
    """Return the rule of the options; for 'auto' the one that gives the wanted regions."""
    if options.region_rule != "auto":
        return options.region_rule
    if wanted is None:
        return "by-label" if len(names) > 1 else "level" if all_have_levels else "none"
    if not wanted:
        return "none"
    return "by-label" if set(wanted) <= set(names) else "level"
