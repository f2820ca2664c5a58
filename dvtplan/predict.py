"""One volume in, a mask on its own grid out: for a fold's test patients and for a stranger's scan alike."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dvtplan import artifacts, checkpoint, dataset, devices, journal, levels, prepared, scans, volumes
from dvtplan.devices import Setup
from dvtplan.errors import DvtError, how_many
from dvtplan.geometry import Grid, Reorientation, to_slice_order
from dvtplan.networks import build, outputs_of
from dvtplan.normalize import limits
from dvtplan.records import Case, Plan, Predicted, Run, Splits, alike
from dvtplan.resize import triangle, weights
from dvtplan.scans import ENDINGS
from dvtplan.slicefile import SliceFile
from dvtplan.workspace import FoldFolder, Workspace, model_plan, predictions_ledger, predictions_ledgers, trained_folds

THRESHOLD = 0.5
"""Probability from which a voxel counts as lesion (one output)."""
BLOCK_PIXELS = 960 * 320
"""Pixels that go through a network at once on a CPU; an accelerator takes eight times as many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Trained folds that predict together: their probabilities are averaged."""

    networks: tuple[nn.Module, ...]
    folds: tuple[int, ...]
    plan: Plan
    classes: dict[str, int]
    """Name -> value in the mask, in the order of the outputs."""
    setup: Setup
    digest: str
    """Of the plan and all weights."""


def load_model(results: Path, *, folds: Sequence[int] | None = None, setup: Setup | None = None) -> Model:
    """Load trained folds.

    Args:
        results: a results folder, as ``results/DATASET/NETWORK``.
        folds: which; none for all that hold a checkpoint.
        setup: how to run; none to choose.

    Raises:
        DvtError: if the folder holds no trained fold, or not the ones asked for, or they differ in
            plan or classes.
    """
    setup = setup or devices.choose()
    there = [k for k in trained_folds(results) if FoldFolder(results / f"fold_{k}").checkpoint.exists()]
    if not there:
        raise DvtError(f"{results}: holds no trained fold. Name a folder like results/DATASET/gn_unet as --model.")
    missing = sorted(set(folds or ()) - set(there))
    if missing:
        raise DvtError(f"{results}: holds the folds {there}, not {missing}. Choose among them.")
    chosen = tuple(folds or there)
    plan = artifacts.load(Plan, model_plan(results), "dvt_train")
    networks: list[nn.Module] = []
    runs: list[Run] = []
    digests = [artifacts.digest(plan)]
    for k in chosen:
        folder = FoldFolder(results / f"fold_{k}")
        run = artifacts.load(Run, folder.run, "dvt_train")
        if run.plan_digest != digests[0]:
            raise DvtError(f"{folder.run}: was trained by another plan than {model_plan(results)}. Train it again.")
        if runs and run.classes != runs[0].classes:
            raise DvtError(f"{folder.run}: predicts other classes than fold {chosen[0]}. Name folds that agree.")
        networks.append(_load_network(run, folder, setup, plan.target_shape))
        runs.append(run)
        digests.append(artifacts.file_digest((folder.checkpoint,)))
    for line in alike(runs):
        journal.note(f"{results}: {line}")
    return Model(
        networks=tuple(networks),
        folds=chosen,
        plan=plan,
        classes=runs[0].classes,
        setup=setup,
        digest=artifacts.digest(digests),
    )


def _load_network(run: Run, folder: FoldFolder, setup: Setup, shape: tuple[int, int]) -> nn.Module:
    outputs = outputs_of(len(run.classes))
    network = build(run.network, run.channels, outputs, width=run.recipe.width, norm_groups=run.recipe.norm_groups)
    checkpoint.load_weights(folder.checkpoint, network)
    network = network.eval().to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    slices = torch.zeros(1, run.channels, *shape, device=setup.device).contiguous(memory_format=setup.memory_format)

    def trial(forward: devices.Forward) -> None:
        with torch.inference_mode(), setup.autocast():
            forward(slices)

    made, failed = devices.compiled(network, setup, trial)
    if failed:
        journal.note(failed)
    return made  # type: ignore[return-value]  # a compiled module is one


# --- many cases -----------------------------------------------------------------------------------


def predict_fold(workspace: Workspace, network: str, index: int, *, setup: Setup | None = None) -> Path:
    """Predict a fold's test patients with that fold alone, from their raw files.

    Returns:
        The folder of the masks.

    Raises:
        DvtError: as ``load_model`` and ``predict_case``.
    """
    splits = artifacts.load(Splits, workspace.splits, "dvt_plan_and_preprocess")
    model = load_model(workspace.results(network), folds=[index], setup=setup)
    cases = {case.id: case for case in dataset.discover(workspace.raw).cases}
    out = workspace.fold(network, index).predictions
    with artifacts.sole_writer(out):
        predict_cases([cases[i] for i in splits.folds[index].test], out, model, title=f"Predict fold {index}")
    return out


def predict_path(
    source: Path,
    out: Path,
    model: Model,
    *,
    overwrite: bool = False,
    save_probabilities: bool = False,
    part: tuple[int, int] | None = None,
    series: Sequence[str] | None = None,
    stations: Sequence[str] | None = None,
    find_knees: Callable[[str], bool] | None = None,
) -> list[Path]:
    """Predict one volume, every volume in a folder, one scan in DICOM, or one of several table stations.

    Args:
        source: a file, or a folder of files; ``ID_0000``, ``ID_0001``, ... are channels of one case.
            Or a folder or ZIP archive of DICOM files, whatever their names.
        out: a folder; for a single file also the name of the mask.
        model: what predicts.
        overwrite: make masks anew that are already there.
        save_probabilities: write a volume of probabilities for each class too.
        part: (i, n) predicts the i-th of n shares of the cases, counted from 1, so that n processes, on
            one machine or on several with one disk, do them all.
        series: of DICOM, which volumes are the channels; none where one volume is there.
        stations: series of DICOM, or files of the folder, that overlap and are to be composed.
        find_knees: of which masks, by their names without ending, the knees are looked for in the first image
            file of the case and written to ``scans.levels_path``; none: of no mask.

    Returns:
        The masks, in order of case; of stations also the mask of each, and what was composed how.

    Raises:
        DvtError: for input that is not there or not readable, or that a mask would replace; masks
            made until then stay.
    """
    if source.is_dir() and out.exists() and out.samefile(source):
        raise DvtError(f"{out}: is the folder of the images, where masks would pass for images. Name another -o.")
    with scans.opened(source, len(model.plan.channels), series=series, stations=stations) as given:
        if given.one and out.name.endswith(ENDINGS):
            watch = _Pace(model)
            watch.add(predict_case(given.cases[0], out, model, save_probabilities=save_probabilities))
            watch.tell()
            cases, masks = given.cases, [out]
        else:
            cases = given.cases if part is None else given.cases[part[0] - 1 :: part[1]]
            masks = predict_cases(
                given.cases,
                out,
                model,
                title="Predict",
                overwrite=overwrite,
                save_probabilities=save_probabilities,
                part=part,
            )
        if find_knees is not None:  # now, for the images of a scan in DICOM go when it is closed
            wanted = [(c, m) for c, m in zip(cases, masks, strict=True) if find_knees(scans.stem(m))]
            for case, mask in journal.progress(wanted, "Find knees"):
                artifacts.save(levels.of_image(case.images[0]), scans.levels_path(mask))
        return masks if given.composed is None else [*masks, *scans.write_stations(masks[0], given)]


def predict_cases(
    cases: Sequence[Case],
    out: Path,
    model: Model,
    *,
    title: str,
    overwrite: bool = False,
    save_probabilities: bool = False,
    part: tuple[int, int] | None = None,
) -> list[Path]:
    """Predict cases, or a part of them, into a folder; what is there already, by this model from these files, is
    kept. Each part keeps a ledger of its own, so that no process overwrites what another has noted."""
    ledger = predictions_ledger(out, part)
    known: dict[str, str] = {}
    written: dict[str, str] = {}
    full: set[str] = set()
    for path in [] if overwrite else predictions_ledgers(out):
        held = artifacts.load(Predicted, path, "dvt_predict --overwrite")
        if held.model_digest == model.digest:
            known |= held.cases
            written |= held.masks
            full |= set(held.with_probabilities)
    if part is not None:
        cases = cases[part[0] - 1 :: part[1]]
    masks, watch = [], _Pace(model)
    for case in journal.progress(cases, title):
        path = out / f"{case.id}.nii.gz"
        masks.append(path)
        source_digest = artifacts.file_digest(case.images) if all(p.is_file() for p in case.images) else ""
        wanted = [path, *(probability_path(path, name) for name in model.classes if save_probabilities)]
        kept = known.get(case.id) == source_digest and all(p.exists() for p in wanted)
        if kept and (case.id in full or not save_probabilities):
            continue
        watch.add(predict_case(case, path, model, save_probabilities=save_probabilities))
        known[case.id] = source_digest
        written[case.id] = artifacts.file_digest((path,))
        full = full | {case.id} if save_probabilities else full - {case.id}
        artifacts.write_text(out / "dataset.json", _labels_json(model))
        ledger_now = Predicted(
            model_digest=model.digest,
            classes=model.classes,
            cases=known,
            masks=written,
            with_probabilities=tuple(sorted(full)),
        )
        artifacts.save(ledger_now, ledger)
    watch.tell()
    return masks


class _Pace:
    """How long scans take, from file to file."""

    def __init__(self, model: Model) -> None:
        self._begin, self._scans, self._slices, self._folds = time.monotonic(), 0, 0, len(model.folds)

    def add(self, slices: int) -> None:
        """A scan was predicted."""
        self._scans += 1
        self._slices += slices

    def tell(self) -> None:
        """Say it, where anything was predicted."""
        if not self._scans:
            return
        seconds = time.monotonic() - self._begin
        by = f" by {self._folds} folds" if self._folds > 1 else ""
        pace = f"{seconds / self._scans:.3g} s a scan, {seconds / self._slices:.2g} s a slice"
        journal.note(
            f"Predicted {how_many(self._scans, 'scan')}, {how_many(self._slices, 'slice')}{by}, in "
            f"{journal.duration(seconds)}: {pace}."
        )


def probability_path(mask: Path, name: str) -> Path:
    """Where the probabilities of a class lie, beside a mask."""
    return mask.with_name(f"{scans.stem(mask)}_probability_{name}.nii.gz")


def _labels_json(model: Model) -> str:
    """What the values in the masks mean, in nnU-Net's words."""
    return json.dumps({"labels": {"background": 0, **model.classes}, "file_ending": ".nii.gz"}, indent=1) + "\n"


