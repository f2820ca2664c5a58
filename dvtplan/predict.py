"""One volume in, a mask on its own grid out: for a fold's test patients and for a stranger's scan alike."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dvtplan import (
    __version__,
    agreement,
    artifacts,
    burden,
    checkpoint,
    dataset,
    devices,
    familiarity,
    findings,
    fingerprint,
    journal,
    prepared,
    scans,
    summary,
    volumes,
)
from dvtplan.agreement import Tally
from dvtplan.devices import Setup
from dvtplan.errors import DvtError, how_many
from dvtplan.familiarity import Oddity
from dvtplan.findings import Findings, Maker
from dvtplan.geometry import Grid, Reorientation, to_slice_order
from dvtplan.networks import build, outputs_of
from dvtplan.normalize import limits
from dvtplan.records import (
    Case,
    ChannelFingerprint,
    Fingerprint,
    Levels,
    Plan,
    Predicted,
    Run,
    Splits,
    alike,
    is_synthetic,
)
from dvtplan.resize import triangle, weights
from dvtplan.scans import ENDINGS, Given
from dvtplan.slicefile import SliceFile
from dvtplan.workspace import (
    FoldFolder,
    Workspace,
    model_description,
    model_fingerprint,
    model_plan,
    predictions_ledger,
    predictions_ledgers,
    trained_folds,
)

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
    network: str = ""
    training: Fingerprint | None = None
    """Of the scans that these folds were trained on; none for models from before it was kept beside the plan."""
    description: str = ""
    """What the data set says of itself."""

    @property
    def is_phantom(self) -> bool:
        """Whether it was trained on computed images; models from before that was kept are judged by the name."""
        return is_synthetic(self.description) or "phantom" in self.plan.dataset.lower()

    @property
    def maker(self) -> Maker:
        """What findings tell of it."""
        return Maker(
            network=self.network,
            folds=self.folds,
            digest=self.digest,
            dataset=self.plan.dataset,
            phantom=self.is_phantom,
            training_scans=None if self.training is None else len(self.training.cases),
            slice_axis=self.plan.slice_axis,
            versions={"dvtplan": __version__, "torch": str(torch.__version__)},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be told of each scan beside its mask."""

    page: bool = False
    """The summary as HTML, PDF and PNG too."""
    levels: Mapping[str, Levels | None] = field(default_factory=dict)
    """By case; cases that are missing have none."""
    level_source: str = "given"
    """Where they come from."""


class Unanalysed(DvtError):
    """Scans of a folder that could not be analysed; the others were."""

    def __init__(self, masks: Sequence[Path], failed: Mapping[str, str], scans_in_all: int) -> None:
        self.masks, self.failed = tuple(masks), dict(failed)
        """The masks that were made, in order of case; case -> why it could not be analysed, in one line."""
        told = f"{len(failed)} of {how_many(scans_in_all, 'scan')} could not be analysed; nothing is known about them:"
        super().__init__("\n".join([told, *self.failed.values()]))


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
        network=runs[0].network,
        training=_training(results, plan, runs),
        description=_description(results),
    )


def _training(results: Path, plan: Plan, runs: Sequence[Run]) -> Fingerprint | None:
    """The fingerprint of the scans that some folds were trained on, where it lies beside their plan."""
    path = model_fingerprint(results)
    if not path.exists():
        return None
    whole = artifacts.load(Fingerprint, path, "dvt_train")
    cases = tuple(case for case in whole.cases if any(case.id in run.train for run in runs))
    if artifacts.digest(whole) != plan.fingerprint_digest or not cases:
        journal.warn(f"{path}: is not of the data that {model_plan(results)} was derived from. Scans are not compared.")
        return None
    return replace(whole, cases=cases)


