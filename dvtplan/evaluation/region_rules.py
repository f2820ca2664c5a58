"""Which rule divides truth and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dvtplan.anatomy import knee
from dvtplan.anatomy.knee import LEVEL_BELOW_KNEE_MM
from dvtplan.anatomy.levels import ALL, PROXIMAL_DISTAL, Levels
from dvtplan.anatomy.regions import NEAR_MM
from dvtplan.core.errors import DvtError
from dvtplan.core.text import shorten_list
from dvtplan.data.folds import Fold
from dvtplan.data.paths import Workspace
from dvtplan.evaluation.pairing import Pair, predicted_classes, read_labels

RULES = {
    "identity": "a voxel of the truth has the region of its label; a predicted voxel has the region of the nearest "
    f"truth voxel or, where cases.csv gives levels, of one within {NEAR_MM:g} mm in its limb, else the side "
    "of its limb's level; in a case without truth and levels what is predicted counts in 'all' only",
    "level": "truth and prediction are divided at the level of each limb in cases.csv, or where a note says so as "
    "estimated from the image; on it and above is proximal",
    "none": "no regions",
}
"""How truth and prediction are divided, by the name that stands in every output."""

OWN_LABELS = "a voxel of the truth and a predicted voxel each have the region of their own label"
"""What identity means where the prediction tells the labels apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelScheme:
    """How the masks of every case are read and divided."""

    rule: str
    """A key of ``RULES``."""
    regions: tuple[str, ...]
    """Into which truth and prediction are divided, in the order of their numbers."""
    reported: tuple[str, ...]
    """Which of them get rows, beside ``ALL``."""
    truth_numbers: dict[int, int] | None
    """Value in a label file -> number of its label; None: every value above 0 is thrombus."""
    predicted_numbers: dict[int, int] | None
    """The same for predictions."""

    @property
    def text(self) -> str:
        """Name and meaning of the rule, and how predictions were read."""
        lesion = self.predicted_numbers is None
        meaning = RULES[self.rule] if lesion or self.rule != "identity" else OWN_LABELS
        read = "every value above 0 is thrombus" if lesion else "values are labels"
        return f"{self.rule} ({meaning}). In predictions {read}"


# --- which labels, which regions ------------------------------------------------------------------


def region_order(labels: dict[str, int]) -> tuple[str, ...]:
    """Label names by value; proximal before distal where these are all, as levels need it."""
    if set(labels) == set(PROXIMAL_DISTAL):
        return PROXIMAL_DISTAL
    return tuple(sorted(labels, key=lambda name: labels[name]))


def label_numbers(values: dict[str, int], labels: dict[str, int]) -> dict[int, int]:
    """Value in a file -> number of that label in the order of the data set's labels."""
    return {value: region_order(labels).index(name) + 1 for name, value in values.items()}


def predicted_numbers(folder: Path, predicted: str, labels: dict[str, int]) -> dict[int, int] | None:
    """How to read the predictions in a folder; none where every value above 0 is thrombus."""
    described = folder / "dataset.json"
    own = read_labels(described) if described.exists() else None
    if predicted == "lesion" or (predicted == "auto" and (set(own) == {"lesion"} if own else len(labels) < 2)):
        return None
    unknown = sorted(set(own or labels) - set(labels))
    if unknown:
        raise DvtError(
            f"{described}: names {', '.join(unknown)}, but the truth has {', '.join(labels)}. Name them alike, or "
            "score their union with --predicted lesion."
        )
    return label_numbers(own or labels, labels)


def same_reading(
    workspace: Workspace, network: str, chosen: Sequence[Fold], labels: dict[str, int]
) -> dict[int, int] | None:
    """How to read the predictions of all folds, which must be one way.

    A network trained on the union writes 1 for thrombus, which may also be a label's value; what
    was written beside the masks tells.
    """
    classes = {fold.index: predicted_classes(workspace, network, fold.index) for fold in chosen}
    first, *others = classes
    for k in others:
        if classes[k] != classes[first]:
            raise DvtError(
                f"{workspace.fold(network, k).ledger}: names other classes ({', '.join(classes[k])}) than fold {first} "
                f"({', '.join(classes[first])}). Score these folds apart with --folds, or train one of them again."
            )
    own = classes[first]
    return label_numbers(own, labels) if len(own) > 1 and set(own) <= set(labels) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationOptions:
    """What a caller wants of regions and levels."""

    split: tuple[str, ...] | None
    rule: str
    shifts: bool = False
    estimate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringPlan:
    """What is scored, how, and what is to be said of it."""

    scheme: LabelScheme
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]
    moved: dict[str, Levels] | None
    """Levels that are moved, by case; none where that was not asked for."""
    moved_notes: tuple[str, ...]


