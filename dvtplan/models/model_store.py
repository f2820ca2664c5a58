"""A trained model on disk, without torch: a results folder, or an archive to share.

An archive contains plan.json, fingerprint.json (ranges, no cases), NOTICE.txt and manifest.json; table1.csv and
table1.txt if the model was scored; and for each fold run.json, without names of cases, weights/TENSOR.npy, and
postprocessing.json if its mask rule was chosen.
"""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core import json_records, verified_archive
from dvtplan.core.errors import DvtError, InvalidValue, require_whole
from dvtplan.core.verified_archive import DOWNLOAD_AGAIN, ArchiveReader
from dvtplan.data.dataset_json import read_description
from dvtplan.data.names import label_faults
from dvtplan.data.paths import (
    POSTPROCESSING,
    model_description,
    model_fingerprint,
    model_fold,
    model_plan,
    trained_folds,
)
from dvtplan.data.phantom import is_phantom
from dvtplan.models.postprocessing import PLAIN, MaskRule, Postprocessing, read_postprocessing
from dvtplan.models.training_run import Run
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan
from dvtplan.planning.training_ranges import TrainingData, summarize

KIND = "dvtplan model"
"""Kind of archive, as in its manifest."""
PLAN, DATA, NOTICE = "plan.json", "fingerprint.json", "NOTICE.txt"
TABLE_CSV, TABLE_TEXT = "table1.csv", "table1.txt"
WITHHELD = "withheld"
"""Replaces the name of each case in an archive."""
WIDEST = 1024
"""Largest width (channels of the first level) in an archive; the published width is 32."""
MOST_CHANNELS = 64
"""Largest number of image channels in an archive."""
COPY_AGAIN = "Copy the model again, or train it again with `train_fold`."
"""What to do about a damaged file of a results folder, which another person may have trained."""
GZIP_MAGIC = b"\x1f\x8b"
ZIP_MAGIC = b"PK\x03\x04"
FLOATS = ("float32", "float16")
"""Number types in which an archive may store float32 weights. It stores all of them in one type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """Some folds of a model, which agree in plan and classes."""

    path: Path
    plan: Plan
    runs: dict[int, Run]
    """By fold, in the requested order."""
    postprocessing: dict[int, Postprocessing]
    """By fold; a fold without a chosen mask rule is missing."""
    archive: ArchiveReader | None
    """None: ``path`` is a results folder; ``checkpoint`` reads its weights."""
    training: TrainingData | None
    """Ranges of the data that the folds were trained on; None if unknown."""
    warning: str = ""
    """Why ``training`` is None although a fingerprint exists; empty if there is no such problem."""

    @property
    def rules(self) -> tuple[MaskRule, ...]:
        """The mask rule of each fold, in the order of ``runs``."""
        return tuple(self.postprocessing[k].rule if k in self.postprocessing else PLAIN for k in self.runs)


@contextlib.contextmanager
def open_model(path: Path | str, folds: Sequence[int] | None = None) -> Iterator[StoredModel]:
    """Open a results folder or an archive.

    Args:
        path: a folder such as ``results/DATASET/NETWORK``, or a file that ``export_model`` wrote.
        folds: numbers of folds; None: all that are trained.

    Raises:
        InvalidValue: if ``folds`` are not numbers.
        DvtError: if there is no trained fold, or a requested fold is missing, or folds differ in plan or classes; or
            if an archive is damaged, compressed or not a model archive.
    """
    path = Path(path)
    if folds is not None and (isinstance(folds, str) or not isinstance(folds, Collection)):
        raise InvalidValue(f"`folds={folds!r}`: expected a list of fold numbers, such as [0, 1], or None for all.")
    for fold in folds or ():
        require_whole("folds", fold, 0)
    if not path.is_file():
        yield _of_folder(path, folds)
        return
    if path.suffix == ".pt":
        raise DvtError(f"{path}: is a checkpoint. Name the results folder that contains it, or a model archive.")
    _refuse_gzip(path)
    with verified_archive.open_archive(path, KIND) as archive:
        yield _of_archive(path, archive, folds)


def _refuse_gzip(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("rb") as file:
        if file.read(len(GZIP_MAGIC)) != GZIP_MAGIC:
            return
        try:
            with gzip.open(path) as unpacked:
                is_zip = unpacked.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        except (EOFError, zlib.error, gzip.BadGzipFile):
            is_zip = False
        if not is_zip:
            raise DvtError(f"{path}: is not a model, but a gzip file of something else. Name a model archive.")
        target = path.stem if path.suffix == ".gz" else f"unpacked_{path.name}"
        raise DvtError(
            f"{path}: is compressed with gzip, but a model archive is a ZIP file. Run gunzip first: "
            f"gunzip -c {path.name} > {target}"
        )


def _of_folder(path: Path, folds: Sequence[int] | None) -> StoredModel:
    trained = [k for k in trained_folds(path) if model_fold(path, k).checkpoint.exists()]
    if not trained:
        fault = "contains no trained fold" if path.exists() else "not found"
        raise DvtError(f"{path}: {fault}. Name a folder like results/DATASET/gn_unet, or a model archive.")
    chosen = _choose(path, trained, folds)
    plan = json_records.load(Plan, model_plan(path), "`train_fold`", COPY_AGAIN)
    files = {k: model_fold(path, k).run for k in chosen}
    runs = {k: json_records.load(Run, file, "`train_fold`", COPY_AGAIN) for k, file in files.items()}
    _require_agreement(plan, model_plan(path), runs, {k: str(file) for k, file in files.items()})
    training, warning = _training(path, plan, runs)
    found = {k: read_postprocessing(model_fold(path, k).postprocessing) for k in chosen}
    chosen_rules = {k: one for k, one in found.items() if one is not None}
    return StoredModel(
        path=path,
        plan=plan,
        runs=runs,
        postprocessing=chosen_rules,
        archive=None,
        training=training,
        warning=warning,
    )


def _training(results: Path, plan: Plan, runs: Mapping[int, Run]) -> tuple[TrainingData | None, str]:
    """Return the ranges of the scans that some folds were trained on, and why they are missing, if unexpectedly."""
    path = model_fingerprint(results)
    if not path.exists():
        return None, ""
    phantom = is_phantom(plan.dataset, description=read_description(model_description(results)))
    data = trained_on(json_records.load(Fingerprint, path, "`train_fold`", COPY_AGAIN), plan, runs, phantom)
    if data is not None:
        return data, ""
    return None, f"{path}: describes other data than {model_plan(results)}. Scans are not compared with it."


def trained_on(
    fingerprint: Fingerprint, plan: Plan, runs: Mapping[int, Run], phantom: bool | None
) -> TrainingData | None:
    """Return the ranges of the scans that some folds were trained on; None if the fingerprint is of other data."""
    trained = {case for run in runs.values() for case in run.train}
    known = {case.id for case in fingerprint.cases}
    if json_records.digest(fingerprint) != plan.fingerprint_digest or not trained <= known:
        return None
    return summarize(fingerprint, trained, phantom)


def _of_archive(path: Path, archive: ArchiveReader, folds: Sequence[int] | None) -> StoredModel:
    members = archive.manifest.members
    stored = sorted(int(name.split("/")[0].removeprefix("fold_")) for name in members if _is_run(name))
    if not stored:
        raise DvtError(f"{path}: contains no trained fold. {DOWNLOAD_AGAIN}")
    plan = archive.record(Plan, PLAN)
    runs = {k: archive.record(Run, f"fold_{k}/run.json") for k in stored}
    _require_agreement(plan, path / PLAN, runs, {k: f"{path}: fold_{k}/run.json" for k in stored})
    for k, run in runs.items():
        fault = _implausible(run, plan)
        if fault or run.fold != k:
            raise DvtError(f"{path}: fold_{k}/run.json: {fault or f'is of fold {run.fold}'}. {DOWNLOAD_AGAIN}")
    rules = {k: postprocessing_name(k) for k in stored}
    fixed = {PLAN, DATA, NOTICE, TABLE_CSV, TABLE_TEXT, *rules.values(), *(f"fold_{k}/run.json" for k in stored)}
    homes = tuple(f"fold_{k}/weights/" for k in stored)
    unexpected = [
        name for name in members if name not in fixed and not (name.startswith(homes) and name.endswith(".npy"))
    ]
    if unexpected:
        raise DvtError(f"{path}: contains {unexpected[0]}, which does not belong to a model. {DOWNLOAD_AGAIN}")
    chosen = _choose(path, stored, folds)
    data = archive.record(TrainingData, DATA) if DATA in archive else None
    if data is not None and data.channel_names != plan.channels:
        raise DvtError(f"{path}: {DATA} is of other channels than {PLAN}. {DOWNLOAD_AGAIN}")
    return StoredModel(
        path=path,
        plan=plan,
        runs={k: runs[k] for k in chosen},
        postprocessing={k: archive.record(Postprocessing, rules[k]) for k in chosen if rules[k] in archive},
        archive=archive,
        training=data,
    )


def postprocessing_name(fold: int) -> str:
    """Return the name of a fold's chosen mask rule in an archive."""
    return f"fold_{fold}/{POSTPROCESSING}"


