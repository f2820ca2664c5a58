"""One volume in, a mask on its own grid out: for a fold's test patients and for a stranger's scan alike."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dvtplan import (
    artifacts,
    checkpoint,
    dataset,
    devices,
    journal,
    models,
    prepared,
    provenance,
    scans,
    segments,
    volumes,
)
from dvtplan.devices import Setup
from dvtplan.errors import DvtError, how_many
from dvtplan.geometry import Grid, Reorientation, to_slice_order
from dvtplan.models import Stored
from dvtplan.normalize import limits
from dvtplan.provenance import Diary
from dvtplan.records import Case, Plan, Predicted, Prediction, PredictionOfCase, PredictionStart, Splits, alike
from dvtplan.resize import triangle, weights
from dvtplan.scans import ENDINGS, Given
from dvtplan.slicefile import SliceFile
from dvtplan.workspace import (
    FoldFolder,
    Workspace,
    prediction_record,
    prediction_records,
    predictions_ledger,
    predictions_ledgers,
)

THRESHOLD = 0.5
"""Probability from which a voxel counts as lesion (one output)."""
DICOM_SEG, LABELS = "dicom-seg", "itksnap"
ALSO = {DICOM_SEG: "a DICOM segmentation object", LABELS: "names of the values for ITK-SNAP"}
"""Further forms of a mask -> what they are."""
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
    """Of the plan, the networks and all weights; a results folder and its archive have one digest."""
    path: Path | None = None
    """Where it lies."""
    network: str = ""
    """What kind its networks are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a case took, from file to file."""

    slices: int
    reading_s: float
    network_s: float
    """With resizing there and back."""
    writing_s: float


def load_model(path: Path, *, folds: Sequence[int] | None = None, setup: Setup | None = None) -> Model:
    """Load trained folds.

    Args:
        path: a results folder, as ``results/DATASET/NETWORK``, or an archive that ``dvt_model export`` wrote of one.
        folds: which; none for all that are trained.
        setup: how to run; none to choose.

    Raises:
        DvtError: if the folder holds no trained fold, or not the ones asked for, or they differ in
            plan or classes; if an archive is damaged or not ours.
    """
    setup = setup or devices.choose()
    with models.opened(path, folds) as stored:
        loaded = [_load_network(stored, k, setup) for k in stored.runs]
    runs = list(stored.runs.values())
    for line in alike(runs):
        journal.note(f"{path}: {line}")
    return Model(
        networks=tuple(network for network, _ in loaded),
        folds=tuple(stored.runs),
        plan=stored.plan,
        classes=runs[0].classes,
        setup=setup,
        digest=models.model_digest(stored.plan, list(zip(runs, (weights for _, weights in loaded), strict=True))),
        path=path,
        network=runs[0].network,
    )


def _load_network(stored: Stored, fold: int, setup: Setup) -> tuple[nn.Module, str]:
    """A fold's network, ready to run, and the digest of its weights."""
    run = stored.runs[fold]
    if stored.archive is None:
        network = checkpoint.blank(run)
        checkpoint.load_weights(FoldFolder(stored.path / f"fold_{fold}").checkpoint, network)
    else:
        needed = checkpoint.shapes(run, f"{stored.path}: fold_{fold}/run.json")
        found = models.archived_weights(stored.archive, fold, needed)
        network = checkpoint.blank(run)
        checkpoint.fill(network, found)
    digest = models.weights_digest(checkpoint.arrays(network))
    network = network.eval().to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]

    def trial(forward: devices.Forward) -> None:
        slices = torch.zeros(1, run.channels, *stored.plan.target_shape, device=setup.device)
        with torch.inference_mode(), setup.autocast():
            forward(slices.contiguous(memory_format=setup.memory_format))

    made, failed = devices.compiled(network, setup, trial)
    if failed:
        journal.note(failed)
    return made, digest  # type: ignore[return-value]  # a compiled module is one


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
        tested = [cases[i] for i in splits.folds[index].test]
        asked = {"dataset": str(workspace.raw), "fold": str(index)}
        predict_cases(tested, out, model, title=f"Predict fold {index}", options=asked)
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
    also: Sequence[str] = (),
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
        also: further forms of every mask, of ``ALSO``. Of stations, each has its own segmentation object.

    Returns:
        The masks, in order of case; of stations also the mask of each, and what was composed how; then what
        was wanted besides.

    Raises:
        DvtError: for input that is not there or not readable, or that a mask would replace; masks
            made until then stay.
    """
    if source.is_dir() and out.exists() and out.samefile(source):
        raise DvtError(f"{out}: is the folder of the images, where masks would pass for images. Name another -o.")
    if DICOM_SEG in also:
        segments.require()
    asked = {
        "input": source,
        "output": out,
        "overwrite": overwrite,
        "save_probabilities": save_probabilities,
        "part": part and f"{part[0]}/{part[1]}",
        "series": series and " ".join(series),
        "stations": stations and " ".join(stations),
        "also": " ".join(also),
    }
    options = {name: str(value) for name, value in asked.items() if value}
    with scans.opened(source, len(model.plan.channels), series=series, stations=stations) as given:
        if DICOM_SEG in also and given.found is None:
            raise DvtError(f"{source}: is no DICOM, and {DICOM_SEG} draws upon a DICOM series. Leave it away.")
        if given.one and out.name.endswith(ENDINGS):
            _predict_one(given, out, model, save_probabilities=save_probabilities, options=options)
            masks = [out]
        else:
            masks = predict_cases(
                given.cases,
                out,
                model,
                title="Predict",
                overwrite=overwrite,
                save_probabilities=save_probabilities,
                part=part,
                options=options,
                spoken=given.spoken,
            )
        parts = [] if given.composed is None or not masks else scans.write_stations(masks[0], given)
        return [*masks, *parts, *_other_forms(masks, parts, given, model, also)]


def _other_forms(
    masks: Sequence[Path], parts: Sequence[Path], given: Given, model: Model, also: Sequence[str]
) -> list[Path]:
    """Write masks in further forms; an object that is younger than its mask is that mask's, and stays what it is."""
    written = []
    on_series = parts[: len(given.shown)] if given.composed is not None else masks
    for path in [*masks, *parts[: len(given.stations)]] if LABELS in also else []:
        segments.write_descriptions(beside := path.with_name(f"{scans.stem(path)}_labels.txt"), model.classes)
        written.append(beside)
    for path, shown in zip(on_series, given.shown, strict=False) if DICOM_SEG in also else []:
        beside = path.with_name(f"{scans.stem(path)}_seg.dcm")
        written.append(beside)
        if beside.exists() and beside.stat().st_mtime_ns >= path.stat().st_mtime_ns:
            continue
        if given.found is None:
            raise ValueError("a segmentation object without a series")
        mask, _ = volumes.read(path)
        segments.write(beside, mask, given.found, shown, model.classes, model=model.digest[:16])
    return written