def plan_scoring(
    asked: EvaluationOptions,
    pairs: Sequence[Pair],
    names: tuple[str, ...],
    table: Path,
    images: Mapping[str, Path],
    jobs: int | None,
    *,
    truth_numbers: dict[int, int] | None,
    predicted_numbers: dict[int, int] | None,
) -> ScoringPlan:
    """Choose the rule that gives the wanted regions, and fill in the levels that it needs; with notes where some
    regions had to be left out, or levels were estimated."""
    split, rule = asked.split, asked.rule
    require_choice("--rule", rule, ("auto", "identity", "level"))
    for region in split or ():
        require_choice("--split", region, (*names, *(n for n in PROXIMAL_DISTAL if n not in names), ALL))
    wanted = None if split is None else tuple(dict.fromkeys(region for region in split if region != ALL))
    filled, reasons, told = list(pairs), dict[str, str](), list[str]()
    by_level = (_auto_rule(wanted, names, False) if rule == "auto" else rule) == "level"
    if asked.estimate or asked.shifts or by_level:
        filled, reasons, told = _with_estimated(pairs, images, table, jobs)
    # Moved levels are a table of their own, which leaves Table 1 as it is.
    used = filled if asked.estimate or by_level else list(pairs)
    unlevelled = [pair.case_id for pair in used if pair.levels is None]
    chosen = _auto_rule(wanted, names, not unlevelled) if rule == "auto" else rule
    available = {"identity": names, "level": PROXIMAL_DISTAL, "none": ()}[chosen]
    lacking = [region for region in wanted or () if region not in available]
    if lacking:
        raise DvtError(
            f"--split {'/'.join(wanted or ())}: the rule {chosen} gives {', '.join(available)}, not "
            f"{', '.join(lacking)}. Name it among the labels in dataset.json, or choose from what there is."
        )
    without = f"{shorten_list(unlevelled)} ({len(unlevelled)} of {len(pairs)} cases)"
    if chosen == "level" or asked.shifts:
        _require_levels(filled, reasons, names, table)
    notes = told if used is filled else []
    if chosen == "none" and wanted is None and len(unlevelled) < len(pairs):
        notes = [*notes, f"No proximal and distal: {table} gives no level for {without}."]
    return ScoringPlan(
        scheme=LabelScheme(
            rule=chosen,
            regions=available,
            reported=available if wanted is None else wanted,
            truth_numbers=truth_numbers,
            predicted_numbers=predicted_numbers,
        ),
        pairs=tuple(used),
        notes=tuple(notes),
        moved={pair.case_id: pair.levels for pair in filled if pair.levels is not None} if asked.shifts else None,
        moved_notes=tuple(told),
    )


def _require_levels(pairs: Sequence[Pair], reasons: Mapping[str, str], names: Sequence[str], table: Path) -> None:
    without = [pair.case_id for pair in pairs if pair.levels is None]
    if not without:
        return
    found = "".join(f"; nor does the image of {i} ({reasons[i]})" for i in without[:1] if i in reasons)
    raise DvtError(
        f"{table}: gives no level for {shorten_list(without)} ({len(without)} of {len(pairs)} cases){found}; "
        "the labels name "
        f"{', '.join(names)}. Add level_left_mm or level_right_mm (LPS z in mm) for them, or label the truth proximal "
        "and distal in dataset.json."
    )


def _with_estimated(
    pairs: Sequence[Pair], images: Mapping[str, Path], table: Path, jobs: int | None
) -> tuple[list[Pair], dict[str, str], list[str]]:
    """Pairs with levels from their images where they had none; why some still have none; and a note of it."""
    lacking = [pair.case_id for pair in pairs if pair.levels is None and pair.case_id in images]
    found = knee.of_images({case_id: images[case_id] for case_id in lacking}, jobs)
    filled = [replace(p, levels=found[p.case_id].levels) if p.case_id in found else p for p in pairs]
    reasons = {case_id: of.text for case_id, of in found.items() if of.levels is None}
    done = [case_id for case_id, of in found.items() if of.levels is not None]
    below = f"{LEVEL_BELOW_KNEE_MM:g} mm below the knee joint line"
    note = (
        f"{table} gives no level for {shorten_list(done)} ({len(done)} of {len(pairs)} cases): there "
        "the level is estimated "
        f"from the image, {below}."
    )
    return filled, reasons, [note] if done else []


def _auto_rule(wanted: tuple[str, ...] | None, names: tuple[str, ...], all_have_levels: bool) -> str:
    if wanted is None:
        return "identity" if len(names) > 1 else "level" if all_have_levels else "none"
    if not wanted:
        return "none"
    return "identity" if set(wanted) <= set(names) else "level"


def require_choice(option: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise DvtError(f"{option} {value}: no such choice. Choose from {', '.join(choices)}.")
