"""Load trained folds as one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from dvtplan import __version__
from dvtplan.core import allocator, console
from dvtplan.core.errors import DvtError
from dvtplan.core.verified_archive import DOWNLOAD_AGAIN
from dvtplan.data.paths import model_fold
from dvtplan.data.phantom import is_phantom
from dvtplan.findings.record import ModelIdentity
from dvtplan.models import checkpoint, devices, model_store, speed_trial, weight_files
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.model_store import StoredModel
from dvtplan.models.postprocessing import PLAIN, MaskRule, rule_of_folds
from dvtplan.models.training_run import Run, training_differences
from dvtplan.planning.mirroring import mirrored_labels
from dvtplan.planning.plan import Plan
from dvtplan.planning.training_ranges import TrainingData

BLOCK_PIXELS = 960 * 320
"""Pixels per forward pass on a CPU; an accelerator takes eight times as many."""


def slices_at_once(shape: tuple[int, int], device: str) -> int:
    """Return the number of slices per forward pass for a target shape (rows, columns)."""
    return max(1, BLOCK_PIXELS * (1 if device == "cpu" else 8) // (shape[0] * shape[1]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Trained folds whose probabilities are averaged."""

    networks: tuple[nn.Module, ...]
    folds: tuple[int, ...]
    plan: Plan
    classes: dict[str, int]
    """Name -> value in the mask, in the order of the outputs."""
    setup: DeviceConfig
    digest: str
    """Digest of the plan, the networks and all weights; equal for a results folder and its archive."""
    weights: tuple[str, ...] = ()
    """Digest of the weights of each fold."""
    context: int = 0
    """Neighbouring slices on each side that are further channels of the networks."""
    tile: tuple[int, int] | None = None
    """Rows and columns of the tiles that the networks predict; None: whole slices."""
    mirror: tuple[int, ...] | None = None
    """For each output, counted from 0, the output of a mirrored slice or tile that it is averaged with. None: nothing
    is predicted mirrored."""
    rule: MaskRule = PLAIN
    """How its probabilities become a mask."""
    unchosen: tuple[int, ...] = ()
    """Folds with held-out patients on which no mask rule was chosen yet."""
    path: Path | None = None
    """Results folder or archive."""
    network: str = ""
    """Name of the architecture."""
    training: TrainingData | None = None
    """Ranges of the training scans of these folds; None if the model has no fingerprint."""

    @property
    def is_phantom(self) -> bool:
        """Whether it was trained on phantoms; if that is not recorded, the data set's name decides."""
        recorded = None if self.training is None else self.training.phantom
        return bool(is_phantom(self.plan.dataset, recorded=recorded))

    @property
    def identity(self) -> ModelIdentity:
        """What findings record about the model."""
        return ModelIdentity(
            network=self.network,
            folds=self.folds,
            digest=self.digest,
            dataset=self.plan.dataset,
            phantom=self.is_phantom,
            training_scans=None if self.training is None else self.training.cases,
            slice_axis=self.plan.slice_axis,
            threshold=self.rule.threshold,
            smallest_component_mm3=self.rule.smallest_component_mm3,
            versions={"dvtplan": __version__, "torch": str(torch.__version__)},
        )


