"""Train one fold as the paper's section 2.4 does."""

from __future__ import annotations

import contextlib
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dvtplan import (
    __version__,
    artifacts,
    augment,
    batches,
    checkpoint,
    devices,
    figures,
    journal,
    parallel,
    prepared,
    workers,
)
from dvtplan.batches import Batch, Schedule, Slices, Source
from dvtplan.devices import Forward, Setup
from dvtplan.errors import DvtError, how_many
from dvtplan.loss import focal
from dvtplan.networks import build, outputs_of, parameter_count
from dvtplan.parallel import Group
from dvtplan.plan import training_bytes
from dvtplan.recipes import RECIPES
from dvtplan.records import Fingerprint, Fold, Plan, Recipe, Run, Splits
from dvtplan.team import under_torchrun
from dvtplan.workspace import FoldFolder, Workspace

PREPARE = "dvt_plan_and_preprocess"

CHECK_EVERY = 50
"""Steps between looks at the loss on a CPU. An accelerator is looked at once an epoch: at each look it waits for the
host."""
REDRAW_AFTER_S = 30.0
"""Time between two drawings of the learning curve."""
BUDGET_SHARE = 0.9
"""Of a time budget, what the epochs may plan to take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a training runs; nothing here changes what is learnt, but rounding."""

    device: str = "auto"
    """'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'."""
    precision: str | None = None
    """'fp32' or 'bf16'; none lets the device decide."""
    channels_last: bool | None = None
    """Memory layout; none lets the device decide."""
    compiled: bool | None = None
    """Whether to use torch.compile; none lets the device decide."""
    processes: int = 1
    """Data-parallel processes on this machine, one per GPU."""
    workers: int | None = None
    """Processes that read slices; 0 keeps all slices in memory, none lets memory decide."""
    resume: bool = False
    """Go on from the last finished epoch."""
    overwrite: bool = False
    """Begin anew where a training already is."""
    batch_size_auto: bool = False
    """Choose the batch size that gets through most slices a second here, in place of the recipe's."""
    time_budget_s: float | None = None
    """Choose as many epochs as fit into this time, at most the recipe's."""

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise ValueError("resume and overwrite exclude each other")
        if self.workers is not None and self.workers < 0:
            raise ValueError(f"workers must not be negative, not {self.workers}")


def train_fold(
    workspace: Workspace,
    fold: int,
    *,
    network: str = "gn_unet",
    recipe: Recipe | None = None,
    epochs: int | None = None,
    options: Options | None = None,
) -> FoldFolder:
    """Train one fold. Every finished epoch is on disk, whole, and a resumed training equals one
    that never stopped.

    Args:
        workspace: a data set that has been prepared.
        fold: index in ``splits.json``.
        network: a key of ``NETWORKS``.
        recipe: what to do; none for the paper's, or on resume for the one that the run began with,
            which is the only one that a resumed run accepts.
        epochs: in place of the recipe's; on resume more may be added.
        options: how to run.

    Returns:
        The fold's folder.

    Raises:
        DvtError: for a fold that is not there, data that are not prepared by the present plan, a
            training that would be overwritten, nothing to resume, or a loss that is not finite.
    """
    options = options or Options()
    if options.processes > 1 and not under_torchrun():
        devices.each(options.device, options.processes)
    wish = _Wish(fold=fold, network=network, recipe=recipe, epochs=epochs)
    parallel.launch(_train, options.processes, workspace, wish, options)
    return workspace.fold(network, fold)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """What was asked to be trained."""

    fold: int
    network: str
    recipe: Recipe | None
    epochs: int | None


