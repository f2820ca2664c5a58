"""A trained model on disk, without torch: a results folder, or the archive in which it travels.

An archive holds plan.json, fingerprint.json (ranges, no case), table1.csv and table1.txt where the model was scored,
NOTICE.txt and manifest.json; and of each fold run.json, which names no case, and weights/TENSOR.npy, numbers alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvtplan.core import console, json_records, verified_archive
from dvtplan.core.errors import DvtError
from dvtplan.core.verified_archive import DOWNLOAD_AGAIN, ArchiveReader
from dvtplan.data.dataset import is_synthetic
from dvtplan.data.paths import FoldFolder, model_description, model_fingerprint, model_plan, trained_folds
from dvtplan.models.training_run import Run
from dvtplan.planning.fingerprint import Fingerprint
from dvtplan.planning.plan import Plan
from dvtplan.planning.training_ranges import TrainingData, summarize

KIND = "dvtplan model"
"""What the manifest says the archive is for."""
PLAN, DATA, NOTICE = "plan.json", "fingerprint.json", "NOTICE.txt"
TABLE_CSV, TABLE_TEXT = "table1.csv", "table1.txt"
WITHHELD = "withheld"
"""Stands for the name of each case that does not travel."""
WIDEST = 1024
"""Channels of the first level in an archive; published is 32."""
MOST_CHANNELS = 64
"""Image channels in an archive."""
LONGEST_NAME = 100
"""Characters in the name of a class, which becomes part of file names."""
FLOATS = ("float32", "float16")
"""The types in which an archive may store the float32 weights of a network. It stores all of them in one type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """The folds of a model that are to be used; they agree in plan and classes."""

    path: Path
    plan: Plan
    runs: dict[int, Run]
    """By fold, in the order asked for."""
    archive: ArchiveReader | None
    """None: ``path`` is a results folder, whose weights ``checkpoint`` reads."""
    training: TrainingData | None
    """What the folds were trained on, where that lies beside their plan."""


@contextlib.contextmanager
def open_model(path: Path, folds: Sequence[int] | None = None) -> Iterator[StoredModel]:
    """Open a results folder or an archive.

    Args:
        path: a folder such as ``results/DATASET/NETWORK``, or a file that ``dvt_model export`` wrote.
        folds: which; none for all that are trained.

    Raises:
        DvtError: if it holds no trained fold, or not the ones asked for, or they differ in plan or classes; or if
            an archive is not what such an archive must be.
    """
    if not path.is_file():
        yield _of_folder(path, folds)
        return
    with verified_archive.open_archive(path, KIND) as archive:
        yield _of_archive(path, archive, folds)


def _of_folder(path: Path, folds: Sequence[int] | None) -> StoredModel:
    there = [k for k in trained_folds(path) if FoldFolder(path / f"fold_{k}").checkpoint.exists()]
    if not there:
        fault = "holds no trained fold" if path.exists() else "not found"
        raise DvtError(f"{path}: {fault}. Name a folder like results/DATASET/gn_unet, or an archive of a model.")
    chosen = _choose(path, there, folds)
    plan = json_records.load(Plan, model_plan(path), "dvt_train")
    files = {k: FoldFolder(path / f"fold_{k}").run for k in chosen}
    runs = {k: json_records.load(Run, file, "dvt_train") for k, file in files.items()}
    _require_agreement(plan, model_plan(path), runs, {k: str(file) for k, file in files.items()})
    return StoredModel(path=path, plan=plan, runs=runs, archive=None, training=_training(path, plan, runs))


def _training(results: Path, plan: Plan, runs: Mapping[int, Run]) -> TrainingData | None:
    """The ranges of the scans that some folds were trained on, where their fingerprint lies beside the plan."""
    path = model_fingerprint(results)
    if not path.exists():
        return None
    data = trained_on(json_records.load(Fingerprint, path, "dvt_train"), plan, runs, _is_phantom(results))
    if data is None:
        console.warn(f"{path}: is not of the data that {model_plan(results)} was derived from. Scans are not compared.")
    return data


def trained_on(
    fingerprint: Fingerprint, plan: Plan, runs: Mapping[int, Run], phantom: bool | None
) -> TrainingData | None:
    """The ranges of the scans that some folds were trained on; none where the fingerprint is of other data."""
    trained = {case for run in runs.values() for case in run.train}
    known = {case.id for case in fingerprint.cases}
    if json_records.digest(fingerprint) != plan.fingerprint_digest or not trained <= known:
        return None
    return summarize(fingerprint, trained, phantom)


