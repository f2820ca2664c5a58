"""Measure training: the whole loop against bare steps, its waits for the host, two processes against one."""

from __future__ import annotations

import contextlib
import os
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

import dvtplan
from bench import steps
from bench.inputs import TINY_CASES, Bench, training_setup
from bench.limits import matrix_flop_per_s
from bench.results import Row, absent
from bench.timing import in_turn
from dvtplan.core import json_records, text
from dvtplan.data.folds import Splits
from dvtplan.data.paths import Workspace
from dvtplan.models import epoch_log
from dvtplan.models.training_run import Run
from dvtplan.planning.cost import FORWARD_FLOP_PER_PIXEL
from dvtplan.planning.patches import decide_patch
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocessed_cases import STAGE
from dvtplan.planning.recipe import Recipe, override
from dvtplan.training.data_loading import SliceDataset
from dvtplan.training.job import TrainingOptions
from dvtplan.training.sampling import SliceSampler
from dvtplan.training.train import train_fold

LOOP_SHARE, LOOP_SHARE_GPU = 0.95, 0.90
"""Goal for the rate of the training loop, as a share of the rate of bare steps."""
PACKAGE = Path(dvtplan.__file__).parent
SYNCHRONISING = "synchronizing CUDA operation"
"""Text in the warnings of ``torch.cuda.set_sync_debug_mode``."""


def train(bench: Bench) -> Iterator[Row]:
    """Slices per second of `dvt_train`, against bare steps on fixed tensors."""
    yield from loop(bench, bench.recipe, TrainingOptions(device=bench.device, overwrite=True), "train")


def eager(bench: Bench) -> Iterator[Row]:
    """Slices per second of `dvt_train` on a GPU without compilation, against bare steps."""
    if not bench.on_gpu:
        yield absent("eager", "training loop over bare steps, not compiled", "no GPU")
        return
    options = TrainingOptions(device=bench.device, overwrite=True, compiled=False)
    yield from loop(bench, bench.recipe, options, "eager")


def auto(bench: Bench) -> Iterator[Row]:
    """Slices per second of `dvt_train --batch-size auto` on a GPU, and of bare steps with that batch size."""
    if not bench.on_gpu:
        yield absent("auto", "training loop over bare steps, --batch-size auto", "no GPU")
        return
    # A first training chooses the batch size; the others use it.
    first = TrainingOptions(device=bench.device, overwrite=True, batch_size_auto=True, compiled=False)
    workspace = bench.training_data()
    _epoch_seconds(workspace, override("paper", epochs=1, batch_size=1), first)
    batch = json_records.load(Run, workspace.fold("gn_unet", 0).run, "dvt_train").recipe.batch_size
    options = TrainingOptions(device=bench.device, overwrite=True)
    yield from loop(bench, override("paper", epochs=2, batch_size=batch), options, "auto")
    for way in (steps.EAGER, steps.COMPILED):
        yield steps.on_gpu(bench, way, batch)


def modern(bench: Bench) -> Iterator[Row]:
    """Patches per second of `dvt_train --recipe modern`, against bare steps."""
    changes = {"width": 4, "norm_groups": 4, "patch": "64x32", "batch_size": 4} if bench.tiny else {}
    recipe = override("modern", epochs=1 if bench.tiny else 2, **changes)
    yield from loop(bench, recipe, TrainingOptions(device=bench.device, overwrite=True), "modern")