def _train(workspace: Workspace, wish: _Wish, options: Options) -> None:
    """What each process of a training does."""
    setup = devices.choose(
        parallel.local_device(options.device),
        training=True,
        precision=options.precision,
        channels_last=options.channels_last,
        compiled=options.compiled,
    )
    advice = "Use a smaller --batch-size, or --precision bf16, or share the batch with --gpus."
    with contextlib.ExitStack() as stack:
        group = stack.enter_context(parallel.joined(setup.device))
        stack.enter_context(devices.memory_told(advice))
        job = _open_job(workspace, wish, options, setup, group)
        trainee = _Trainee(job.run, setup, group)
        done = trainee.restore(job.folder) if options.resume else 0
        if options.batch_size_auto and done == 0:
            job = _with_batch_size(job, _fastest_batch(job, trainee))
            trainee.recipe = job.run.recipe
        job = _compile(job, trainee)
        if options.time_budget_s is not None and done == 0:
            job = replace(job, run=_within_budget(job, trainee, options.time_budget_s))
        elif options.time_budget_s is not None:
            job.tell("--time-budget has no effect on a resumed training; --epochs adds epochs.", group)
        if done > job.run.recipe.epochs:
            raise DvtError(
                f"--epochs {job.run.recipe.epochs}: {job.folder.path} has {how_many(done, 'epoch')} behind it already. "
                "Name more, or begin anew with --overwrite."
            )
        if done == job.run.recipe.epochs:
            if group.leads and job.run.epochs_done < done:  # killed between checkpoint and record
                _record(job, journal.read_epochs(job.folder.epochs, before=done), done)
            job.tell(f"Fold {wish.fold} is trained: {how_many(done, 'epoch')}. --resume --epochs N adds more.", group)
            return
        if group.leads:
            stack.enter_context(artifacts.sole_writer(job.folder.path))
            _take_folder(job, workspace.results_plan(wish.network), done)
            _take_origin(workspace, wish.network)
            if workspace.metrics(wish.network).exists():
                job.tell(
                    f"{workspace.metrics(wish.network)} and the tables beside it are of earlier predictions.", group
                )
        # Last: each process tries and compiles alone, as often as it needs; from here on, all take the same steps.
        trainee.join_group()
        job.tell(_opening(job, setup, done), group)
        source = batches.open_source(job.slices, job.schedule, setup.device, _free_bytes(setup), options.workers)
        stack.callback(source.close)
        fit(job, trainee, source, done)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One fold's training: what it reads, what it follows, where it writes."""

    run: Run
    plan: Plan
    slices: Slices
    schedule: Schedule
    folder: FoldFolder

    def tell(self, text: str, group: Group) -> None:
        """Say something once, and keep it in the fold's log."""
        if group.leads:
            journal.note(text, self.folder.log)


def _take_folder(job: _Job, results_plan: Path, done: int) -> None:
    """Ready a fold's folder for the epochs to come: nothing of an earlier training may pass for theirs."""
    job.folder.ledger.unlink(missing_ok=True)
    if done == 0:
        job.folder.checkpoint.unlink(missing_ok=True)
    rows = journal.read_epochs(job.folder.epochs, before=done)
    artifacts.save(job.plan, results_plan)
    artifacts.save(_advance(job.run, rows, done), job.folder.run)


def _take_origin(workspace: Workspace, network: str) -> None:
    """Put beside the plan what travels with the model: what its data look like, and what they say of themselves."""
    described = workspace.raw / "dataset.json"
    copies = {workspace.fingerprint: workspace.results_fingerprint(network)}
    if described.exists():  # prepared slices alone are enough to train on
        copies[described] = workspace.results_description(network)
    for path, copy in copies.items():
        artifacts.write_text(copy, path.read_text(encoding="utf-8"))


class _Trainee:
    """A network with its optimizer, placed on a device and in a group."""

    def __init__(self, run: Run, setup: Setup, group: Group) -> None:
        recipe = run.recipe
        torch.manual_seed(recipe.seed)
        outputs = outputs_of(len(run.classes))
        network = build(run.network, run.channels, outputs, width=recipe.width, norm_groups=recipe.norm_groups)
        self.setup, self.group, self.recipe = setup, group, recipe
        self.network = network.to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, 0.999),
            fused=not setup.device.startswith("mps"),
        )
        self.forward: Forward = self.network
        """What a step runs: the network, compiled and shared by the group where that is so."""

    def restore(self, folder: FoldFolder) -> int:
        """Go back to the last finished epoch; how many are behind it."""
        return checkpoint.restore(folder.checkpoint, self.network, self.optimizer)

    def loss(self, batch: Batch, matrices_V23: torch.Tensor, forward: Forward | None = None) -> torch.Tensor:
        """Augment a batch, run the network (or a stand-in for it), and compare."""
        image, label = augment.apply(batch.image_BCHW, batch.label_BHW, matrices_V23[batch.variant_B])
        with self.setup.autocast():
            logits = (self.forward if forward is None else forward)(
                image.contiguous(memory_format=self.setup.memory_format)
            )
        return focal(logits, label, self.recipe.focal_gamma, self.recipe.focal_alpha)

    def step(self, batch: Batch, matrices_V23: torch.Tensor) -> torch.Tensor:
        """One step of Adam; the loss before it, left on the device."""
        self.optimizer.zero_grad(set_to_none=True)  # before the forward pass, as in _step_seconds
        loss = self.loss(batch, matrices_V23)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def join_group(self) -> None:
        """From here on every step averages its gradients over the group, so all processes take the same steps."""
        if not isinstance(self.forward, nn.Module):
            raise TypeError(f"{self.forward} has no gradients to share")
        self.forward = self.group.wrap(self.forward, self.setup.device)

    def is_finite(self) -> bool:
        """Whether no weight has become infinite or not a number."""
        finite = [torch.isfinite(p).all() for p in self.network.parameters()]
        return bool(torch.stack(finite).all())  # one look: each makes a GPU wait for the host

    def set_learning_rate(self, rate: float) -> None:
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate


def fit(job: _Job, trainee: _Trainee, source: Source, done: int) -> None:
    """Run the epochs that are left; after each, its row, its checkpoint and its place in ``run.json``."""
    recipe, steps, group = job.run.recipe, job.schedule.steps, trainee.group
    matrices_V23 = augment.matrices(job.plan.variants, job.plan.target_shape).to(trainee.setup.device)
    rows = journal.read_epochs(job.folder.epochs, before=done)
    run, begin = job.run, time.monotonic()
    drawn = begin
    check_every = CHECK_EVERY if trainee.setup.device == "cpu" else steps
    bar = journal.StepBar(f"Train fold {run.fold}", total=recipe.epochs * steps, done=done * steps, shown=group.leads)
    with bar:
        for epoch in range(done, recipe.epochs):
            rate = recipe.learning_rate_at(epoch)
            trainee.set_learning_rate(rate)
            losses: list[torch.Tensor] = []
            watch, mean = journal.Watch(), float("nan")
            for batch in watch.over(source.epoch(epoch)):
                losses.append(trainee.step(batch, matrices_V23))
                bar.update()
                if len(losses) % check_every == 0 or len(losses) == steps:
                    mean = _finite_mean(losses, job, group, epoch)
                    bar.say(f"epoch {epoch + 1}, loss {mean:.3g}, waiting for data {watch.waiting_share():.0%}")
            if not trainee.is_finite():
                raise _not_finite("a weight is", job, epoch, steps - 1)
            if not group.leads:
                continue
            rows.append(
                {
                    "epoch": epoch,
                    "loss": f"{mean:.6g}",
                    "learning_rate": f"{rate:.3g}",
                    "seconds": f"{watch.seconds():.3f}",
                    "waiting_share": f"{watch.waiting_share():.4f}",
                    "slices_per_s": f"{steps * recipe.batch_size / watch.seconds():.2f}",
                }
            )
            journal.write_epochs(job.folder.epochs, rows)
            checkpoint.save(job.folder.checkpoint, trainee.network, trainee.optimizer, epoch + 1)
            draw = epoch + 1 == recipe.epochs or time.monotonic() - drawn > REDRAW_AFTER_S
            run = _record(job, rows, epoch + 1, draw=draw)
            drawn = time.monotonic() if draw else drawn
    inside = sum(float(row["seconds"]) for row in rows[done:])
    between = max(0.0, 1 - inside / max(time.monotonic() - begin, 1e-9))
    job.tell(
        f"Trained {how_many(recipe.epochs, 'epoch')} in {journal.duration(run.seconds)}; {run.waiting_share:.1%} of it "
        f"went by waiting for data. Between the epochs (checkpoints, curves) went {between:.1%} of this run.",
        group,
    )


def _finite_mean(losses: Sequence[torch.Tensor], job: _Job, group: Group, epoch: int) -> float:
    """The mean loss of an epoch so far, over the group.

    Raises:
        DvtError: naming the first batch whose loss is not finite, and its cases.
    """
    values = group.mean(torch.stack(list(losses)))
    good = torch.isfinite(values)
    if bool(good.all()):
        return float(values.mean())
    raise _not_finite("the loss is", job, epoch, int(torch.nonzero(~good)[0]))


