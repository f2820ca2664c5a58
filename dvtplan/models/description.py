"""What a model says of itself, as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dvtplan.core import json_records
from dvtplan.core.text import plural
from dvtplan.core.verified_archive import ArchiveReader
from dvtplan.data.dataset import PHANTOM_WARNING
from dvtplan.models.model_store import TABLE_TEXT, model_digest, open_model
from dvtplan.models.training_run import Run
from dvtplan.models.weight_files import float_type, tensor_digest
from dvtplan.planning.plan import Plan
from dvtplan.planning.training_ranges import SMALLEST_GROUP, Range, TrainingData

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
    with open_model(path) as stored:
        archive = stored.archive
        if archive is None:
            raise ValueError(f"{path} is no archive")
        floats = float_type(archive)
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
            f"{size / 1e6:.3g} MB; its {plural(count, 'member')} fit their digests",
        )  # fmt: skip


def _archived_digest(archive: ArchiveReader, fold: int, floats: str) -> str:
    """As ``weights_digest``, without the network; ``floats`` is the type of all its float weights."""
    home = f"fold_{fold}/weights/"
    names = [name for name in archive.manifest.members if name.startswith(home)]
    return json_records.digest({n[len(home) : -len(".npy")]: tensor_digest(archive, n, floats) for n in names})


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
        ("recipe", f"{recipe.name}: {plural(recipe.epochs, 'epoch')}, batches of {recipe.batch_size}, learning rate "
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
    cases = f"{plural(len(run.train), 'case')}, {len(run.test)} left for testing"
    return f"{run.fold}: {run.epochs_done}{unfinished} epochs on {cases}"


def _data_lines(data: TrainingData | None) -> list[tuple[str, str]]:
    if data is None:
        return [("trained on", "not told")]
    kind = {True: "phantoms", False: "no phantoms", None: "whether phantoms is not known"}[data.phantom]
    of = f"{plural(data.cases, 'case')} of {plural(data.patients, 'patient')}"
    lines = [
        ("trained on", f"{data.dataset}: {of}, {kind}"),
        *([("", PHANTOM_WARNING)] if data.phantom else []),
        ("", "spacing in mm: " + "; ".join(f"{axis} {_span(s)}" for axis, s in data.spacing_mm.items())),
        ("", "voxels: " + "; ".join(f"{axis} {_span(s)}" for axis, s in data.shape.items())),
        ("", "orientations: " + ", ".join(f"{code} {n}" for code, n in data.orientations.items())),
    ]
    for name, label in data.labels.items():
        ml = f", {_span(label.ml)} mL" if label.ml else f"; fewer than {SMALLEST_GROUP}" if label.cases else ""
        lines.append(("", f"{name}: in {plural(label.cases, 'case')}{ml}"))
    return lines


def _span(spread: Range) -> str:
    """'1.25', or '1.25 to 1.4 (median 1.3)'."""
    if spread.minimum == spread.maximum:
        return f"{spread.median:.4g}"
    return f"{spread.minimum:.4g} to {spread.maximum:.4g} (median {spread.median:.4g})"
