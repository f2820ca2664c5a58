"""The first stage: verify and measure a raw data set, derive its plan, divide its patients, preprocess its slices."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from dvtplan.core import files, json_records, worker_pool
from dvtplan.core.errors import DatasetProblems, DvtError, InvalidValue, require_whole
from dvtplan.core.process_group import ProcessGroup
from dvtplan.core.text import duration, plural
from dvtplan.data.dataset import Case, Dataset, consistency_warnings, survey
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace, open_workspace
from dvtplan.data.raw_files import SeenFile, remember
from dvtplan.imaging import volume_io
from dvtplan.imaging.geometry import to_slice_order
from dvtplan.imaging.nifti_forms import trusting
from dvtplan.planning import cohort_checks, preprocessed_cases, slice_preprocessing
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.patient_folds import divide
from dvtplan.planning.plan import Plan, differences
from dvtplan.planning.plan_rules import derive, mirrored_sides
from dvtplan.planning.plan_text import describe_plan
from dvtplan.planning.preprocessed_cases import STAGE
from dvtplan.planning.verification import Examination, examine

R = TypeVar("R")

SINGLE_PROCESS = ProcessGroup()
BYTES_PER_VOXEL = 24
"""Peak memory of verifying or preprocessing a case: the file's own array, a float64 scaling of it, float16 slices,
labels, and their copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessOptions:
    """How to plan and preprocess.

    Raises:
        InvalidValue: for a number that cannot be.
    """

    preset: str = "auto"
    """'auto' (derived from the data) or 'paper' (Huang 2019 to the letter)."""
    folds: int | None = None
    """Folds by patient; None: as in an earlier run, else 8. A ``splits.json`` in the raw folder replaces them."""
    seed: int | None = None
    """Of the folds; None: as in an earlier run, else 0."""
    folds_by: str | None = None
    """Column of cases.csv, such as centre: one fold for each of its values, which tests the patients with this value
    and trains on all others. Excludes ``folds`` and ``seed``; None: as in an earlier run, unless these are given."""
    jobs: int | None = None
    """Worker processes; None: one per core, as memory allows."""
    verify_only: bool = False
    """Stop after the verification, write nothing."""
    replan: bool = False
    """Derive ``plan.json`` again even if it was edited."""
    trust: str | None = None
    """'sform' or 'qform': read NIfTI headers that contradict themselves by this form, which the plan records; None:
    refuse them."""

    def __post_init__(self) -> None:
        require_whole("folds", self.folds, 2, optional=True)
        require_whole("seed", self.seed, 0, optional=True)
        require_whole("jobs", self.jobs, 1, optional=True)
        if self.folds_by is not None and (self.folds is not None or self.seed is not None):
            raise InvalidValue("`folds_by` makes one fold for each group. Omit `folds` and `seed`, or omit `folds_by`.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessed:
    """The result of ``plan_and_preprocess``."""

    workspace: Workspace
    fingerprint: Fingerprint
    plan: Plan
    splits: Splits | None
    """None if the data were only verified and cannot be divided into folds."""
    warnings: tuple[str, ...]
    summary: str
    """The plan and the costs, as text to print."""
    timing: str
    """Where the time went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CasePool:
    """All processes that share the cases of a data set."""

    raw: Dataset
    jobs: int | None
    group: ProcessGroup

    def map(self, function: Callable[[Case], R], cases: Sequence[Case], title: str) -> list[R]:
        """Apply a function to this process's share of cases, in as many worker processes as memory allows."""
        mine = self.group.shard(cases)
        processes = worker_pool.choose_workers(self.jobs, [_largest_case(self.raw)] * len(mine), BYTES_PER_VOXEL)
        return worker_pool.over_cases(function, mine, [c.id for c in mine], title=title, jobs=processes)


def plan_and_preprocess(
    root: Path | str,
    dataset: str | None = None,
    *,
    options: PreprocessOptions | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Preprocessed:
    """Verify a raw data set, derive its plan, divide its patients into folds and preprocess its slices.

    Nothing is written before every file has been verified. A case that is already preprocessed from the same files
    by the same plan is kept, so an interrupted run continues where it stopped. A ``plan.json`` that was edited by
    hand is kept and used.

    Args:
        root: the folder that holds ``datasets_raw``.
        dataset: its name there; None: the only one.
        options: how to plan and preprocess.
        group: processes that share the cases, on one machine or on several with a common disk.

    Raises:
        DatasetProblems: with all problems of the data set.
        DvtError: for an invalid plan, invalid splits, or a full disk.
    """
    options = options or PreprocessOptions()
    with trusting(options.trust):
        return _plan_and_preprocess(open_workspace(Path(root), dataset), options, group)


def _plan_and_preprocess(workspace: Workspace, options: PreprocessOptions, group: ProcessGroup) -> Preprocessed:
    begin = time.monotonic()
    raw, problems = survey(workspace.raw)
    if raw is None:
        raise DatasetProblems(problems)
    pool = _CasePool(raw=raw, jobs=options.jobs, group=group)
    fingerprint, warnings, sources = _verify(pool, problems)
    verified_s = time.monotonic() - begin
    splits, split_warnings = divide(
        workspace, raw, options.folds, options.seed, options.folds_by, verify_only=options.verify_only
    )
    plan, plan_warnings = _plan(workspace, fingerprint, options)
    result = Preprocessed(
        workspace=workspace,
        fingerprint=fingerprint,
        plan=plan,
        splits=splits,
        warnings=(*warnings, *plan_warnings, *_mirrored_sides(workspace, plan, fingerprint), *split_warnings),
        summary=describe_plan(fingerprint, plan, splits),
        timing=f"Verified {plural(len(raw.cases), 'case')} in {duration(verified_s)}.",
    )
    group.all_gather(None)  # all processes have read the old files before any of them is replaced
    if options.verify_only or splits is None:
        return result
    return replace(result, timing=f"{result.timing} {_write(result, splits, pool, sources)}")


def _write(result: Preprocessed, splits: Splits, pool: _CasePool, sources: dict[Path, SeenFile]) -> str:
    """Write the records and the preprocessed cases. Return how many cases that were, and how long it took."""
    workspace, group = result.workspace, pool.group
    with files.exclusive_lock(workspace.preprocessed) if group.is_main else contextlib.nullcontext():
        if group.is_main:
            json_records.save(result.fingerprint, workspace.fingerprint)
            json_records.save(result.plan, workspace.plan)
            json_records.save(splits, workspace.splits)
            remember(workspace, sources)
        begin = time.monotonic()
        count = _preprocess_cases(workspace, result.fingerprint, result.plan, pool)
        group.all_gather(None)
    kept = "" if count == len(pool.raw.cases) else "; the others were up to date"
    return f"Preprocessed {count} of them in {duration(time.monotonic() - begin)}{kept}."


def _verify(pool: _CasePool, problems: list[str]) -> tuple[Fingerprint, tuple[str, ...], dict[Path, SeenFile]]:
    """Check and measure every voxel of a data set. Return its fingerprint, warnings and files.

    Raises:
        DatasetProblems: with ``problems``, which its listing had, and those of its files.
    """
    raw = pool.raw
    mine = pool.map(partial(examine, labels=raw.labels), raw.cases, "Verify")
    examinations: list[Examination] = pool.group.gather_shards(mine)
    problems = [*problems, *(line for examination in examinations for line in examination.problems)]
    if problems:
        raise DatasetProblems(problems)
    cases = tuple(e.fingerprint for e in examinations if e.fingerprint is not None)
    if repeated := list(cohort_checks.repeated_scans(raw, cases)):
        raise DatasetProblems(repeated)
    fingerprint = Fingerprint(dataset=raw.name, channels=raw.channels, labels=raw.labels, cases=cases)
    warnings = (
        *consistency_warnings(raw),
        *cohort_checks.unused_labels(raw, cases),
        *(line for e in examinations for line in e.warnings),
    )
    return fingerprint, warnings, {path: file for e in examinations for path, file in e.files.items()}


def _largest_case(raw: Dataset) -> int:
    """Return the voxels of the largest case over all its channels, from headers; 0 if none can be read."""
    sizes = [0]
    for case in raw.cases:
        try:
            sizes.append(volume_io.count_voxels(case.images[0]) * len(case.images))
        except DvtError:
            continue  # the verification reports it
    return max(sizes)


# --- plan -----------------------------------------------------------------------------------------


def _plan(workspace: Workspace, fingerprint: Fingerprint, options: PreprocessOptions) -> tuple[Plan, tuple[str, ...]]:
    """Return the derived plan, or the plan on disk if it was derived from these data and then edited; and warnings."""
    derived = replace(derive(fingerprint, options.preset), trust=options.trust)
    if options.replan or not workspace.plan.exists():
        return derived, ()
    existing = json_records.load(Plan, workspace.plan, f"{STAGE} with `replan=True`")
    edited = differences(existing, derived)
    if existing.fingerprint_digest != derived.fingerprint_digest or existing.preset != options.preset:
        if not edited:
            return derived, ()
        why = f"for `preset={options.preset}`" if existing.preset != options.preset else "because the raw data changed"
        return derived, (
            f"{workspace.plan}: derived again {why}. Changed decisions, including edits: {', '.join(edited)}.",
        )
    if not edited:
        return derived, ()
    if existing.labels != fingerprint.labels or existing.channels != fingerprint.channels:
        raise DvtError(
            f"{workspace.plan}: labels and channels must be those of dataset.json. Undo that edit, "
            f"or run {STAGE} with `replan=True`."
        )
    reasons = {name: f"Edited by hand; the rule gave: {derived.because.get(name, '')}" for name in edited}
    warning = f"{workspace.plan}: edited by hand, and kept: {', '.join(edited)}. Set `replan=True` to derive it again."
    return replace(existing, because={**derived.because, **reasons}, trust=options.trust), (warning,)


def _mirrored_sides(workspace: Workspace, plan: Plan, fingerprint: Fingerprint) -> tuple[str, ...]:
    """Warn of a plan that exchanges left and right in labels that have sides: the paper's, an edited or an old one."""
    sided = mirrored_sides(plan.slice_axis, plan.variants, fingerprint)
    if not sided:
        return ()
    action = "Use `preset=auto`." if plan.preset == "paper" else "Set `replan=True` to derive it again."
    return (f"{workspace.plan}: its variants mirror left and right, although {sided}. {action}",)


# --- slices ---------------------------------------------------------------------------------------


def _preprocess_cases(workspace: Workspace, fingerprint: Fingerprint, plan: Plan, pool: _CasePool) -> int:
    """Preprocess the cases that are not up to date. Return their number, over all processes."""
    digests = {case.id: case.source_digest for case in fingerprint.cases}
    outdated = [
        case
        for case in pool.raw.cases
        if pool.group.is_main
        and not preprocessed_cases.is_current(workspace.preprocessed_case(case.id), plan, digests[case.id])
    ]
    outdated = pool.group.broadcast(outdated)
    pool.map(partial(_preprocess_case, workspace=workspace, plan=plan, digests=digests), outdated, "Preprocess")
    return len(outdated)


def _preprocess_case(case: Case, workspace: Workspace, plan: Plan, digests: dict[str, str]) -> None:
    if case.label is None:
        raise ValueError(f"{case.id} has no label")
    label, grid = volume_io.read(case.label)
    order = to_slice_order(grid, plan.slice_axis)
    images = [order.apply(volume_io.read(path)[0]) for path in case.images]
    image, classes = slice_preprocessing.preprocess_slices(images, order.apply(label), plan)
    preprocessed_cases.save(workspace.preprocessed_case(case.id), image, classes, case.id, plan, digests[case.id])