def _is_run(name: str) -> bool:
    """Return whether a member is the ``run.json`` of a fold, with its number in canonical form."""
    fold, _, rest = name.partition("/")
    number = fold.removeprefix("fold_")
    return rest == "run.json" and number.isdecimal() and len(number) < 9 and fold == f"fold_{int(number)}"


def _choose(path: Path, available: Sequence[int], folds: Sequence[int] | None) -> tuple[int, ...]:
    missing = sorted(set(folds or ()) - set(available))
    if missing:
        present, absent = (", ".join(map(str, numbers)) for numbers in (available, missing))
        raise DvtError(f"{path}: contains the folds {present}, not {absent}. Choose among them with `folds`.")
    return tuple(dict.fromkeys(folds or available))


def _require_agreement(plan: Plan, plan_file: Path, runs: Mapping[int, Run], files: Mapping[int, str]) -> None:
    digest = json_records.digest(plan)
    first = next(iter(runs))
    for k, run in runs.items():
        if run.plan_digest != digest:
            raise DvtError(
                f"{files[k]}: was trained by another plan than {plan_file}. Copy the model again, or train it again."
            )
        if run.classes != runs[first].classes:
            raise DvtError(f"{files[k]}: predicts other classes than fold {first}. Choose folds that agree.")
        seen = [(one.recipe.patch, one.recipe.context, one.recipe.mirror) for one in (run, runs[first])]
        if seen[0] != seen[1]:
            what = [f"patch {one[0]}, context {one[1]}, {'' if one[2] else 'not '}mirrored" for one in seen]
            raise DvtError(
                f"{files[k]}: sees slices otherwise ({what[0]}) than fold {first} ({what[1]}). Choose folds that agree."
            )