def _description(results: Path) -> str:
    """What the data set of a model says of itself; nothing where that was not kept or cannot be read."""
    try:
        body = json.loads(model_description(results).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return str(body.get("description", "")) if isinstance(body, dict) else ""


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
    # These patients are of the data set of the training; nobody wants to hear how they differ.
    model = replace(load_model(workspace.results(network), folds=[index], setup=setup), training=None)
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
    asked: Asked | None = None,
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
        asked: what to tell of each scan beside its mask; none for nothing.

    Returns:
        The masks, in order of case; of stations also the mask of each, and what was composed how.

    Raises:
        Unanalysed: if some scans of a folder could not be analysed; each left its ``ID_findings.json``
            with the reason, and all others have their masks.
        DvtError: for input that is not there or not readable, or that a mask would replace; masks
            made until then stay.
    """
    if source.is_dir() and out.exists() and out.samefile(source):
        raise DvtError(f"{out}: is the folder of the images, where masks would pass for images. Name another -o.")
    if model.training is None:
        journal.note("The model lacks the fingerprint of its training scans: whether a scan is like them is not known.")
    with scans.opened(source, len(model.plan.channels), series=series, stations=stations) as given:
        if given.one and out.name.endswith(ENDINGS):
            watch = _Pace(model)
            try:
                slices = predict_case(
                    given.cases[0], out, model, save_probabilities=save_probabilities, asked=asked, given=given
                )
            except DvtError as error:
                if asked is not None:
                    _tell_failure(given.cases[0], out, model, error, given)
                raise
            watch.add(slices)
            watch.tell()
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
                asked=asked,
                given=given,
            )
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
    asked: Asked | None = None,
    given: Given | None = None,
) -> list[Path]:
    """Predict cases, or a part of them, into a folder; what is there already, by this model from these files, is
    kept. Each part keeps a ledger of its own, so that no process overwrites what another has noted.

    Args:
        cases: to predict.
        out: the folder.
        model: what predicts.
        title: of the progress bar.
        overwrite: as ``predict_path``, and ``save_probabilities``, ``part`` and ``asked`` too.
        given: where the cases come from. With it a case of several that cannot be analysed does not stop the others.

    Raises:
        Unanalysed: at the end, if any could not be analysed.
        DvtError: as ``predict_case``, where it is the only case or nothing is ``given``.
    """
    ledger = predictions_ledger(out, part)
    known: dict[str, str] = {}
    written: dict[str, str] = {}
    full: set[str] = set()
    ours: set[str] = set()
    go_on = given is not None and len(cases) > 1
    for path in [] if overwrite else predictions_ledgers(out):
        held = artifacts.load(Predicted, path, "dvt_predict --overwrite")
        ours |= set(held.cases)
        if held.model_digest == model.digest:
            known |= held.cases
            written |= held.masks
            full |= set(held.with_probabilities)
    if part is not None:
        cases = cases[part[0] - 1 :: part[1]]
    masks, watch, failed = [], _Pace(model), dict[str, str]()

    def keep() -> None:
        ledger_now = Predicted(
            model_digest=model.digest,
            classes=model.classes,
            cases=known,
            masks=written,
            with_probabilities=tuple(sorted(full)),
        )
        artifacts.save(ledger_now, ledger)

    for case in journal.progress(cases, title):
        path = out / f"{case.id}.nii.gz"
        source_digest = artifacts.file_digest(case.images) if all(p.is_file() for p in case.images) else ""
        wanted = [path, *(probability_path(path, name) for name in model.classes if save_probabilities)]
        kept = known.get(case.id) == source_digest and all(p.exists() for p in wanted)
        kept = kept and (case.id in full or not save_probabilities)
        try:
            if not kept or not _told(case, path, written.get(case.id), model, asked, given):
                watch.add(
                    predict_case(case, path, model, save_probabilities=save_probabilities, asked=asked, given=given)
                )
                known[case.id] = source_digest
                written[case.id] = artifacts.file_digest((path,))
                full = full | {case.id} if save_probabilities else full - {case.id}
                artifacts.write_text(out / "dataset.json", _labels_json(model))
                keep()
            masks.append(path)
        except DvtError as error:
            if go_on or asked is not None:
                # A mask of an earlier image or model must not pass for what this scan shows.
                if case.id in ours:
                    path.unlink(missing_ok=True)
                _tell_failure(case, path, model, error, given)
            if not go_on:
                raise
            failed[case.id] = _in_one_line(error, given)
            if case.id in known:
                del known[case.id]
                written.pop(case.id, None)
                full = full - {case.id}
                keep()
    watch.tell()
    if failed:
        raise Unanalysed(masks, failed, len(cases))
    return masks


def _told(
    case: Case, mask: Path, mask_digest: str | None, model: Model, asked: Asked | None, given: Given | None
) -> bool:
    """Whether all that is asked about a case that was predicted is told already; a page that is missing is made."""
    if asked is None:
        return True
    found = findings.read(findings_path(mask))
    if found is None or found.status != findings.ANALYSED or found.levels != asked.levels.get(case.id):
        return False
    if found.maker.digest != model.digest or found.mask_digest != mask_digest:
        return False
    if asked.page and not all(path.exists() for path in summary_paths(mask)):
        image, grid = volumes.read(case.images[0])
        order = to_slice_order(grid, model.plan.slice_axis)
        values, _ = volumes.read(mask)
        summary.write(found, order.apply(image), order.apply(values), order.grid(grid), summary_paths(mask))
    return True


def _tell_failure(case: Case, mask: Path, model: Model, error: DvtError, given: Given | None) -> None:
    """Leave the record of a case that could not be analysed, in place of any that was made earlier."""
    _forget(mask)
    said = _in_one_line(error, given)
    record = findings.not_analysed(case.id, _names(case, given), said, _now(), model.maker)
    artifacts.save(record, findings_path(mask))


def _forget(mask: Path) -> None:
    """Remove what was told of an earlier mask of that name; what is no record of ours stays."""
    if findings.read(findings_path(mask)) is not None:
        for path in (findings_path(mask), *summary_paths(mask)):
            path.unlink(missing_ok=True)


def _in_one_line(error: DvtError, given: Given | None) -> str:
    said = " ".join(str(error).splitlines())
    return said if given is None else given.spoken_of(said)


def _names(case: Case, given: Given | None) -> list[str]:
    """Of a case's images, as the user knows them."""
    return [path.name if given is None or path not in given.spoken else given.spoken[path] for path in case.images]


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


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


def findings_path(mask: Path) -> Path:
    """Where it is told what was found, beside a mask."""
    return mask.with_name(f"{scans.stem(mask)}_findings.json")


def summary_paths(mask: Path) -> tuple[Path, Path, Path]:
    """Where the summary of a scan lies, beside its mask: HTML, PDF, PNG."""
    html, pdf, png = (mask.with_name(f"{scans.stem(mask)}_summary.{ending}") for ending in ("html", "pdf", "png"))
    return html, pdf, png


def _labels_json(model: Model) -> str:
    """What the values in the masks mean, in nnU-Net's words."""
    return json.dumps({"labels": {"background": 0, **model.classes}, "file_ending": ".nii.gz"}, indent=1) + "\n"


# --- one case -------------------------------------------------------------------------------------


def predict_case(
    case: Case,
    path: Path,
    model: Model,
    *,
    save_probabilities: bool = False,
    asked: Asked | None = None,
    given: Given | None = None,
) -> int:
    """Write the mask of one case on the grid of its first image file, and warn where the scan is unlike the training.

    Slices pass through a nameless file on disk, block by block, so memory does not grow with their
    number. With ``save_probabilities`` a float32 volume per class is written too, named
    ``ID_probability_CLASS.nii.gz``; those are assembled in memory. What is ``asked`` is written beside the mask;
    what was told of an earlier mask goes. ``given`` knows the names of files that go again.

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
        grid, order, channels, bounds, looks = _open_case(case, path.parent, model, stack)
        odd = _oddities(case, grid, looks, model)
        read = time.monotonic()
        masks = stack.enter_context(SliceFile(path.parent))
        chances = [stack.enter_context(SliceFile(path.parent)) for _ in model.classes] if save_probabilities else []
        evidence = None
        if asked is not None:
            evidence = _Evidence(order.grid(grid), asked.levels.get(case.id), model, path.parent, stack)
        for probability_BKHW, votes_BHW in _probabilities(channels, bounds, model, with_votes=evidence is not None):
            marked_BHW = _decide(probability_BKHW, model.classes)
            masks.append(marked_BHW)
            if evidence is not None:
                evidence.add(probability_BKHW.sum(axis=1), marked_BHW, votes_BHW)
            for chance, volume_BHW in zip(chances, np.moveaxis(probability_BKHW, 1, 0), strict=False):
                chance.append(volume_BHW)
        found = time.monotonic()
        for name, chance in zip(model.classes, chances, strict=False):
            target = probability_path(path, name)
            volumes.write_probabilities(target, np.ascontiguousarray(order.undo(chance.read())), grid)
        _forget(path)
        volumes.write_mask(path, np.ascontiguousarray(order.undo(masks.read())), grid)
        wrote = time.monotonic()
        if evidence is not None and asked is not None:
            marked_SHW = masks.read()
            record = evidence.findings(case, path, marked_SHW, odd, asked, given)
            if asked.page:
                summary.write(record, channels[0].read(), marked_SHW, order.grid(grid), summary_paths(path))
            artifacts.save(record, findings_path(path))
        parts = read - begin, found - read, wrote - found, time.monotonic() - wrote
        journal.detail(
            "{}: {:.2g} s reading, {:.2g} s network and resizing, {:.2g} s writing, {:.2g} s telling".format(
                case.id, *parts
            )
        )
        return len(masks)


def _oddities(case: Case, grid: Grid, looks: Sequence[ChannelFingerprint], model: Model) -> list[Oddity] | None:
    """What is odd about a scan, after warning of it; none where the training scans are not known."""
    if model.training is None:
        return None
    odd = familiarity.compare(fingerprint.unlabelled(case.id, looks, grid), model.training)
    if odd:
        journal.warn(
            f"{case.id}: is unlike the {how_many(len(model.training.cases), 'training scan')}, so its mask may be "
            f"wrong. Outside their range: {'; '.join(one.in_words for one in odd)}."
        )
    return odd


class _Evidence:
    """Probabilities and votes of a case, slice by slice on disk, and what is told by them."""

    def __init__(
        self, grid: Grid, levels: Levels | None, model: Model, scratch: Path, stack: contextlib.ExitStack
    ) -> None:
        self._grid, self._levels, self._model = grid, levels, model
        self._chances, self._votes = (stack.enter_context(SliceFile(scratch)) for _ in range(2))
        self._tally = Tally(grid=grid, levels=levels)

    def add(self, chance_BHW: np.ndarray, marked_BHW: np.ndarray, votes_BHW: np.ndarray | None) -> None:
        """Take the next slices: probability of thrombus, the mask, and a bit per fold."""
        self._tally.add(chance_BHW, marked_BHW)
        self._chances.append(chance_BHW.astype(np.float16))
        if votes_BHW is not None:
            self._votes.append(votes_BHW)

    def findings(
        self,
        case: Case,
        mask: Path,
        marked_SHW: np.ndarray,
        odd: Sequence[Oddity] | None,
        asked: Asked,
        given: Given | None,
    ) -> Findings:
        """The record of the case."""
        model, levels = self._model, self._levels
        measured = burden.measure(marked_SHW, self._grid, levels)
        lesions = agreement.lesions(
            marked_SHW,
            self._grid,
            levels,
            lambda s: self._chances.read(s, s + 1)[0],
            None if len(self._votes) == 0 else lambda s: self._votes.read(s, s + 1)[0],
            len(model.folds),
            model.classes,
        )
        intensities = model.training is not None and familiarity.compares_intensities(model.training)
        return Findings(
            case_id=case.id,
            status=findings.ANALYSED,
            in_words=findings.words(measured),
            warnings=tuple(findings.warnings(model.maker, odd, intensities, levels)),
            images=tuple(_names(case, given)),
            made=_now(),
            maker=model.maker,
            mask=mask.name,
            mask_digest=artifacts.file_digest((mask,)),
            levels=levels,
            level_source=None if levels is None else asked.level_source,
            burden=tuple(measured),
            lesions=tuple(lesions),
            nearly_marked_ml=self._tally.nearly_ml,
            highest_probability=self._tally.highest,
            oddities=None if odd is None else tuple(odd),
        )


def _open_case(
    case: Case, scratch: Path, model: Model, stack: contextlib.ExitStack
) -> tuple[Grid, Reorientation, list[SliceFile], list[np.ndarray], list[ChannelFingerprint]]:
    """Put a case's channels on disk slice by slice, find the limits of their intensities, and measure them where
    there is something to compare them with."""
    grid: Grid | None = None
    channels, bounds, looks = [], [], []
    for image_path in case.images:
        array, here = volumes.read(image_path)
        faults = [*dataset.image_faults(image_path, array)]
        if grid is not None:
            faults += dataset.grid_faults(image_path, here, case.images[0], grid)
        if faults:
            raise DvtError("\n".join(faults))
        grid = grid or here
        if model.training is not None:
            looks.append(fingerprint.channel(array, here))
        sliced = to_slice_order(grid, model.plan.slice_axis).apply(array)
        bounds.append(limits(sliced, model.plan.normalization))
        file = stack.enter_context(SliceFile(scratch))
        file.append(sliced)
        channels.append(file)
        del array, sliced
    if grid is None:
        raise ValueError(f"case {case.id} has no image")
    return grid, to_slice_order(grid, model.plan.slice_axis), channels, bounds, looks


def _probabilities(
    channels: Sequence[SliceFile], bounds: Sequence[np.ndarray], model: Model, *, with_votes: bool = False
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Blocks of probabilities on the native in-plane grid, float32 (B, classes, H, W).

    The background of a softmax is left out; it is what the classes lack to 1. With votes, and several folds, bit k
    of an unsigned (B, H, W) is set where fold k alone would mark.
    """
    with_votes = with_votes and len(model.networks) > 1
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
            total, votes = torch.zeros((), device=device), None
            for k, chance in enumerate(_chances(torch.from_numpy(image).to(device), model)):
                total = total + chance
                if with_votes:
                    alone = _decide((rows @ chance @ columns.T).cpu().numpy(), model.classes) != 0
                    bits = alone.astype(agreement.vote_type(len(model.networks))) << k
                    votes = bits if votes is None else votes | bits
            mean = total / len(model.networks)
            yield (rows @ mean @ columns.T).cpu().numpy(), votes


def _chances(image_BCHW: torch.Tensor, model: Model) -> Iterator[torch.Tensor]:
    """Probabilities of the foreground classes by each fold, float32 (B, classes, h, w)."""
    image = image_BCHW.contiguous(memory_format=model.setup.memory_format)
    for network in model.networks:
        with model.setup.autocast():
            logits = network(image).float()
        yield torch.sigmoid(logits) if logits.shape[1] == 1 else torch.softmax(logits, dim=1)[:, 1:]


def _decide(probability_BKHW: np.ndarray, classes: dict[str, int]) -> np.ndarray:
    """Mask values, uint8 (B, H, W): the likeliest class, or lesion from probability 0.5."""
    values = np.array([0, *classes.values()], np.uint8)
    if len(classes) == 1:
        return values[(probability_BKHW[:, 0] >= THRESHOLD).astype(np.uint8)]
    background = 1.0 - probability_BKHW.sum(axis=1, keepdims=True)
    return values[np.concatenate([background, probability_BKHW], axis=1).argmax(axis=1)]
