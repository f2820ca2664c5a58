"""The first stage: discover, verify, measure, derive, split, prepare."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from dvtplan import artifacts, folds, journal, prepared, volumes, workers
from dvtplan.dataset import Examination, examine, oddities, survey
from dvtplan.errors import DatasetProblems, DvtError, how_many
from dvtplan.geometry import to_slice_order
from dvtplan.plan import derive, differences, training_bytes, training_flop
from dvtplan.records import Case, Dataset, Fingerprint, Fold, Plan, Recipe, Splits
from dvtplan.team import Team
from dvtplan.workspace import Workspace, open_workspace

R = TypeVar("R")

COMMAND = "dvt_plan_and_preprocess"
ALONE = Team()
BYTES_PER_VOXEL = 24
"""Peak memory of examining or preparing a case: the file's own array, a float64 scaling of it,
float16 slices, labels, and their copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessed:
    """What the stage made."""

    workspace: Workspace
    fingerprint: Fingerprint
    plan: Plan
    splits: Splits | None
    """None where only the data were verified and no folds can be had."""
    warnings: tuple[str, ...]
    summary: str
    """The plan and the costs, as text to print."""
    spent: str
    """Where the time went."""


def plan_and_preprocess(
    root: Path,
    dataset: str | None = None,
    *,
    preset: str = "auto",
    n_folds: int | None = None,
    seed: int | None = None,
    jobs: int | None = None,
    verify_only: bool = False,
    replan: bool = False,
    team: Team = ALONE,
) -> Preprocessed:
    """Verify a raw data set, derive its plan, divide its patients and prepare its slices.

    Nothing is written before every file has been verified. What is already prepared from the same
    files by the same plan is kept, so an interrupted run goes on where it stopped. A ``plan.json``
    that was edited by hand is kept and used.

    Args:
        root: the folder that holds ``datasets_raw``.
        dataset: its name there; none for the only one.
        preset: 'auto' or 'paper'.
        n_folds: folds by patient; none for those that were made before, else 8. A ``splits.json`` in
            the raw folder replaces them.
        seed: of the folds; none for those that were made before, else 0.
        jobs: worker processes; none for one per core, as memory allows.
        verify_only: stop after the verification, write nothing.
        replan: derive ``plan.json`` anew even if it was edited.
        team: processes, on one machine or on several with one disk, that share the cases out.

    Raises:
        DatasetProblems: everything that is wrong with the data set, at once.
        DvtError: for a bad plan, bad splits, or a disk that is full.
    """
    begin = time.monotonic()
    workspace = open_workspace(root, dataset)
    raw, problems = survey(workspace.raw)
    if raw is None:
        raise DatasetProblems(problems)
    fingerprint, warnings = _verify(raw, problems, jobs, team)
    verified = time.monotonic() - begin
    splits: Splits | None = None
    standing = _standing_splits(workspace)
    try:
        splits = _splits(workspace, raw, n_folds, seed, standing)
    except DvtError as error:
        if not verify_only:
            raise
        warnings = (*warnings, *str(error).splitlines())  # the data are sound all the same
    plan, remark = _plan(workspace, fingerprint, preset, replan)
    told = (remark, None if splits is None else _other_folds(workspace, splits, standing))
    warnings = (*warnings, *filter(None, told))
    summary = _summary(fingerprint, plan, splits)
    result = Preprocessed(
        workspace=workspace,
        fingerprint=fingerprint,
        plan=plan,
        splits=splits,
        warnings=warnings,
        summary=summary,
        spent=f"Verified {how_many(len(raw.cases), 'case')} in {journal.duration(verified)}.",
    )
    team.gather(None)  # all have read what stands there, before any of it is replaced
    if verify_only or splits is None:
        return result
    with artifacts.sole_writer(workspace.preprocessed) if team.leads else contextlib.nullcontext():
        if team.leads:
            artifacts.save(fingerprint, workspace.fingerprint)
            artifacts.save(plan, workspace.plan)
            artifacts.save(splits, workspace.splits)
        begin = time.monotonic()
        count = _prepare_all(workspace, raw, fingerprint, plan, jobs, team)
        team.gather(None)
    prepared_in = f" Prepared {count} of them in {journal.duration(time.monotonic() - begin)}"
    kept = "" if count == len(raw.cases) else "; the others were so already"
    return replace(result, spent=f"{result.spent}{prepared_in}{kept}.")