def _implausible(run: Run, plan: Plan) -> str:
    """Return what is invalid in an archive's run; empty if nothing. Checked before a network of its size is built."""
    values = list(run.classes.values())
    if not values or values != sorted(set(values)) or not 1 <= values[0] <= values[-1] <= 254:
        return f"classes must map names to rising values from 1 to 254, not {run.classes}"
    if faults := label_faults((*run.classes, *plan.labels)):
        return f"{faults[0]}, but its name becomes part of file names"
    if run.channels != len(plan.channels) or run.channels > MOST_CHANNELS:
        return f"takes {run.channels} channels, the plan names {len(plan.channels)} (at most {MOST_CHANNELS})"
    if run.recipe.width > WIDEST:
        return f"a width of {run.recipe.width} is above {WIDEST}"
    tile = run.recipe.patch_shape if run.recipe.patch != "auto" else (0, 0)
    if tile is not None and not all(0 < side <= whole for side, whole in zip(tile, plan.target_shape, strict=True)):
        return f"patch {run.recipe.patch} does not fit slices of {plan.target_shape[0]}x{plan.target_shape[1]}"
    return ""


def model_digest(plan: Plan, folds: Sequence[tuple[Run, str]], rules: Sequence[MaskRule] = ()) -> str:
    """Return the digest of everything that decides a mask: the plan, and each fold's network, weights and mask rule.

    Args:
        plan: of the model.
        folds: run and digest of the weights of each fold.
        rules: mask rule of each fold; empty: all have the plain rule.

    A results folder and an archive of it have the same digest. The optimizer's state does not enter.
    """
    parts = [
        {
            "network": run.network,
            "channels": run.channels,
            "classes": run.classes,
            "width": run.recipe.width,
            "norm_groups": run.recipe.norm_groups,
            "weights": weights,
            **({"patch": run.recipe.patch} if run.recipe.patch != "whole" else {}),
            **({"context": run.recipe.context} if run.recipe.context else {}),
            **({"mirror": True} if run.recipe.mirror else {}),
            **({} if rule.is_plain else {"mask_rule": json_records.to_json(rule)}),
        }
        for (run, weights), rule in zip(folds, rules or (PLAIN,) * len(folds), strict=True)
    ]
    return json_records.digest([json_records.digest(plan), *parts])