def _predict_one(
    given: scans.Given, mask: Path, model: Model, *, save_probabilities: bool, options: Mapping[str, str]
) -> None:
    """The only case into a mask of a given name; what is there is replaced."""
    case, watch = given.cases[0], _Pace(model)
    diary = Diary(mask.with_name(f"{scans.stem(mask)}_run.json"), _opening(model, options), overwrite=True)
    digests = _digests(case)
    spent = predict_case(case, mask, model, save_probabilities=save_probabilities)
    watch.add(spent.slices)
    diary.add(case.id, _made(case, digests, mask, spent, given.spoken))
    watch.tell()


def predict_cases(
    cases: Sequence[Case],
    out: Path,
    model: Model,
    *,
    title: str,
    overwrite: bool = False,
    save_probabilities: bool = False,
    part: tuple[int, int] | None = None,
    options: Mapping[str, str] | None = None,
    spoken: Mapping[Path, str] | None = None,
) -> list[Path]:
    """Predict cases, or a part of them, into a folder; what is there already, by this model from these files, is
    kept. Each part keeps a ledger and a record of its own, so that no process overwrites what another has noted.

    Args:
        cases: what to predict.
        out: the folder.
        model: what predicts.
        title: of the progress bar.
        overwrite: as of ``predict_path``.
        save_probabilities: likewise.
        part: likewise.
        options: what was asked for, for the record.
        spoken: for the record, what to call image files that are but drafts.
    """
    ledger = predictions_ledger(out, part)
    diary = Diary(prediction_record(out, part), _opening(model, options or {}), overwrite=overwrite)
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
    if not overwrite:
        diary.keep(prediction_records(out), written, {case.id for case in cases} if part else written)
    masks, watch = [], _Pace(model)
    for case in journal.progress(cases, title):
        path = out / f"{case.id}.nii.gz"
        masks.append(path)
        digests = _digests(case)
        source_digest = artifacts.digest_of_digests(digests) if digests else ""
        wanted = [path, *(probability_path(path, name) for name in model.classes if save_probabilities)]
        kept = known.get(case.id) == source_digest and all(p.exists() for p in wanted)
        if kept and (case.id in full or not save_probabilities):
            continue
        spent = predict_case(case, path, model, save_probabilities=save_probabilities)
        watch.add(spent.slices)
        made = _made(case, digests, path, spent, spoken or {})
        known[case.id] = source_digest
        written[case.id] = artifacts.digest_of_digests([made.mask_digest])
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
        diary.add(case.id, made)
    watch.tell()
    return masks