def _not_finite(what: str, job: _Job, epoch: int, step: int) -> DvtError:
    numbers = replace(job.schedule, rank=0, world=1).order(epoch)[0][step]
    kept = f"The last good checkpoint, of epoch {epoch}, is kept." if epoch else "No epoch was finished."
    return DvtError(
        f"{job.folder.path}: {what} not finite in epoch {epoch + 1}, batch {step + 1} "
        f"({'; '.join(job.slices.name(int(n)) for n in numbers)}). {kept} Look at these slices, or train anew with a "
        "lower --learning-rate or with --precision fp32."
    )


def _record(job: _Job, rows: Sequence[dict[str, Any]], done: int, *, draw: bool = True) -> Run:
    """Write ``run.json`` for the epochs that are done, and perhaps draw them."""
    run = _advance(job.run, rows, done)
    artifacts.save(run, job.folder.run)
    if draw and rows:
        figures.learning_curve(rows, job.folder.progress, f"{run.network}, fold {run.fold}")
    return run


def _advance(run: Run, rows: Sequence[dict[str, Any]], done: int) -> Run:
    seconds = sum(float(row["seconds"]) for row in rows)
    waited = sum(float(row["seconds"]) * float(row["waiting_share"]) for row in rows)
    return replace(run, epochs_done=done, seconds=seconds, waiting_share=waited / max(seconds, 1e-9))


# --- before the first step ------------------------------------------------------------------------


def _open_job(workspace: Workspace, wish: _Wish, options: Options, setup: Setup, group: Group) -> _Job:
    """Read and check everything that a training follows."""
    fingerprint = artifacts.load(Fingerprint, workspace.fingerprint, PREPARE)
    plan = artifacts.load(Plan, workspace.plan, PREPARE)
    splits = artifacts.load(Splits, workspace.splits, PREPARE)
    if plan.fingerprint_digest != artifacts.digest(fingerprint):
        raise DvtError(
            f"{workspace.plan}: was derived from other data than {workspace.fingerprint} describes. Run {PREPARE} "
            "again."
        )
    if not 0 <= wish.fold < len(splits.folds):
        last = len(splits.folds) - 1
        raise DvtError(f"fold {wish.fold}: {workspace.splits} holds the folds 0 to {last}. Choose one of them.")
    fold, folder = splits.folds[wish.fold], workspace.fold(wish.network, wish.fold)
    digests = {case.id: case.source_digest for case in fingerprint.cases}
    unknown = sorted({*fold.train, *fold.test} - set(digests))
    if unknown:
        raise DvtError(
            f"{workspace.splits}: fold {wish.fold} names cases that {workspace.fingerprint} does not hold: "
            f"{', '.join(unknown)}. Run {PREPARE} again."
        )
    for case in fold.train:
        prepared.require_current(workspace.prepared(case), plan, workspace.plan, digests[case])
    if folder.checkpoint.exists() and not options.resume and not options.overwrite:
        raise DvtError(f"{folder.path}: already holds a training. Go on with --resume, or begin anew with --overwrite.")
    held = _resumable(folder, plan, splits, wish, options) if options.resume else None
    recipe = held.recipe if held else wish.recipe or RECIPES["paper"]
    recipe = recipe if wish.epochs is None else replace(recipe, epochs=wish.epochs)
    if options.batch_size_auto and not held:
        recipe = replace(recipe, batch_size=group.world)  # until it is chosen
    if recipe.batch_size % group.world:
        raise DvtError(
            f"batch_size {recipe.batch_size} cannot be shared evenly by {group.world} processes. Change one."
        )
    classes = _classes(recipe, plan)
    recipe = replace(recipe, target="lesion" if len(classes) == 1 else "labels")
    slices = Slices([workspace.prepared(case) for case in fold.train])
    run = _new_run(wish.network, fold, recipe, classes, plan, splits, setup, group)
    if held:
        run = replace(run, started=held.started, epochs_done=held.epochs_done)
    schedule = Schedule(
        slices=len(slices),
        variants=len(plan.variants),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        lesions=slices.lesions(),
        oversampling=recipe.oversampling,
        rank=group.rank,
        world=group.world,
    )
    return _Job(run=run, plan=plan, slices=slices, schedule=schedule, folder=folder)