# --- one case -------------------------------------------------------------------------------------


def predict_case(case: Case, path: Path, model: Model, *, save_probabilities: bool = False) -> int:
    """Write the mask of one case on the grid of its first image file.

    Slices pass through a nameless file on disk, block by block, so memory does not grow with their
    number. With ``save_probabilities`` a float32 volume per class is written too, named
    ``ID_probability_CLASS.nii.gz``; those are assembled in memory.

    Returns:
        How many slices the case has.

    Raises:
        DvtError: if an image cannot be read or is not finite, channels lie on different grids, or
            the disk is full; nothing half-written stays.
    """
    if path.exists() and any(p.exists() and p.samefile(path) for p in case.images):
        raise DvtError(f"{path}: is the image itself, which the mask would replace. Name another -o.")
    with contextlib.ExitStack() as stack:
        stack.enter_context(devices.memory_told("Use --device cpu, or name fewer --folds."))
        begin = time.monotonic()
        grid, order, channels, bounds = _open_case(case, path.parent, model, stack)
        read = time.monotonic()
        masks = stack.enter_context(SliceFile(path.parent))
        chances = [stack.enter_context(SliceFile(path.parent)) for _ in model.classes] if save_probabilities else []
        for probability_BKHW in _probabilities(channels, bounds, model):
            masks.append(_decide(probability_BKHW, model.classes))
            for chance, volume_BHW in zip(chances, np.moveaxis(probability_BKHW, 1, 0), strict=False):
                chance.append(volume_BHW)
        found = time.monotonic()
        for name, chance in zip(model.classes, chances, strict=False):
            target = probability_path(path, name)
            volumes.write_probabilities(target, np.ascontiguousarray(order.undo(chance.read())), grid)
        volumes.write_mask(path, np.ascontiguousarray(order.undo(masks.read())), grid)
        parts = read - begin, found - read, time.monotonic() - found
        journal.detail("{}: {:.2g} s reading, {:.2g} s network and resizing, {:.2g} s writing".format(case.id, *parts))
        return len(masks)