def _digests(case: Case) -> list[str]:
    """SHA-256 of each image file; none where one is not there, which reading will say."""
    return [artifacts.sha256(p) for p in case.images] if all(p.is_file() for p in case.images) else []


def _opening(model: Model, options: Mapping[str, str]) -> Prediction:
    """The record of a prediction that begins now."""
    start = PredictionStart(
        started=provenance.now(),
        device=model.setup.device,
        precision=model.setup.precision,
        setup=model.setup.remark,
        options=dict(options),
        versions=provenance.versions(),
    )
    return Prediction(
        model="" if model.path is None else str(model.path.absolute()),
        model_digest=model.digest,
        network=model.network,
        folds=model.folds,
        classes=model.classes,
        starts=(start,),
        cases={},
    )


def _made(case: Case, digests: Sequence[str], mask: Path, spent: Spent, spoken: Mapping[Path, str]) -> PredictionOfCase:
    """A case for the record, once its mask is written."""
    names = [spoken.get(path, path.name) for path in case.images]
    return PredictionOfCase(
        images=dict(zip(names, digests, strict=True)),
        mask=mask.name,
        mask_digest=artifacts.sha256(mask),
        slices=spent.slices,
        reading_s=round(spent.reading_s, 3),
        network_s=round(spent.network_s, 3),
        writing_s=round(spent.writing_s, 3),
        finished=provenance.now(),
        start=0,
    )


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


def predict_case(case: Case, path: Path, model: Model, *, save_probabilities: bool = False) -> Spent:
    """Write the mask of one case on the grid of its first image file.

    Slices pass through a nameless file on disk, block by block, so memory does not grow with their
    number. With ``save_probabilities`` a float32 volume per class is written too, named
    ``ID_probability_CLASS.nii.gz``; those are assembled in memory.

    Returns:
        How many slices the case has, and where the time went.

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
            volumes.write_probabilities(target, _in_file_order(chance, order, grid, np.float32), grid)
        volumes.write_mask(path, _in_file_order(masks, order, grid, np.uint8), grid, names=model.classes)
        spent = Spent(
            slices=len(masks),
            reading_s=read - begin,
            network_s=found - read,
            writing_s=time.monotonic() - found,
        )
        journal.detail(
            f"{case.id}: {spent.reading_s:.2g} s reading, {spent.network_s:.2g} s network and resizing, "
            f"{spent.writing_s:.2g} s writing"
        )
        return spent


def _in_file_order(slices: SliceFile, order: Reorientation, grid: Grid, dtype: type) -> np.ndarray:
    """All slices as the array of their file, which is the only one made."""
    whole: np.ndarray = np.empty(grid.shape, dtype)
    slices.read_into(order.apply(whole))
    return whole


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