def _is_phantom(results: Path) -> bool | None:
    """What the data set of a model says of itself; nothing where that was not kept or cannot be read."""
    try:
        body = json.loads(model_description(results).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    words = body.get("description", "") if isinstance(body, dict) else ""
    return is_synthetic(words) if isinstance(words, str) else None


def _of_archive(path: Path, archive: ArchiveReader, folds: Sequence[int] | None) -> StoredModel:
    members = archive.manifest.members
    there = sorted(int(name.split("/")[0].removeprefix("fold_")) for name in members if _is_run(name))
    if not there:
        raise DvtError(f"{path}: holds no trained fold. {DOWNLOAD_AGAIN}")
    plan = archive.record(Plan, PLAN)
    runs = {k: archive.record(Run, f"fold_{k}/run.json") for k in there}
    _require_agreement(plan, path / PLAN, runs, {k: f"{path}: fold_{k}/run.json" for k in there})
    for k, run in runs.items():
        fault = _implausible(run, plan)
        if fault or run.fold != k:
            raise DvtError(f"{path}: fold_{k}/run.json: {fault or f'is of fold {run.fold}'}. {DOWNLOAD_AGAIN}")
    fixed = {PLAN, DATA, NOTICE, TABLE_CSV, TABLE_TEXT, *(f"fold_{k}/run.json" for k in there)}
    homes = tuple(f"fold_{k}/weights/" for k in there)
    strange = [name for name in members if name not in fixed and not (name.startswith(homes) and name.endswith(".npy"))]
    if strange:
        raise DvtError(f"{path}: holds {strange[0]}, which is no part of a model. {DOWNLOAD_AGAIN}")
    chosen = _choose(path, there, folds)
    data = archive.record(TrainingData, DATA) if DATA in archive else None
    if data is not None and data.channel_names != plan.channels:
        raise DvtError(f"{path}: {DATA} is of other channels than {PLAN}. {DOWNLOAD_AGAIN}")
    return StoredModel(path=path, plan=plan, runs={k: runs[k] for k in chosen}, archive=archive, training=data)


def _is_run(name: str) -> bool:
    """Whether a member is the ``run.json`` of a fold, whose number is written as we write it."""
    fold, _, rest = name.partition("/")
    number = fold.removeprefix("fold_")
    return rest == "run.json" and number.isdecimal() and len(number) < 9 and fold == f"fold_{int(number)}"


def _choose(path: Path, there: Sequence[int], folds: Sequence[int] | None) -> tuple[int, ...]:
    missing = sorted(set(folds or ()) - set(there))
    if missing:
        raise DvtError(f"{path}: holds the folds {there}, not {missing}. Choose among them.")
    return tuple(dict.fromkeys(folds or there))


def _require_agreement(plan: Plan, plan_file: Path, runs: Mapping[int, Run], files: Mapping[int, str]) -> None:
    digest = json_records.digest(plan)
    first = next(iter(runs))
    for k, run in runs.items():
        if run.plan_digest != digest:
            raise DvtError(f"{files[k]}: was trained by another plan than {plan_file}. Train it again.")
        if run.classes != runs[first].classes:
            raise DvtError(f"{files[k]}: predicts other classes than fold {first}. Name folds that agree.")


def _implausible(run: Run, plan: Plan) -> str:
    """What an archive's run cannot be; empty if nothing. Checked before a network of its size is thought of."""
    values = list(run.classes.values())
    if not values or values != sorted(set(values)) or not 1 <= values[0] <= values[-1] <= 254:
        return f"classes must map names to rising values from 1 to 254, not {run.classes}"
    for name in run.classes:
        if not name or len(name) > LONGEST_NAME or any(c in name for c in "/\\:"):
            return f"a class cannot be called {name[:LONGEST_NAME]!r}, which becomes part of file names"
    if run.channels != len(plan.channels) or run.channels > MOST_CHANNELS:
        return f"takes {run.channels} channels, the plan names {len(plan.channels)} (at most {MOST_CHANNELS})"
    if run.recipe.width > WIDEST:
        return f"a width of {run.recipe.width} is beyond {WIDEST}"
    return ""


def model_digest(plan: Plan, folds: Sequence[tuple[Run, str]]) -> str:
    """Of what decides a mask: the plan, and of each fold its network and the digest of its weights.

    The same for a results folder and an archive of it; the optimizer's state has no part in it.
    """
    parts = [
        {
            "network": run.network,
            "channels": run.channels,
            "classes": run.classes,
            "width": run.recipe.width,
            "norm_groups": run.recipe.norm_groups,
            "weights": weights,
        }
        for run, weights in folds
    ]
    return json_records.digest([json_records.digest(plan), *parts])