def _resumable(folder: FoldFolder, plan: Plan, splits: Splits, wish: _Wish, options: Options) -> Run:
    """The run that is to go on; it keeps the recipe that it began with."""
    if not folder.checkpoint.exists():
        raise DvtError(f"{folder.path}: nothing to resume, no epoch is finished there. Train without --resume.")
    run = artifacts.load(Run, folder.run, "dvt_train")
    if run.plan_digest != artifacts.digest(plan) or run.splits_digest != artifacts.digest(splits):
        raise DvtError(
            f"{folder.run}: was trained by another plan or other folds than plan.json and splits.json hold now. "
            "Restore those files, or begin anew with --overwrite."
        )
    if wish.recipe is not None:
        wanted = replace(wish.recipe, name=run.recipe.name, epochs=run.recipe.epochs)
        if wanted.target == "auto":
            wanted = replace(wanted, target=run.recipe.target)
        if options.batch_size_auto:
            wanted = replace(wanted, batch_size=run.recipe.batch_size)
        if wanted != run.recipe:
            raise DvtError(
                f"{folder.run}: a resumed training keeps its recipe; only --epochs may change. Leave the other "
                "options away, or begin anew with --overwrite."
            )
    return run


def _classes(recipe: Recipe, plan: Plan) -> dict[str, int]:
    """What the outputs mean, name -> value in predicted masks."""
    target = recipe.target
    if target == "auto":
        joined = len(plan.labels) == 1 or set(plan.labels) == {"proximal", "distal"}
        target = "lesion" if joined else "labels"
    if target == "labels" and len(plan.labels) > 1:
        return plan.labels
    return {"lesion": 1} if len(plan.labels) > 1 else plan.labels


def _new_run(
    network: str,
    fold: Fold,
    recipe: Recipe,
    classes: dict[str, int],
    plan: Plan,
    splits: Splits,
    setup: Setup,
    group: Group,
) -> Run:
    outputs = outputs_of(len(classes))
    with torch.device("meta"):
        blank = build(network, len(plan.channels), outputs, width=recipe.width, norm_groups=recipe.norm_groups)
    return Run(
        network=network,
        fold=fold.index,
        recipe=recipe,
        classes=classes,
        channels=len(plan.channels),
        parameters=parameter_count(blank),
        train=fold.train,
        test=fold.test,
        plan_digest=artifacts.digest(plan),
        splits_digest=artifacts.digest(splits),
        setup=setup.remark,
        processes=group.world,
        versions={
            "dvtplan": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
        },
        started=journal.now(),
        epochs_done=0,
        seconds=0.0,
        waiting_share=0.0,
    )


TRIAL_S = 4.0
"""How long steps are tried, in seconds, where four take less."""


def _step_seconds(job: _Job, trainee: _Trainee, slices: int, forward: Forward | None = None) -> float:
    """What a forward and a backward pass of so many slices take here; they leave no trace in the network."""
    rows, columns = job.plan.target_shape
    device = trainee.setup.device
    # Not zeros, which a GPU multiplies faster than images; and global random generators keep their state.
    noise = torch.rand(1, job.run.channels, rows, columns, generator=torch.Generator().manual_seed(0))
    batch = Batch(
        noise.expand(slices, -1, -1, -1).to(device, torch.float16),
        torch.zeros(slices, rows, columns, dtype=torch.uint8, device=device),
        torch.zeros(slices, dtype=torch.long, device=device),
    )
    matrices = augment.matrices(job.plan.variants, job.plan.target_shape).to(device)
    seconds: list[float] = []
    # Networks with batch normalization keep a running mean of what they see: these steps must leave no trace.
    kept = {name: buffer.clone() for name, buffer in trainee.network.named_buffers()}
    try:
        # The fastest of several, and of more where they are quick: others may be at work on the machine just now.
        while len(seconds) < 4 or (len(seconds) < 20 and sum(seconds) < TRIAL_S):
            begin = time.perf_counter()
            trainee.optimizer.zero_grad(set_to_none=True)  # a CUDA graph reuses the memory of the last gradients
            loss = trainee.loss(batch, matrices, forward)
            loss.backward()
            float(loss.detach())
            seconds.append(time.perf_counter() - begin)
    finally:
        trainee.optimizer.zero_grad(set_to_none=True)
        for name, buffer in trainee.network.named_buffers():
            buffer.copy_(kept[name])
    return min(seconds[1:])