def loop(bench: Bench, recipe: Recipe, options: TrainingOptions, section: str) -> Iterator[Row]:
    """Compare the last epoch of a training loop with bare steps of the same batch size and shape."""
    workspace = bench.training_data()
    plan = json_records.load(Plan, workspace.plan, STAGE)
    batch, slices = recipe.batch_size, _slices_per_epoch(workspace, recipe)
    shape = decide_patch(recipe, plan).patch_shape or plan.target_shape
    channels = len(plan.channels) * (2 * recipe.context + 1)
    setup = training_setup(bench, (batch, channels, *shape), compiled=options.compiled)
    bare = steps.bare_step(setup, batch, shape, channels=channels, tiny=bench.tiny)
    timing = in_turn(
        {
            "loop": lambda: _epoch_seconds(workspace, recipe, options),
            "bare": lambda: steps.seconds_of_steps(bare, bench.device, slices // batch),
        },
        bench.rounds,
        warm_up=False,
    )
    size = f"{shape[0]}x{shape[1]}"
    unit = "slices/s" if recipe.patch == "whole" else "patches/s"
    rate = slices / timing.seconds("loop")
    detail: dict[str, object] = {"seconds": timing.rounds, "slices": slices, "batch": batch, "size": size}
    yield Row(
        section=section, what="training loop over bare steps", value=timing.ratio("bare", "loop"), unit="x",
        at_least=LOOP_SHARE if bench.on_cpu else LOOP_SHARE_GPU,
        note=f"{unit}, {size}, batch {batch}{f'; {bare.failed}' if bare.failed else ''}", detail=detail,
    )  # fmt: skip
    fold = text.duration(steps.PAPER_FOLD_SLICES / rate)
    yield Row(
        section=section, what="training rate", value=rate, unit=unit,
        note=f"as many slices as 589,000 steps of 2 would take {fold}" if size == "960x320" else "", detail=detail,
    )  # fmt: skip
    flop = 3 * FORWARD_FLOP_PER_PIXEL * shape[0] * shape[1] * rate
    peak = matrix_flop_per_s(bench.device, setup.precision, tiny=bench.tiny)
    yield Row(
        section=section, what="share of the matrix-product rate", value=flop / peak, unit="x",
        note=f"{flop / 1e12:.3g} of {peak / 1e12:.3g} TFLOP/s", detail={"flop_per_s": flop, "matrix_flop_per_s": peak},
    )  # fmt: skip


def _epoch_seconds(workspace: Workspace, recipe: Recipe, options: TrainingOptions) -> float:
    """Train, and return the seconds of the last epoch; earlier epochs are warm-up."""
    folder = train_fold(workspace, 0, recipe=recipe, options=options)
    return float(epoch_log.read_epochs(folder.epochs, before=recipe.epochs)[-1]["seconds"])


def _slices_per_epoch(workspace: Workspace, recipe: Recipe) -> int:
    """Return the number of slices per epoch of fold 0, including those repeated to fill the last batch."""
    cases = json_records.load(Splits, workspace.splits, STAGE).folds[0].train
    count = len(SliceDataset([workspace.preprocessed_case(case) for case in cases]))
    return recipe.batch_size * SliceSampler(slices=count, variants=1, batch_size=recipe.batch_size, seed=0).steps


# --- waits for the host ---------------------------------------------------------------------------


def synchronisations(bench: Bench) -> Iterator[Row]:
    """Waits of a GPU for the host per epoch and per step, in a tiny training that is not compiled."""
    if not bench.on_gpu:
        yield absent("synchronisations", "waits for the host an epoch", "no GPU")
        return
    workspace = bench.prepared("tiny", TINY_CASES)
    yield from _waits_of(workspace, bench.device, "paper")
    yield from _waits_of(workspace, bench.device, "modern", patch="64x32")


def _waits_of(workspace: Workspace, device: str, name: str, **changes: object) -> Iterator[Row]:
    """Measure the waits of a named recipe."""
    once, longer, finer = (
        _waits(workspace, device, override(name, **changes, epochs=epochs, batch_size=batch, width=8, norm_groups=8))
        for epochs, batch in ((1, 2), (3, 2), (3, 1))
    )
    per_epoch = {place: (longer[place] - once[place]) / 2 for place in longer}
    more_steps = 3 * (_steps(workspace, 1) - _steps(workspace, 2))
    places = ", ".join(f"{place} {count:g}" for place, count in sorted(per_epoch.items(), key=lambda p: -p[1]) if count)
    yield Row(
        section="synchronisations", what=f"{name}: waits for the host an epoch", value=sum(per_epoch.values()), unit="",
        note=places, detail={"per_epoch": per_epoch},
    )  # fmt: skip
    yield Row(
        section="synchronisations", what=f"{name}: waits for the host a step",
        value=(finer.total() - longer.total()) / more_steps, unit="", at_most=0.01,
        note=f"{more_steps} more steps in the same number of epochs", detail={"per_step": dict(finer - longer)},
    )  # fmt: skip


def _steps(workspace: Workspace, batch: int) -> int:
    """Return the number of steps per epoch."""
    return _slices_per_epoch(workspace, override("paper", batch_size=batch)) // batch


def _waits(workspace: Workspace, device: str, recipe: Recipe) -> Counter[str]:
    """Return how often each function of this package made the GPU wait in a training that is not compiled."""
    found: Counter[str] = Counter()

    def note(message: Warning | str, *_: object) -> None:
        if SYNCHRONISING in str(message):
            ours = [frame for frame in traceback.extract_stack() if PACKAGE in Path(frame.filename).parents]
            found[f"{Path(ours[-1].filename).name} {ours[-1].name}" if ours else "elsewhere"] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            train_fold(
                workspace, 0, recipe=recipe, options=TrainingOptions(device=device, overwrite=True, compiled=False)
            )
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return found


# --- two processes --------------------------------------------------------------------------------


def parallel(bench: Bench) -> Iterator[Row]:
    """Slices per second of two processes against one, each process with half the batch and one core or GPU."""
    gpus = torch.cuda.device_count()
    if not bench.on_cpu and gpus < 2:
        yield absent("parallel", "two GPUs over one", f"PyTorch sees {gpus} GPU")
        return
    workspace, recipe = bench.training_data(), bench.recipe
    kind = bench.device.partition(":")[0]
    options = {n: TrainingOptions(device=kind, overwrite=True, processes=n) for n in (1, 2)}
    with _one_thread() if bench.on_cpu else contextlib.nullcontext():
        timing = in_turn(
            {f"{n}": lambda n=n: _epoch_seconds(workspace, recipe, options[n]) for n in (1, 2)},  # type: ignore[misc]
            bench.rounds,
            warm_up=False,
        )
    yield Row(
        section="parallel", what="two processes over one", value=timing.ratio("1", "2"), unit="x", at_least=1.7,
        note="slices/s; one core a process" if bench.on_cpu else "slices/s; one GPU a process",
        detail={"seconds": timing.rounds},
    )  # fmt: skip


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Limit this process, and processes started inside, to one thread each."""
    before, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
