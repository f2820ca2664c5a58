"""Describe a trained model as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.core.verified_archive import DOWNLOAD_AGAIN
from dvtplan.data.dataset import PHANTOM_WARNING
from dvtplan.models.model_store import TABLE_TEXT, model_digest, open_model, postprocessing_name
from dvtplan.models.postprocessing import PLAIN, Postprocessing, rule_of_folds
from dvtplan.models.training_run import Run
from dvtplan.models.weight_files import archived_weights, float_type, weights_digest
from dvtplan.planning.plan import Plan
from dvtplan.planning.recipe_text import describe_input, describe_optimizer
from dvtplan.planning.training_ranges import SMALLEST_GROUP, Range, TrainingData


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDescription:
    """What ``to_text`` shows of a model."""

    path: Path
    plan: Plan
    runs: dict[int, Run]
    data: TrainingData | None
    """None: unknown."""
    table: str
    """Table 1; empty if the present model was not scored."""
    weights: str
    """The type in which the weights are stored, one of ``FLOATS``."""
    postprocessing: dict[int, Postprocessing]
    """The chosen mask rules, by fold."""
    digest: str
    about: str
    """Kind of ``path``, and whether it is complete."""


def describe_archive(path: Path | str) -> ModelDescription:
    """Read and verify an archive and describe it.

    Raises:
        DvtError: as ``open_model``; if any member does not match its digest; if weights are not finite, or their
            number or shapes are not those of the network.
    """
    from dvtplan.models import checkpoint  # loads torch

    path = Path(path)
    with open_model(path) as stored:
        archive = stored.archive
        if archive is None:
            raise ValueError(f"{path} is not an archive")
        digests = []
        for k, run in stored.runs.items():
            needed = checkpoint.expected_weights(run, f"{path}: fold_{k}/run.json")
            digests.append((run, weights_digest(archived_weights(archive, k, needed))))
            if k in stored.postprocessing:
                file = f"{path}: {postprocessing_name(k)}"
                stored.postprocessing[k].require_weights(digests[-1][1], file, DOWNLOAD_AGAIN)
            if (count := checkpoint.count_parameters(run)) != run.parameters:
                raise DvtError(
                    f"{path}: fold_{k}/run.json states {run.parameters:,} parameters, but this {run.network} has "
                    f"{count:,}. {DOWNLOAD_AGAIN}"
                )
        for name in (name for name in archive.manifest.members if "/weights/" not in name):
            archive.read(name)
        count, size = len(archive.manifest.members), path.stat().st_size
        return ModelDescription(
            path=path,
            plan=stored.plan,
            runs=stored.runs,
            data=stored.training,
            table=archive.text(TABLE_TEXT) if TABLE_TEXT in archive else "",
            weights=float_type(archive),
            postprocessing=stored.postprocessing,
            digest=model_digest(stored.plan, digests, stored.rules),
            about=f"archive of format {archive.manifest.format} by dvtplan {archive.manifest.dvtplan}, "
            f"{size / 1e6:.3g} MB; its {plural(count, 'member')} match their digests",
        )  # fmt: skip


def to_text(model: ModelDescription) -> str:
    """Format a description for a terminal."""
    first = next(iter(model.runs.values()))
    rows, columns = model.plan.target_shape
    normal = model.plan.normalization
    clipped = "" if normal.clip_percentiles is None else ", percentiles {:g} and {:g}".format(*normal.clip_percentiles)
    recipe = first.recipe
    lines = [
        ("model", str(model.path)),
        ("", model.about),
        ("network", f"{first.network}, width {recipe.width}, {first.parameters:,} parameters"),
        ("weights", model.weights),
        ("channels", ", ".join(model.plan.channels)),
        ("classes", ", ".join(f"{name} = {value}" for name, value in first.classes.items())),
        *(("folds" if k == next(iter(model.runs)) else "", _fold(run)) for k, run in model.runs.items()),
        *_mask_rules(model),
        ("plan", f"{model.plan.preset}: slices along {model.plan.slice_axis}, as {rows}x{columns}, scaled by "
                 f"{normal.scope}{clipped}; of data set {model.plan.dataset}"),
        ("recipe", f"{recipe.name}: {first.length}, loss {recipe.describe_loss()}, seed {recipe.seed}"),
        ("", describe_input(recipe)),
        ("", describe_optimizer(recipe)),
        *_data_lines(model.data),
        ("digest", model.digest),
        ("versions", ", ".join(f"{name} {version}" for name, version in first.versions.items())),
    ]  # fmt: skip
    table = model.table.rstrip() or "No Table 1: no current scores of these folds."
    body = [f"{head:<12}{text}" for head, text in lines]
    return "\n".join([*body, "", table, "", "Research software, not a medical device."])


def _fold(run: Run) -> str:
    held_out = f"; {plural(len(run.held_out), 'held-out case')}" if run.held_out else ""
    cases = f"{plural(len(run.train), 'training case')}{held_out}; {plural(len(run.test), 'test case')}"
    epochs = f"{run.done} epochs" if run.is_finished else f"{run.done} of {run.length}"
    return f"{run.fold}: {epochs} on {cases}"


def _mask_rules(model: ModelDescription) -> list[tuple[str, str]]:
    """Return a line for each fold with a chosen mask rule, and the rule of all folds together."""
    chosen = model.postprocessing
    lines = [f"{k}: {one.in_words}" for k, one in chosen.items()]
    if chosen and len(model.runs) > 1:
        rule = rule_of_folds([chosen[k].rule if k in chosen else PLAIN for k in model.runs])
        lines.append(f"all folds: {rule.in_words}")
    return [("" if k else "masks", line) for k, line in enumerate(lines)]


def _data_lines(data: TrainingData | None) -> list[tuple[str, str]]:
    if data is None:
        return [("trained on", "unknown")]
    kind = {True: "phantoms", False: "not phantoms", None: "unknown whether phantoms"}[data.phantom]
    size = f"{plural(data.cases, 'case')} of {plural(data.patients, 'patient')}"
    lines = [
        ("trained on", f"{data.dataset}: {size}, {kind}"),
        *([("", PHANTOM_WARNING)] if data.phantom else []),
        ("", "spacing in mm: " + "; ".join(f"{axis} {_span(s)}" for axis, s in data.spacing_mm.items())),
        ("", "voxels: " + "; ".join(f"{axis} {_span(s)}" for axis, s in data.shape.items())),
        ("", "orientations: " + ", ".join(f"{code} {n}" for code, n in data.orientations.items())),
    ]
    for name, label in data.labels.items():
        ml = f", {_span(label.ml)} mL" if label.ml else f"; fewer than {SMALLEST_GROUP}" if label.cases else ""
        lines.append(("", f"{name}: in {plural(label.cases, 'case')}{ml}"))
    return lines


def _span(values: Range) -> str:
    """Return '1.25', or '1.25 to 1.4 (median 1.3)'."""
    if values.minimum == values.maximum:
        return f"{values.median:.4g}"
    return f"{values.minimum:.4g} to {values.maximum:.4g} (median {values.median:.4g})"