def _verify(raw: Dataset, problems: list[str], jobs: int | None, team: Team) -> tuple[Fingerprint, tuple[str, ...]]:
    """Look at every voxel of a data set, whose listing may have had problems already; measure it and remark on it.

    Raises:
        DatasetProblems: with those of the listing.
    """
    look = partial(examine, labels=raw.labels)
    found: list[Examination] = team.together(_over(raw.cases, look, "Verify", raw, jobs, team))
    problems = [*problems, *(line for examination in found for line in examination.problems)]
    if problems:
        raise DatasetProblems(problems)
    cases = tuple(e.fingerprint for e in found if e.fingerprint is not None)
    fingerprint = Fingerprint(dataset=raw.name, channels=raw.channels, labels=raw.labels, cases=cases)
    return fingerprint, (*oddities(raw), *(line for e in found for line in e.warnings))


def _over(
    cases: Sequence[Case], work: Callable[[Case], R], title: str, raw: Dataset, jobs: int | None, team: Team
) -> list[R]:
    """Do something with this process's share of cases, in as many processes as cores and memory allow."""
    mine = team.share(cases)
    processes = workers.how_many(jobs, len(mine), _largest_case(raw) * BYTES_PER_VOXEL)
    return workers.over_cases(work, mine, [c.id for c in mine], title=title, jobs=processes)


def _largest_case(raw: Dataset) -> int:
    """Voxels of the largest case over all its channels, from headers; 0 where none can be read."""
    sizes = [0]
    for case in raw.cases:
        try:
            sizes.append(volumes.count_voxels(case.images[0]) * len(case.images))
        except DvtError:
            continue  # examined, and reported, with the rest
    return max(sizes)


FOLDS, SEED = 8, 0
"""The paper's number of folds; how patients are dealt into them."""


def _splits(
    workspace: Workspace, raw: Dataset, n_folds: int | None, seed: int | None, standing: Splits | None
) -> Splits:
    """The user's own splits, or those that were made before, or seeded ones; without a leak."""
    path = workspace.own_splits
    patient_of = {case.id: case.patient for case in raw.cases}
    if path.exists():
        splits, source = _own_splits(path), str(path)
        folds.check(splits, patient_of, source)
        return splits
    before = (FOLDS, SEED)
    if standing is not None and standing.source.startswith("seed "):
        before = len(standing.folds), int(standing.source.removeprefix("seed "))
    count, chosen = (old if new is None else new for new, old in zip((n_folds, seed), before, strict=True))
    splits = folds.split(patient_of, count, chosen)
    folds.check(splits, patient_of, f"--folds {count}")
    return splits


def _standing_splits(workspace: Workspace) -> Splits | None:
    """What an earlier run divided the patients into, where it can be read."""
    try:
        return artifacts.load(Splits, workspace.splits, COMMAND) if workspace.splits.exists() else None
    except DvtError:
        return None


def _other_folds(workspace: Workspace, splits: Splits, standing: Splits | None) -> str | None:
    """A warning where trainings rest on other folds than there will be."""
    networks = workspace.trained_networks
    if standing is None or standing.folds == splits.folds or not networks:
        return None
    before = f"{how_many(len(standing.folds), 'fold')}, {standing.source}"
    return (
        f"{workspace.splits}: was {before}, by which {', '.join(networks)} may be trained; now "
        f"{how_many(len(splits.folds), 'fold')}, {splits.source}. Their results count only with the folds of then."
    )