def _compile(job: _Job, trainee: _Trainee) -> _Job:
    """Compile what is to be trained, where that was chosen and works; the run's record says which it was."""
    share = job.schedule.batch_size // job.schedule.world
    trainee.forward, failed = devices.compiled(
        trainee.forward, trainee.setup, lambda forward: _step_seconds(job, trainee, share, forward)
    )
    if not failed:
        return job
    if trainee.group.leads:
        journal.note(failed)
    return replace(job, run=replace(job.run, setup=f"{job.run.setup} {failed}"))


WORTH = 1.05
"""How many times faster twice the batch must be."""
BATCHES = tuple(2**k for k in range(11))


def _fastest_batch(job: _Job, trainee: _Trainee) -> int:
    """Slices a step, over all processes, that get through most slices a second: doubled for as long as
    that pays and memory holds. The first process tries them, alone and uncompiled, for all."""
    best, rate = BATCHES[0], 0.0
    world, free = job.schedule.world, None if trainee.setup.free_bytes() else workers.free_memory_bytes()
    for slices in BATCHES if trainee.group.leads else ():
        fits = free is None or training_bytes(job.plan, 2 * slices) < free
        if slices * world > len(job.slices) or not fits:
            break
        try:
            found = slices / _step_seconds(job, trainee, slices, trainee.network)
        except torch.cuda.OutOfMemoryError:
            break
        if found < WORTH * rate:
            break
        best, rate = slices, found
    chosen = int(trainee.group.from_leader(best)) * world
    if trainee.group.leads:
        journal.note(f"--batch-size auto: {chosen} slices a step; of those tried it is fastest or nearly so.")
    return chosen


def _with_batch_size(job: _Job, batch_size: int) -> _Job:
    recipe = replace(job.run.recipe, batch_size=batch_size)
    return replace(job, run=replace(job.run, recipe=recipe), schedule=replace(job.schedule, batch_size=batch_size))


def _within_budget(job: _Job, trainee: _Trainee, budget_s: float) -> Run:
    """The run with as many epochs as a time budget holds, by the time that steps and a checkpoint take here."""
    step = _step_seconds(job, trainee, job.schedule.batch_size // job.schedule.world)
    saving = _checkpoint_seconds(job, trainee) if trainee.group.leads else 0.0
    per_epoch = trainee.group.from_leader(step * job.schedule.steps + saving)
    fitting = int(budget_s * BUDGET_SHARE // per_epoch)
    if fitting < 1:
        raise DvtError(
            f"--time-budget: one epoch takes about {journal.duration(per_epoch)} here, more than "
            f"{BUDGET_SHARE:.0%} of {journal.duration(budget_s)}. Give more time, or use a GPU."
        )
    return replace(job.run, recipe=replace(job.run.recipe, epochs=min(fitting, job.run.recipe.epochs)))


def _checkpoint_seconds(job: _Job, trainee: _Trainee) -> float:
    """What writing a checkpoint takes on the disk of the results."""
    there = next(parent for parent in job.folder.path.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".trial_") as folder:
            begin = time.monotonic()
            checkpoint.save(Path(folder) / "checkpoint.pt", trainee.network, trainee.optimizer, 0)
            return CHECKPOINT_PARTS * (time.monotonic() - begin)
    except OSError as error:
        raise DvtError(artifacts.cannot_write(there, error)) from error


CHECKPOINT_PARTS = 3
"""Weights and Adam's two moments, which come with the first step."""


def _opening(job: _Job, setup: Setup, done: int) -> str:
    run, recipe = job.run, job.run.recipe
    begun = f"going on after epoch {done}" if done else "from the start"
    shared = f", shared by {run.processes} processes" if run.processes > 1 else ""
    return (
        f"{setup.remark}\n"
        f"Fold {run.fold}: {run.network}, {run.parameters:,} parameters, {', '.join(run.classes)}; recipe "
        f"{recipe.name}, {how_many(recipe.epochs, 'epoch')} x {job.schedule.steps} steps of {recipe.batch_size} slices "
        f"at {job.plan.target_shape[0]}x{job.plan.target_shape[1]}{shared}, {begun}."
    )


def _free_bytes(setup: Setup) -> int | None:
    """Memory for slices: the accelerator's, or the machine's."""
    free = setup.free_bytes()
    return workers.free_memory_bytes() if free is None else free