def _open_case(
    case: Case, scratch: Path, model: Model, stack: contextlib.ExitStack
) -> tuple[Grid, Reorientation, list[SliceFile], list[np.ndarray]]:
    """Put a case's channels on disk slice by slice, and find the limits of their intensities."""
    grid: Grid | None = None
    channels, bounds = [], []
    for image_path in case.images:
        array, here = volumes.read(image_path)
        faults = [*dataset.image_faults(image_path, array)]
        if grid is not None:
            faults += dataset.grid_faults(image_path, here, case.images[0], grid)
        if faults:
            raise DvtError("\n".join(faults))
        grid = grid or here
        sliced = to_slice_order(grid, model.plan.slice_axis).apply(array)
        bounds.append(limits(sliced, model.plan.normalization))
        file = stack.enter_context(SliceFile(scratch))
        file.append(sliced)
        channels.append(file)
        del array, sliced
    if grid is None:
        raise ValueError(f"case {case.id} has no image")
    return grid, to_slice_order(grid, model.plan.slice_axis), channels, bounds


def _probabilities(channels: Sequence[SliceFile], bounds: Sequence[np.ndarray], model: Model) -> Iterator[np.ndarray]:
    """Blocks of probabilities on the native in-plane grid, float32 (B, classes, H, W).

    The background of a softmax is left out; it is what the classes lack to 1.
    """
    shape, device = model.plan.target_shape, model.setup.device
    count, native = len(channels[0]), channels[0].read(0, 1).shape[1:]
    rows, columns = (
        torch.from_numpy(weights(n_in, n_out, triangle).toarray().astype(np.float32)).to(device)
        for n_in, n_out in zip(shape, native, strict=True)
    )
    block = max(1, BLOCK_PIXELS * (1 if device == "cpu" else 8) // (shape[0] * shape[1]))
    for start in journal.progress(range(0, count, block), "slices", leave=False):
        stop = min(start + block, count)
        image = np.stack(
            [
                np.stack(
                    [
                        prepared.prepare_slice(one, limit, shape)
                        for one, limit in zip(file.read(start, stop), bound[start:stop], strict=True)
                    ]
                )
                for file, bound in zip(channels, bounds, strict=True)
            ],
            axis=1,
        )
        with torch.inference_mode():
            chance = _forward(torch.from_numpy(image).to(device), model)
            yield (rows @ chance @ columns.T).cpu().numpy()


def _forward(image_BCHW: torch.Tensor, model: Model) -> torch.Tensor:
    """Probabilities of the foreground classes, averaged over the folds; float32 (B, classes, h, w)."""
    image = image_BCHW.contiguous(memory_format=model.setup.memory_format)
    total = torch.zeros((), device=image.device)
    for network in model.networks:
        with model.setup.autocast():
            logits = network(image).float()
        total = total + (torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)[:, 1:])
    return total / len(model.networks)


def _decide(probability_BKHW: np.ndarray, classes: dict[str, int]) -> np.ndarray:
    """Mask values, uint8 (B, H, W): the likeliest class, or lesion from probability 0.5."""
    values = np.array([0, *classes.values()], np.uint8)
    if len(classes) == 1:
        return values[(probability_BKHW[:, 0] >= THRESHOLD).astype(np.uint8)]
    background = 1.0 - probability_BKHW.sum(axis=1, keepdims=True)
    return values[np.concatenate([background, probability_BKHW], axis=1).argmax(axis=1)]
