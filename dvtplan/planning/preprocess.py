"""The first stage: discover, verify, measure, derive, split, prepare."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from dvtplan.core import files, json_records, text, worker_pool
from dvtplan.core.errors import DatasetProblems, DvtError
from dvtplan.core.process_group import ProcessGroup
from dvtplan.core.text import plural
from dvtplan.data import folds
from dvtplan.data.dataset import Case, Dataset, oddities, survey
from dvtplan.data.folds import DEFAULT_FOLDS, DEFAULT_SEED, Splits, own_splits
from dvtplan.data.paths import Workspace, open_workspace
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import to_slice_order
from dvtplan.planning import preprocessed_cases, slice_preprocessing
from dvtplan.planning.cost import describe_cost
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan, differences
from dvtplan.planning.plan_rules import derive
from dvtplan.planning.verification import Examination, examine

R = TypeVar("R")

COMMAND = "dvt_plan_and_preprocess"
ALONE = ProcessGroup()
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
    team: ProcessGroup = ALONE,
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
        spent=f"Verified {plural(len(raw.cases), 'case')} in {text.duration(verified)}.",
    )
    team.all_gather(None)  # all have read what stands there, before any of it is replaced
    if verify_only or splits is None:
        return result
    with files.exclusive_lock(workspace.preprocessed) if team.is_main else contextlib.nullcontext():
        if team.is_main:
            json_records.save(fingerprint, workspace.fingerprint)
            json_records.save(plan, workspace.plan)
            json_records.save(splits, workspace.splits)
        begin = time.monotonic()
        count = _prepare_all(workspace, raw, fingerprint, plan, jobs, team)
        team.all_gather(None)
    prepared_in = f" Prepared {count} of them in {text.duration(time.monotonic() - begin)}"
    kept = "" if count == len(raw.cases) else "; the others were so already"
    return replace(result, spent=f"{result.spent}{prepared_in}{kept}.")


def _verify(
    raw: Dataset, problems: list[str], jobs: int | None, team: ProcessGroup
) -> tuple[Fingerprint, tuple[str, ...]]:
    """Look at every voxel of a data set, whose listing may have had problems already; measure it and remark on it.

    Raises:
        DatasetProblems: with those of the listing.
    """
    look = partial(examine, labels=raw.labels)
    found: list[Examination] = team.gather_shards(_over(raw.cases, look, "Verify", raw, jobs, team))
    problems = [*problems, *(line for examination in found for line in examination.problems)]
    if problems:
        raise DatasetProblems(problems)
    cases = tuple(e.fingerprint for e in found if e.fingerprint is not None)
    fingerprint = Fingerprint(dataset=raw.name, channels=raw.channels, labels=raw.labels, cases=cases)
    return fingerprint, (*oddities(raw), *(line for e in found for line in e.warnings))


def _over(
    cases: Sequence[Case], work: Callable[[Case], R], title: str, raw: Dataset, jobs: int | None, team: ProcessGroup
) -> list[R]:
    """Do something with this process's share of cases, in as many processes as cores and memory allow."""
    mine = team.shard(cases)
    processes = worker_pool.choose_workers(jobs, len(mine), _largest_case(raw) * BYTES_PER_VOXEL)
    return worker_pool.over_cases(work, mine, [c.id for c in mine], title=title, jobs=processes)


def _largest_case(raw: Dataset) -> int:
    """Voxels of the largest case over all its channels, from headers; 0 where none can be read."""
    sizes = [0]
    for case in raw.cases:
        try:
            sizes.append(volume_io.count_voxels(case.images[0]) * len(case.images))
        except DvtError:
            continue  # examined, and reported, with the rest
    return max(sizes)


def _splits(
    workspace: Workspace, raw: Dataset, n_folds: int | None, seed: int | None, standing: Splits | None
) -> Splits:
    """The user's own splits, or those that were made before, or seeded ones; without a leak."""
    path = workspace.own_splits
    patient_of = {case.id: case.patient for case in raw.cases}
    if path.exists():
        splits, source = own_splits(path), str(path)
        folds.check(splits, patient_of, source)
        return splits
    before = (DEFAULT_FOLDS, DEFAULT_SEED)
    if standing is not None and standing.source.startswith("seed "):
        before = len(standing.folds), int(standing.source.removeprefix("seed "))
    count, chosen = (old if new is None else new for new, old in zip((n_folds, seed), before, strict=True))
    splits = folds.split(patient_of, count, chosen)
    folds.check(splits, patient_of, f"--folds {count}")
    return splits


def _standing_splits(workspace: Workspace) -> Splits | None:
    """What an earlier run divided the patients into, where it can be read."""
    try:
        return json_records.load(Splits, workspace.splits, COMMAND) if workspace.splits.exists() else None
    except DvtError:
        return None


def _other_folds(workspace: Workspace, splits: Splits, standing: Splits | None) -> str | None:
    """A warning where trainings rest on other folds than there will be."""
    networks = workspace.trained_networks
    if standing is None or standing.folds == splits.folds or not networks:
        return None
    before = f"{plural(len(standing.folds), 'fold')}, {standing.source}"
    return (
        f"{workspace.splits}: was {before}, by which {', '.join(networks)} may be trained; now "
        f"{plural(len(splits.folds), 'fold')}, {splits.source}. Their results count only with the folds of then."
    )


def _plan(workspace: Workspace, fingerprint: Fingerprint, preset: str, replan: bool) -> tuple[Plan, str | None]:
    """The derived plan, or the one on disk where it was derived from these data and then edited; and
    what to tell the user about it."""
    derived = derive(fingerprint, preset)
    if replan or not workspace.plan.exists():
        return derived, None
    standing = json_records.load(Plan, workspace.plan, f"{COMMAND} --replan")
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
    workspace: Workspace, raw: Dataset, fingerprint: Fingerprint, plan: Plan, jobs: int | None, team: ProcessGroup
) -> int:
    """Prepare what is not current; how many cases that were, of all processes together."""
    digests = {case.id: case.source_digest for case in fingerprint.cases}
    waiting = [
        case
        for case in raw.cases
        if team.is_main
        and not preprocessed_cases.is_current(workspace.preprocessed_case(case.id), plan, digests[case.id])
    ]
    work = partial(_prepare_case, workspace=workspace, plan=plan, digests=digests)
    waiting = team.broadcast(waiting)
    _over(waiting, work, "Prepare", raw, jobs, team)
    return len(waiting)


def _prepare_case(case: Case, workspace: Workspace, plan: Plan, digests: dict[str, str]) -> None:
    if case.label is None:
        raise ValueError(f"{case.id} has no label")
    label, grid = volume_io.read(case.label)
    order = to_slice_order(grid, plan.slice_axis)
    images = [order.apply(volume_io.read(path)[0]) for path in case.images]
    image, classes = slice_preprocessing.preprocess_slices(images, order.apply(label), plan)
    preprocessed_cases.save(workspace.preprocessed_case(case.id), image, classes, case.id, plan, digests[case.id])


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
    lines.append(describe_cost(plan, splits, fingerprint))
    return "\n".join(lines)