def load_model(
    path: Path | str,
    *,
    folds: Sequence[int] | None = None,
    setup: DeviceConfig | None = None,
    mirror: bool | None = None,
) -> Model:
    """Load trained folds.

    Args:
        path: a results folder, ``results/DATASET/NETWORK``, or an archive that ``export_model`` wrote.
        folds: their numbers; None for all trained folds.
        mirror: whether to predict also mirrored slices (``Recipe.mirror``); None: as the recipe says.
        setup: how to run; None chooses. Among its alternatives a trial on this machine decides. On a CPU the whole
            process then keeps memory that it has freed (``core.allocator``).

    Raises:
        DvtError: if folds are missing or differ in plan or classes, if an archive is damaged or not a model, or if
            ``mirror`` is set but the slices of the plan may not be mirrored.
    """
    path, setup = Path(path), setup or devices.choose()
    with model_store.open_model(path, folds) as stored:
        loaded = [_load_network(stored, k) for k in stored.runs]
    runs, weights = _with_mirror(stored, mirror), tuple(digest for _, digest in loaded)
    outputs = _mirrored_outputs(stored.plan, runs[0])
    if stored.postprocessing and outputs != _mirrored_outputs(stored.plan, next(iter(stored.runs.values()))):
        how = "with" if outputs is None else "without"
        console.info(f"{path}: threshold and smallest component were chosen {how} mirrored slices, and are kept.")
    tile = runs[0].recipe.patch_shape
    shape = tile or stored.plan.target_shape
    # A slice decides, also where tiles are predicted: a pass takes many of them.
    setup = speed_trial.fastest_for_prediction(loaded[0][0], runs[0].channels_in, stored.plan.target_shape, setup)
    if setup.device == "cpu":
        allocator.keep_freed_memory()
    networks = [_place(network, run.channels_in, shape, setup) for run, (network, _) in zip(runs, loaded, strict=True)]
    if stored.warning:
        console.warn(stored.warning)
    for line in training_differences(runs):
        console.info(f"{path}: {line}")
    return Model(
        networks=tuple(networks),
        folds=tuple(stored.runs),
        plan=stored.plan,
        classes=runs[0].classes,
        setup=setup,
        digest=model_store.model_digest(stored.plan, list(zip(runs, weights, strict=True)), stored.rules),
        weights=weights,
        rule=rule_of_folds(stored.rules),
        unchosen=tuple(k for k, run in stored.runs.items() if run.held_out and k not in stored.postprocessing),
        context=runs[0].recipe.context,
        mirror=outputs,
        tile=tile,
        path=path,
        network=runs[0].network,
        training=stored.training,
    )


def _with_mirror(stored: StoredModel, mirror: bool | None) -> list[Run]:
    """Return the runs of a model, with this choice of mirrored slices."""
    runs = list(stored.runs.values())
    if mirror and mirrored_labels(stored.plan) is None:
        raise DvtError(
            f"`mirror=True`: the slices of {stored.path} may not be mirrored, since that would be no image of a "
            "patient. Omit it."
        )
    return runs if mirror is None else [replace(run, recipe=replace(run.recipe, mirror=mirror)) for run in runs]


def _mirrored_outputs(plan: Plan, run: Run) -> tuple[int, ...] | None:
    """Return for each output the output of the mirrored slice that it is averaged with; None: no mirrored slices."""
    exchanged = mirrored_labels(plan)
    if not run.recipe.mirror or exchanged is None:
        return None
    names = list(run.classes)
    return tuple(names.index(exchanged.get(name, name)) for name in names)


def _load_network(stored: StoredModel, fold: int) -> tuple[nn.Module, str]:
    """Return a fold's network in evaluation mode on the CPU, and the digest of its weights."""
    run = stored.runs[fold]
    if stored.archive is None:
        network = checkpoint.build_network(run)
        checkpoint.load_weights(model_fold(stored.path, fold).checkpoint, network)
    else:
        needed = checkpoint.expected_weights(run, f"{stored.path}: fold_{fold}/run.json")
        weights = weight_files.archived_weights(stored.archive, fold, needed)
        network = checkpoint.build_network(run)
        checkpoint.set_weights(network, weights)
    digest = weight_files.weights_digest(checkpoint.get_weights(network))
    if fold in stored.postprocessing and stored.archive is None:
        stored.postprocessing[fold].require_weights(digest, model_fold(stored.path, fold).postprocessing)
    elif fold in stored.postprocessing:
        file = f"{stored.path}: {model_store.postprocessing_name(fold)}"
        stored.postprocessing[fold].require_weights(digest, file, DOWNLOAD_AGAIN)
    return network.eval(), digest


def _place(network: nn.Module, channels: int, shape: tuple[int, int], setup: DeviceConfig) -> nn.Module:
    """Return a network as the setup runs it, compiled if it says so and that works."""
    network = setup.place(network)

    def trial(forward: devices.Forward) -> None:
        slices = torch.zeros(slices_at_once(shape, setup.device), channels, *shape, device=setup.device)
        with torch.inference_mode(), setup.autocast():
            forward(setup.images(slices))

    compiled, problem = devices.try_compile(network, setup, trial)
    if problem:
        console.info(problem)
    return compiled  # type: ignore[return-value]  # a compiled module is one
