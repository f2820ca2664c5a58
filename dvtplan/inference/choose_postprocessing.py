"""Choose a fold's threshold and smallest component on its held-out patients, which its network was not trained on.

For each patient with thrombus the score is the DSC of the whole lesion or, for a network with several classes, the mean
of this DSC and of the mean DSC of the classes that the patient has. Voxels of a patient's cases are pooled. The rule
with the highest mean over patients is chosen; of equal ones the plain rule, or else the nearest to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from dvtplan.core import console, json_records
from dvtplan.core.errors import DvtError
from dvtplan.core.text import plural
from dvtplan.data import dataset
from dvtplan.data.dataset import Case, Dataset
from dvtplan.data.paths import Workspace, as_workspace
from dvtplan.data.planned_splits import find_leak
from dvtplan.imaging import array_ops, volume_io
from dvtplan.inference import network_pass
from dvtplan.inference.model import Model, load_model
from dvtplan.inference.postprocessing import decide, smallest_voxels
from dvtplan.models import devices, model_store
from dvtplan.models.devices import DeviceConfig
from dvtplan.models.postprocessing import PLAIN, MaskRule, Postprocessing, read_postprocessing
from dvtplan.models.training_run import Run
from dvtplan.planning.planned_reading import read_as_planned

THRESHOLDS: tuple[float | None, ...] = (None, 0.5, 0.45, 0.55, 0.4, 0.6, 0.35, 0.65, 0.3, 0.7, 0.25, 0.75, 0.2, 0.8)
"""Thresholds to try, the plain rule first."""
RISING = sorted(threshold for threshold in THRESHOLDS if threshold is not None)
SIZES = (0, 3, 6, 12, 25, 50)
"""Smallest components to try, in voxels of median size."""
LARGEST_MM3 = 500.0
"""Smallest components above this are not tried: so large a component is a lesion, also where voxels are large."""
EQUAL = 1e-9
"""Scores that differ by less are equal."""


@dataclass(slots=True)
class PatientCounts:
    """Voxels of one patient by true and predicted class, for each rule."""

    tables: dict[MaskRule, np.ndarray] = field(default_factory=dict)
    """Rule -> (classes + 1, classes + 1): truth, prediction; 0 is background."""

    def add(self, rule: MaskRule, table: np.ndarray) -> None:
        """Add the voxels of one case."""
        self.tables[rule] = self.tables.get(rule, 0) + table

    def score(self, rule: MaskRule) -> float | None:
        """Return the score of a rule; None if the patient has no thrombus."""
        table = self.tables[rule]
        true, predicted = table[1:].sum(), table[:, 1:].sum()
        if not true:
            return None
        whole = 2 * table[1:, 1:].sum() / (true + predicted)
        own = np.diag(table)[1:], table.sum(axis=1)[1:], table.sum(axis=0)[1:]
        classes = [2 * hit / (truth + found) for hit, truth, found in zip(*own, strict=True) if truth]
        return float(whole if len(table) == 2 else (whole + np.mean(classes)) / 2)


@read_as_planned
def choose_postprocessing(
    workspace: Workspace | Path | str, network: str, index: int, *, setup: DeviceConfig | None = None
) -> Postprocessing | None:
    """Choose and write the mask rule of a trained fold (``fold_K/postprocessing.json``), unless it is there.

    ``predict_fold`` does the same before it predicts.

    Args:
        workspace: of the data set, or the folder that holds ``datasets_raw`` with this data set only.
        network: name of the architecture.
        index: of the fold.
        setup: how to run; None chooses.

    Returns:
        The choice; None if the training held out no patient.

    Raises:
        DvtError: as ``predict_fold``.
    """
    workspace = as_workspace(workspace)
    folder = workspace.fold(network, index)
    run = json_records.load(Run, folder.run, "`train_fold`")
    if run.held_out:
        model = replace(load_model(workspace.results(network), folds=[index], setup=setup), training=None)
        with_postprocessing(workspace, run, model, dataset.discover(workspace.raw))
    return read_postprocessing(folder.postprocessing)


def with_postprocessing(workspace: Workspace, run: Run, model: Model, raw: Dataset) -> Model:
    """Return the model of a fold with its mask rule, which is chosen and written first if it is not there.

    Args:
        workspace: of the data set.
        run: of the fold; holds out at least one case.
        model: of this fold alone.
        raw: the data set.

    Raises:
        DvtError: if a held-out case is missing, or of a patient that was trained on.
    """
    folder = workspace.fold(run.network, run.fold)
    if not model.unchosen:
        return model
    cases = {case.id: case for case in raw.cases}
    if missing := [case for case in run.held_out if case not in cases]:
        raise DvtError(f"{folder.run}: holds out {missing[0]}, which {raw.folder} does not contain. Restore this case.")
    if leak := find_leak(run.train, run.held_out, raw.patient_of):
        raise DvtError(
            f"{folder.run}: the network was trained on {leak.trained}, and holds out {leak.tested} of the same "
            f"patient, {leak.patient}. Restore cases.csv, or train the fold again (`train_fold` with `overwrite=True`)."
        )
    held_out = [cases[case] for case in run.held_out]
    console.info(f"Choose the threshold and the smallest component on {plural(len(held_out), 'held-out case')}.")
    (weights,) = model.weights
    chosen = choose(model, held_out, folder.path, weights)
    json_records.save(chosen, folder.postprocessing)
    digest = model_store.model_digest(model.plan, [(run, weights)], [chosen.rule])
    console.info(f"Fold {run.fold}: {chosen.in_words}.", folder.log)
    return replace(model, rule=chosen.rule, digest=digest, unchosen=())


def choose(model: Model, cases: Sequence[Case], scratch: Path, weights: str) -> Postprocessing:
    """Choose a mask rule by the predictions of some cases.

    Args:
        model: whose rule is chosen.
        cases: with their truth; at least one.
        scratch: folder for unnamed files.
        weights: digest to record.
    """
    smallest_mm3 = _sizes_mm3(cases)
    counts: dict[str, PatientCounts] = {}
    with devices.explain_out_of_memory("Use `device='cpu'`."):
        for case in console.progress(cases, "cases"):
            patient = counts.setdefault(case.patient, PatientCounts())
            for rule, table in _tables(model, case, smallest_mm3, scratch):
                patient.add(rule, table)
    return best(list(counts.values()), weights)


def best(patients: Sequence[PatientCounts], weights: str) -> Postprocessing:
    """Return the rule with the highest mean score over the patients with thrombus.

    Args:
        patients: at least one; all with the same rules, of which the plain one is first.
        weights: digest to record.
    """
    scored = [patient for patient in patients if patient.score(PLAIN) is not None]
    means = {rule: float(np.mean([patient.score(rule) for patient in scored])) for rule in patients[0].tables if scored}
    chosen = PLAIN
    for rule, mean in means.items():
        if mean > means[chosen] + EQUAL:
            chosen = rule
    return Postprocessing(
        threshold=chosen.threshold,
        smallest_component_mm3=chosen.smallest_component_mm3,
        patients=len(scored),
        plain_score=means.get(PLAIN),
        score=means.get(chosen),
        weights=weights,
    )


def _sizes_mm3(cases: Sequence[Case]) -> tuple[float, ...]:
    """Return the smallest components to try, in mm3 with three digits."""
    voxel_mm3 = float(np.median([1000 * volume_io.read_grid(case.images[0]).voxel_ml for case in cases]))
    return tuple(float(f"{size * voxel_mm3:.3g}") for size in SIZES if size * voxel_mm3 <= LARGEST_MM3)


def _tables(
    model: Model, case: Case, smallest_mm3: Sequence[float], scratch: Path
) -> Iterator[tuple[MaskRule, np.ndarray]]:
    """Yield each rule with the voxels of a case by true and predicted class."""
    with contextlib.ExitStack() as stack:
        opened = network_pass.open_case(case, scratch, model, stack)
        masks = MasksByThreshold.predict(opened, model)
    truth_SHW = _read_truth(case, opened, model)
    smallest = [smallest_voxels(size, opened.slice_grid) for size in smallest_mm3]
    box = array_ops.bounding_box(masks.level_SHW) or (slice(0, 1),) * 3
    missed = np.bincount(truth_SHW.reshape(-1), minlength=len(model.classes) + 1)
    missed -= np.bincount(truth_SHW[box].reshape(-1), minlength=len(missed))
    missed[0] = 0
    for threshold in THRESHOLDS:
        tables = count_by_size(truth_SHW[box], masks.at(threshold, box), len(model.classes), smallest)
        for size, table in zip(smallest_mm3, tables, strict=True):
            table[:, 0] += missed  # the truth outside of the box
            yield MaskRule(threshold=threshold, smallest_component_mm3=size), table


@dataclass(frozen=True, slots=True)
class MasksByThreshold:
    """The masks of a case by all thresholds, in three bytes a voxel, uint8 (S, H, W) each; also while they are made."""

    level_SHW: np.ndarray
    """How many thresholds the voxel reaches."""
    class_SHW: np.ndarray
    """Its most probable class, from 1; 0 where it reaches no threshold."""
    plain_SHW: np.ndarray
    """Its class by the plain rule."""

    @classmethod
    def predict(cls, opened: network_pass.OpenedCase, model: Model) -> MasksByThreshold:
        """Run a model over a case."""
        level_SHW, class_SHW, plain_SHW = (np.zeros(opened.slice_grid.shape, np.uint8) for _ in range(3))
        done = 0
        for probability_BKHW, _ in network_pass.probabilities(opened, model):
            total_BHW = probability_BKHW.sum(axis=1)
            block = slice(done, done + len(total_BHW))
            done = block.stop
            found = total_BHW >= RISING[0]
            voxels_NK11 = np.moveaxis(probability_BKHW, 1, -1)[found][:, :, None, None]
            level_SHW[block][found] = np.searchsorted(np.array(RISING, np.float32), total_BHW[found], side="right")
            class_SHW[block][found] = decide(voxels_NK11, RISING[0]).reshape(-1)
            plain_SHW[block][found] = decide(voxels_NK11, None).reshape(-1)
        return cls(level_SHW, class_SHW, plain_SHW)

    def at(self, threshold: float | None, box: tuple[slice, ...]) -> np.ndarray:
        """Return the part of the mask by one of ``THRESHOLDS`` in a box: numbers of classes."""
        if threshold is None:
            return self.plain_SHW[box]
        return self.class_SHW[box] * (self.level_SHW[box] > RISING.index(threshold))


def _read_truth(case: Case, opened: network_pass.OpenedCase, model: Model) -> np.ndarray:
    """Return the true mask as numbers of classes, from 1, uint8 (S, H, W)."""
    if case.label is None:
        raise DvtError(f"{case.id}: has no label, but is held out to choose the threshold. Restore its label.")
    array, grid = volume_io.read(case.label)
    if grid.shape != opened.grid.shape:
        raise DvtError(f"{case.label}: has another shape than {case.images[0]}. Restore the label.")
    numbers = np.zeros(256, np.uint8)
    for number, name in enumerate(model.classes, start=1):
        numbers[model.plan.labels[name] if len(model.classes) > 1 else slice(1, None)] = number
    return numbers[opened.order.apply(array).astype(np.uint8)]


def count_by_size(
    truth_SHW: np.ndarray, mask_SHW: np.ndarray, classes: int, smallest: Sequence[int]
) -> list[np.ndarray]:
    """Count the voxels by true and predicted class, without components that are too small.

    Args:
        truth_SHW: numbers of classes; 0 is background.
        mask_SHW: the prediction.
        classes: their number.
        smallest: numbers of voxels of the smallest component that is kept.

    Returns:
        For each of these a table (classes + 1, classes + 1): truth, prediction. The pair of backgrounds is not
        counted.
    """
    n = classes + 1
    true = np.bincount(truth_SHW[truth_SHW > 0], minlength=n)
    hits = np.zeros((1, n, n), np.int64)
    box = array_ops.bounding_box(mask_SHW)
    if box is not None:
        components, count = ndimage.label(mask_SHW[box] != 0, array_ops.CONNECTIVITY_26)
        inside = components > 0
        pairs = truth_SHW[box][inside].astype(np.int64) * n + mask_SHW[box][inside]
        codes = components[inside].astype(np.int64) * n * n + pairs
        hits = np.bincount(codes, minlength=(count + 1) * n * n).reshape(count + 1, n, n)
    voxels = hits.sum(axis=(1, 2))
    tables = []
    for size in smallest:
        table = hits[voxels >= size].sum(axis=0)
        table[:, 0] = true - table[:, 1:].sum(axis=1)
        table[0, 0] = 0
        tables.append(table)
    return tables
