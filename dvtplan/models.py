"""A trained model on disk, without torch: a results folder, or the archive in which it travels.

An archive holds plan.json, fingerprint.json (ranges, no case), table1.csv and table1.txt where the model was scored,
NOTICE.txt and manifest.json; and of each fold run.json, which names no case, and weights/TENSOR.npy, numbers alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dvtplan import artifacts, journal, sealed
from dvtplan.errors import DvtError, how_many
from dvtplan.records import PHANTOM_WARNING, Fingerprint, Plan, Run, is_synthetic
from dvtplan.sealed import AGAIN, Sealed
from dvtplan.training_data import SMALLEST_GROUP, Spread, TrainingData, summarize
from dvtplan.workspace import FoldFolder, model_description, model_fingerprint, model_plan, trained_folds

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
DTYPES = {"float32": "<f4", "float16": "<f2", "int64": "<i8"}
"""Numbers that weights are made of -> how a .npy file calls them."""
FLOATS = ("float32", "float16")
"""The types in which an archive may store the float32 weights of a network. It stores all of them in one type."""

Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
"""Tensor name -> dtype (a key of ``DTYPES``) and shape."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """The folds of a model that are to be used; they agree in plan and classes."""

    path: Path
    plan: Plan
    runs: dict[int, Run]
    """By fold, in the order asked for."""
    archive: Sealed | None
    """None: ``path`` is a results folder, whose weights ``checkpoint`` reads."""
    training: TrainingData | None
    """What the folds were trained on, where that lies beside their plan."""


@contextlib.contextmanager
def opened(path: Path, folds: Sequence[int] | None = None) -> Iterator[Stored]:
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
    with sealed.opened(path, KIND) as archive:
        yield _of_archive(path, archive, folds)


def _of_folder(path: Path, folds: Sequence[int] | None) -> Stored:
    there = [k for k in trained_folds(path) if FoldFolder(path / f"fold_{k}").checkpoint.exists()]
    if not there:
        fault = "holds no trained fold" if path.exists() else "not found"
        raise DvtError(f"{path}: {fault}. Name a folder like results/DATASET/gn_unet, or an archive of a model.")
    chosen = _choose(path, there, folds)
    plan = artifacts.load(Plan, model_plan(path), "dvt_train")
    files = {k: FoldFolder(path / f"fold_{k}").run for k in chosen}
    runs = {k: artifacts.load(Run, file, "dvt_train") for k, file in files.items()}
    _require_agreement(plan, model_plan(path), runs, {k: str(file) for k, file in files.items()})
    return Stored(path=path, plan=plan, runs=runs, archive=None, training=_training(path, plan, runs))


def _training(results: Path, plan: Plan, runs: Mapping[int, Run]) -> TrainingData | None:
    """The ranges of the scans that some folds were trained on, where their fingerprint lies beside the plan."""
    path = model_fingerprint(results)
    if not path.exists():
        return None
    data = trained_on(artifacts.load(Fingerprint, path, "dvt_train"), plan, runs, _is_phantom(results))
    if data is None:
        journal.warn(f"{path}: is not of the data that {model_plan(results)} was derived from. Scans are not compared.")
    return data


def trained_on(
    fingerprint: Fingerprint, plan: Plan, runs: Mapping[int, Run], phantom: bool | None
) -> TrainingData | None:
    """The ranges of the scans that some folds were trained on; none where the fingerprint is of other data."""
    trained = {case for run in runs.values() for case in run.train}
    known = {case.id for case in fingerprint.cases}
    if artifacts.digest(fingerprint) != plan.fingerprint_digest or not trained <= known:
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


def _of_archive(path: Path, archive: Sealed, folds: Sequence[int] | None) -> Stored:
    members = archive.manifest.members
    there = sorted(int(name.split("/")[0].removeprefix("fold_")) for name in members if _is_run(name))
    if not there:
        raise DvtError(f"{path}: holds no trained fold. {AGAIN}")
    plan = archive.record(Plan, PLAN)
    runs = {k: archive.record(Run, f"fold_{k}/run.json") for k in there}
    _require_agreement(plan, path / PLAN, runs, {k: f"{path}: fold_{k}/run.json" for k in there})
    for k, run in runs.items():
        fault = _implausible(run, plan)
        if fault or run.fold != k:
            raise DvtError(f"{path}: fold_{k}/run.json: {fault or f'is of fold {run.fold}'}. {AGAIN}")
    fixed = {PLAN, DATA, NOTICE, TABLE_CSV, TABLE_TEXT, *(f"fold_{k}/run.json" for k in there)}
    homes = tuple(f"fold_{k}/weights/" for k in there)
    strange = [name for name in members if name not in fixed and not (name.startswith(homes) and name.endswith(".npy"))]
    if strange:
        raise DvtError(f"{path}: holds {strange[0]}, which is no part of a model. {AGAIN}")
    chosen = _choose(path, there, folds)
    data = archive.record(TrainingData, DATA) if DATA in archive else None
    if data is not None and data.channel_names != plan.channels:
        raise DvtError(f"{path}: {DATA} is of other channels than {PLAN}. {AGAIN}")
    return Stored(path=path, plan=plan, runs={k: runs[k] for k in chosen}, archive=archive, training=data)


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
    digest = artifacts.digest(plan)
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


# --- weights --------------------------------------------------------------------------------------


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """How a .npy file of a dtype and a shape begins (NumPy's format 1.0), in C order.

    Written here, so that bytes do not depend on NumPy's version, and compared rather than parsed.
    """
    words = f"{{'descr': '{DTYPES[dtype]}', 'fortran_order': False, 'shape': {shape!r}, }}"
    padding = -(10 + len(words) + 1) % 64
    text = f"{words}{' ' * padding}\n".encode("ascii")
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def npy(array: np.ndarray) -> bytes:
    """A .npy file of numbers, which ``numpy.load`` reads without unpickling."""
    return npy_header(str(array.dtype), array.shape) + np.ascontiguousarray(array, DTYPES[str(array.dtype)]).tobytes()


def widened(array: np.ndarray) -> np.ndarray:
    """Convert stored weights to the type in which the network uses them: float16 to float32, others stay."""
    return array.astype(np.float32) if array.dtype == np.float16 else array


def weights_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of names, shapes and numbers of the weights of a network, as it uses them: float16 counts as float32."""
    return artifacts.digest({name: hashlib.sha256(npy(widened(array))).hexdigest() for name, array in arrays.items()})


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
    return artifacts.digest([artifacts.digest(plan), *parts])


def weights_name(fold: int, tensor: str) -> str:
    """Where a tensor lies in an archive."""
    return f"fold_{fold}/weights/{tensor}.npy"


def archived_weights(archive: Sealed, fold: int, expected: Shapes) -> dict[str, np.ndarray]:
    """The weights of a fold in the types of its network, once all names and sizes are as the network needs them.

    Args:
        archive: where they lie.
        fold: whose.
        expected: every tensor that the network has.

    Raises:
        DvtError: if a tensor is missing, beyond, of another dtype or shape, or not finite, or float types are mixed.
    """
    floats = _float_type(archive)
    stored = {name: (floats if dtype == "float32" else dtype, shape) for name, (dtype, shape) in expected.items()}
    home = f"fold_{fold}/weights/"
    sizes = {name: member.bytes for name, member in archive.manifest.members.items() if name.startswith(home)}
    needed = {
        weights_name(fold, name): len(npy_header(*kind)) + math.prod(kind[1]) * np.dtype(DTYPES[kind[0]]).itemsize
        for name, kind in stored.items()
    }
    for name in (*needed, *sizes):
        if needed.get(name) != sizes.get(name):
            wants, has = (f"{of[name]} bytes" if name in of else "no such tensor" for of in (needed, sizes))
            raise DvtError(f"{archive.path}: {name}: as {floats} the network has {wants}, the archive {has}. {AGAIN}")
    return {name: widened(_array(archive, weights_name(fold, name), *kind)) for name, kind in stored.items()}


def _float_type(archive: Sealed) -> str:
    """The type of the first float weights in an archive. All others must have the same."""
    names = (name for name in archive.manifest.members if "/weights/" in name)
    return next((dtype for name in names if (dtype := _type_of(archive.read(name))) in FLOATS), FLOATS[0])


def _type_of(content: bytes) -> str:
    """The number type of a .npy file that begins as ``npy_header`` begins. Empty if it begins otherwise."""
    starts = {(header := npy_header(dtype, ()))[:8] + header[10:25]: dtype for dtype in DTYPES}
    return starts.get(content[:8] + content[10:25], "")  # bytes 8 and 9 are the header's length


def _array(archive: Sealed, name: str, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    content, header = archive.read(name), npy_header(dtype, shape)
    if not content.startswith(header):
        raise DvtError(f"{archive.path}: {name} is no array of {dtype} and shape {shape}. {AGAIN}")
    return _numbers(archive, name, content, dtype, len(header)).reshape(shape)


def _numbers(archive: Sealed, name: str, content: bytes, dtype: str, start: int) -> np.ndarray:
    """The numbers of a .npy file behind its header, which are finite."""
    array = np.frombuffer(content, DTYPES[dtype], offset=start).astype(dtype)
    if not np.isfinite(array).all():
        raise DvtError(f"{archive.path}: {name} holds weights that are not finite. {AGAIN}")
    return array


# --- what is told ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A model in words."""

    path: Path
    plan: Plan
    runs: dict[int, Run]
    data: TrainingData | None
    """None: not known."""
    table: str
    """Table 1; empty where the model was not scored, or since it was."""
    weights: str
    """The type in which the weights are stored, one of ``FLOATS``."""
    digest: str
    about: str
    """What ``path`` is, and whether it is whole."""


def describe_archive(path: Path) -> Described:
    """Read everything in an archive and tell of it; torch is not loaded.

    Raises:
        DvtError: as ``opened``; if any member does not fit its digest.
    """
    with opened(path) as stored:
        archive = stored.archive
        if archive is None:
            raise ValueError(f"{path} is no archive")
        floats = _float_type(archive)
        digests = [(run, _archived_digest(archive, k, floats)) for k, run in stored.runs.items()]
        for name in (name for name in archive.manifest.members if "/weights/" not in name):
            archive.read(name)
        count, size = len(archive.manifest.members), path.stat().st_size
        return Described(
            path=path,
            plan=stored.plan,
            runs=stored.runs,
            data=stored.training,
            table=archive.text(TABLE_TEXT) if TABLE_TEXT in archive else "",
            weights=floats,
            digest=model_digest(stored.plan, digests),
            about=f"archive of format {archive.manifest.format} by dvtplan {archive.manifest.dvtplan}, "
            f"{size / 1e6:.3g} MB; its {how_many(count, 'member')} fit their digests",
        )  # fmt: skip


def _archived_digest(archive: Sealed, fold: int, floats: str) -> str:
    """As ``weights_digest``, without the network; ``floats`` is the type of all its float weights."""
    home = f"fold_{fold}/weights/"
    names = [name for name in archive.manifest.members if name.startswith(home)]
    return artifacts.digest({n[len(home) : -len(".npy")]: _tensor_digest(archive, n, floats) for n in names})


def _tensor_digest(archive: Sealed, name: str, floats: str) -> str:
    """SHA-256 of the .npy file of a tensor, or of the float32 file that a float16 tensor becomes when it is used."""
    content = archive.read(name)
    dtype, start = _type_of(content), 10 + int.from_bytes(content[8:10], "little")
    count = len(content) - start
    if dtype not in (floats, "int64") or count < 0 or count % np.dtype(DTYPES[dtype]).itemsize:
        raise DvtError(f"{archive.path}: {name} is not an array of {floats} or int64. {AGAIN}")
    if dtype != "float16":
        return archive.manifest.members[name].sha256
    numbers = _numbers(archive, name, content, dtype, start).astype("<f4")
    return hashlib.sha256(content[:start].replace(b"<f2", b"<f4", 1) + numbers.tobytes()).hexdigest()


def to_text(of: Described) -> str:
    """A model for a terminal."""
    first = next(iter(of.runs.values()))
    rows, columns = of.plan.target_shape
    normal = of.plan.normalization
    clipped = "" if normal.clip_percentiles is None else ", percentiles {:g} and {:g}".format(*normal.clip_percentiles)
    recipe = first.recipe
    lines = [
        ("model", str(of.path)),
        ("", of.about),
        ("network", f"{first.network}, width {recipe.width}, {first.parameters:,} parameters"),
        ("weights", of.weights),
        ("channels", ", ".join(of.plan.channels)),
        ("classes", ", ".join(f"{name} = {value}" for name, value in first.classes.items())),
        *(("folds" if k == next(iter(of.runs)) else "", _fold(run)) for k, run in of.runs.items()),
        ("plan", f"{of.plan.preset}: slices along {of.plan.slice_axis}, as {rows}x{columns}, scaled by "
                 f"{normal.scope}{clipped}; of data set {of.plan.dataset}"),
        ("recipe", f"{recipe.name}: {how_many(recipe.epochs, 'epoch')}, batches of {recipe.batch_size}, learning rate "
                   f"{recipe.learning_rate:g}, focal gamma {recipe.focal_gamma:g}, oversampling "
                   f"{recipe.oversampling:g}, seed {recipe.seed}"),
        *_data_lines(of.data),
        ("digest", of.digest),
        ("versions", ", ".join(f"{name} {version}" for name, version in first.versions.items())),
    ]  # fmt: skip
    table = of.table.rstrip() or "No Table 1: not scored, or not since it was trained."
    told = [f"{head:<12}{text}" for head, text in lines]
    return "\n".join([*told, "", table, "", "Research software, no medical device."])


def _fold(run: Run) -> str:
    unfinished = "" if run.epochs_done >= run.recipe.epochs else f" of {run.recipe.epochs}"
    cases = f"{how_many(len(run.train), 'case')}, {len(run.test)} left for testing"
    return f"{run.fold}: {run.epochs_done}{unfinished} epochs on {cases}"


def _data_lines(data: TrainingData | None) -> list[tuple[str, str]]:
    if data is None:
        return [("trained on", "not told")]
    kind = {True: "phantoms", False: "no phantoms", None: "whether phantoms is not known"}[data.phantom]
    of = f"{how_many(data.cases, 'case')} of {how_many(data.patients, 'patient')}"
    lines = [
        ("trained on", f"{data.dataset}: {of}, {kind}"),
        *([("", PHANTOM_WARNING)] if data.phantom else []),
        ("", "spacing in mm: " + "; ".join(f"{axis} {_span(s)}" for axis, s in data.spacing_mm.items())),
        ("", "voxels: " + "; ".join(f"{axis} {_span(s)}" for axis, s in data.shape.items())),
        ("", "orientations: " + ", ".join(f"{code} {n}" for code, n in data.orientations.items())),
    ]
    for name, label in data.labels.items():
        ml = f", {_span(label.ml)} mL" if label.ml else f"; fewer than {SMALLEST_GROUP}" if label.cases else ""
        lines.append(("", f"{name}: in {how_many(label.cases, 'case')}{ml}"))
    return lines


def _span(spread: Spread) -> str:
    """'1.25', or '1.25 to 1.4 (median 1.3)'."""
    if spread.minimum == spread.maximum:
        return f"{spread.median:.4g}"
    return f"{spread.minimum:.4g} to {spread.maximum:.4g} (median {spread.median:.4g})"