def _own_splits(path: Path) -> Splits:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        listed = body["folds"] if isinstance(body, dict) else body
        own = tuple(
            Fold(index=k, train=_ids(entry["train"]), test=_ids(entry["test" if "test" in entry else "val"]))
            for k, entry in enumerate(listed)
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DvtError(
            f'{path}: expected a list of {{"train": [case ids], "test": [case ids]}}, one entry a fold; '
            f"found something else ({error!r}). Mend it or remove it."
        ) from error
    return Splits(source=path.name, folds=own)


def _ids(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"not a list of case ids: {value!r}")
    return tuple(value)


def _plan(workspace: Workspace, fingerprint: Fingerprint, preset: str, replan: bool) -> tuple[Plan, str | None]:
    """The derived plan, or the one on disk where it was derived from these data and then edited; and
    what to tell the user about it."""
    derived = derive(fingerprint, preset)
    if replan or not workspace.plan.exists():
        return derived, None
    standing = artifacts.load(Plan, workspace.plan, f"{COMMAND} --replan")
    edited = differences(standing, derived)
    if standing.fingerprint_digest != derived.fingerprint_digest or standing.preset != preset:
        if not edited:
            return derived, None
        why = f"for --preset {preset}" if standing.preset != preset else "because the raw data changed"
        return derived, f"{workspace.plan}: derived anew {why}; {', '.join(edited)} changed, edits included."
    if not edited:
        return derived, None
    if standing.labels != fingerprint.labels or standing.channels != fingerprint.channels:
        raise DvtError(
            f"{workspace.plan}: labels and channels must stay those of dataset.json. Undo that edit, "
            f"or run {COMMAND} --replan."
        )
    words = {name: f"Edited by hand; the rule gave: {derived.because.get(name, '')}" for name in edited}
    remark = f"{workspace.plan}: {', '.join(edited)} edited by hand, and kept. --replan derives the plan anew."
    return replace(standing, because={**derived.because, **words}), remark


def _prepare_all(
    workspace: Workspace, raw: Dataset, fingerprint: Fingerprint, plan: Plan, jobs: int | None, team: Team
) -> int:
    """Prepare what is not current; how many cases that were, of all processes together."""
    digests = {case.id: case.source_digest for case in fingerprint.cases}
    waiting = [
        case
        for case in raw.cases
        if team.leads and not prepared.is_current(workspace.prepared(case.id), plan, digests[case.id])
    ]
    work = partial(_prepare_case, workspace=workspace, plan=plan, digests=digests)
    waiting = team.from_leader(waiting)
    _over(waiting, work, "Prepare", raw, jobs, team)
    return len(waiting)


def _prepare_case(case: Case, workspace: Workspace, plan: Plan, digests: dict[str, str]) -> None:
    if case.label is None:
        raise ValueError(f"{case.id} has no label")
    label, grid = volumes.read(case.label)
    order = to_slice_order(grid, plan.slice_axis)
    images = [order.apply(volumes.read(path)[0]) for path in case.images]
    image, classes = prepared.prepare(images, order.apply(label), plan)
    prepared.save(workspace.prepared(case.id), image, classes, case.id, plan, digests[case.id])


def _summary(fingerprint: Fingerprint, plan: Plan, splits: Splits | None) -> str:
    """The plan with its reasons, the data in numbers, and what a fold of the paper's recipe costs."""
    cases = fingerprint.cases
    slices = sum(c.shape[plan.slice_axis] for c in cases)
    positive = sum(c.positive_slices[plan.slice_axis] for c in cases)
    lines = [
        f"{fingerprint.dataset}: {len(cases)} cases of {len({c.patient for c in cases})} patients, "
        f"{slices} slices, {positive} with foreground ({positive / slices:.0%})"
    ]
    for name in fingerprint.labels:
        volumes_ml = [c.regions[name].ml for c in cases if c.regions[name].voxels]
        mean = sum(volumes_ml) / len(volumes_ml) if volumes_ml else 0.0
        lines.append(f"  {name:<14} in {len(volumes_ml)} cases, {mean:.3g} mL on average")
    lines.append(f"Plan ({plan.preset})")
    normal = plan.normalization
    clip = "no clipping" if normal.clip_percentiles is None else f"clip {normal.clip_percentiles}"
    decided = {
        "slice_axis": plan.slice_axis,
        "target_shape": f"{plan.target_shape[0]}x{plan.target_shape[1]}",
        "normalization": f"min-max by {normal.scope}, {clip}",
        "variants": str(len(plan.variants)),
    }
    for name, value in decided.items():
        lines += [f"  {name:<14} {value}", f"  {'':<14} {plan.because[name]}"]
    if splits is None:
        return "\n".join(lines)
    tests = [len(f.test) for f in splits.folds]
    lines.append(f"Folds ({splits.source}): {len(tests)}, with {', '.join(map(str, tests))} test cases")
    lines.append(_cost(plan, splits, fingerprint))
    return "\n".join(lines)


def _cost(plan: Plan, splits: Splits, fingerprint: Fingerprint) -> str:
    """Time and memory of one fold, before they are spent."""
    recipe = Recipe()
    of_case = {c.id: c.shape[plan.slice_axis] for c in fingerprint.cases}
    trained = max(sum(of_case[c] for c in fold.train) for fold in splits.folds)
    flop = training_flop(plan, trained, recipe.epochs)
    disk = sum(of_case.values()) * math.prod(plan.target_shape) * (2 * len(plan.channels) + 1)
    return (
        f"Cost    prepared slices {journal.size(disk)} on disk; training a fold by the paper's recipe: "
        f"{recipe.epochs} epochs x {math.ceil(trained / recipe.batch_size)} steps of {recipe.batch_size}, "
        f"{flop / 1e15:.3g} PFLOP and {journal.size(training_bytes(plan, recipe.batch_size))} of activations.\n"
        f"        That is {journal.duration(flop / 1e14)} at 100 TFLOP/s (a current GPU), "
        f"{journal.duration(flop / 1e11)} at 0.1 TFLOP/s (two CPU cores). dvt_train tells the time left."
    )
