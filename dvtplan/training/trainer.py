"""Network, optimizer and step; the epoch loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration
from dvtplan.data.paths import FoldFolder
from dvtplan.models import checkpoint, devices, epoch_log
from dvtplan.models.checkpoint import PartialEpoch
from dvtplan.models.devices import DeviceConfig, Forward
from dvtplan.models.weight_average import WeightAverage
from dvtplan.training import progress
from dvtplan.training.augmentation import Augmentation
from dvtplan.training.data_loading import Batch, Loader
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingJob, write_run
from dvtplan.training.losses import loss_function
from dvtplan.training.pace import Pace

CHECK_EVERY = 50
"""Steps between checks of the loss on a CPU. An accelerator is checked once an epoch, because each check makes the
host wait for it."""
REDRAW_AFTER_S = 30.0
"""Seconds between two drawings of the learning curve."""


class Trainer:
    """A network with its optimizer, loss and augmentation, on a device and in a process group."""

    def __init__(self, job: TrainingJob, setup: DeviceConfig, group: TorchProcessGroup) -> None:
        recipe = job.run.recipe
        torch.manual_seed(recipe.seed)
        self.setup, self.group = setup, group
        self.network = setup.place(checkpoint.build_network(job.run))
        self.optimizer = torch.optim.AdamW(  # without weight decay this is Adam
            self.network.parameters(),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, 0.999),
            weight_decay=recipe.weight_decay,
            fused=not setup.device.startswith("mps"),
        )
        self.average = WeightAverage(self.network, recipe.averaging) if recipe.averaging else None
        self._recipe, self._loss = recipe, loss_function(recipe.loss)
        self._augment = Augmentation(job.plan, recipe, setup.device)
        self._forward: Forward = self.network  # later compiled, then shared by the group

    def restore(self, folder: FoldFolder) -> int:
        """Restore the last checkpoint, which may be within an epoch. Return the number of finished epochs."""
        return checkpoint.restore(folder.checkpoint, self.network, self.optimizer, self.average)

    def loss(self, batch: Batch, forward: Forward | None = None) -> torch.Tensor:
        """Augment a batch, run the network, or ``forward`` in its place, and return the loss."""
        image, label = self._augment(batch)
        with self.setup.autocast():
            logits = (self._forward if forward is None else forward)(self.setup.images(image))
        return self._loss(logits, label, self._recipe)

    def step(self, batch: Batch) -> torch.Tensor:
        """Take one step of the optimizer. Return the loss before it, on the device."""
        self.optimizer.zero_grad(set_to_none=True)  # before the forward pass, as in tuning._step_seconds
        loss = self.loss(batch)
        loss.backward()
        if self._recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self._recipe.clip_norm)
        self.optimizer.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss.detach()

    def compile(self, trial: Callable[[Forward], object]) -> str:
        """Compile the network if the setup says so. Return why that failed, or an empty string."""
        self._forward, failure = devices.try_compile(self._forward, self.setup, trial)
        return failure

    def join_group(self) -> None:
        """Average the gradients of every later step over the group. All processes must then take the same steps."""
        if not isinstance(self._forward, nn.Module):
            raise TypeError(f"{self._forward} has no gradients to average")
        self._forward = self.group.wrap(self._forward, self.setup.device)

    def is_finite(self) -> bool:
        """Return whether every weight is finite."""
        finite = [torch.isfinite(p).all() for p in self.network.parameters()]
        return bool(torch.stack(finite).all())  # one check: each makes the host wait for a GPU

    def set_learning_rate(self, rate: float) -> None:
        """Set the step size of the next steps."""
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate


def fit(
    job: TrainingJob, trainer: Trainer, loader: Loader, pace: Pace, *, before_first: Callable[[], None] | None = None
) -> None:
    """Take the remaining steps. Write the rows, the checkpoint and ``run.json`` after each epoch.

    A long epoch is also saved before its end, without a row. Very short epochs are saved several at a time.

    Args:
        job: what to train.
        trainer: with the weights of the steps that the pace has taken.
        loader: source of batches.
        pace: decides the steps.
        before_first: called in the main process once the first checkpoint is on disk, before it and its row replace
            those of an earlier training.

    Raises:
        DvtError: if a loss or a weight is not finite.
    """
    group, started = trainer.group, pace.epoch
    rows = epoch_log.read_epochs(job.folder.epochs, before=started)
    begin = drawn = time.monotonic()
    partial = checkpoint.partial_epoch(job.folder.checkpoint) if pace.taken % pace.steps_per_epoch else None
    earlier_s = partial.seconds if partial else 0.0
    title = f"Train fold {job.run.fold}"
    pace.check()  # the slices are loaded now
    with progress.StepBar(title, total=pace.steps, done=pace.taken, shown=group.is_main) as bar:
        while not pace.is_finished:
            epoch = pace.epoch
            part = _take_steps(job, trainer, loader, pace, bar, partial)
            partial = part if pace.epochs_done == epoch else None
            if partial is None and group.is_main:
                rows.append(_row(job, pace, epoch, part))
            if not pace.is_saving_due():
                continue
            with pace.saving():
                if not group.is_main:
                    continue
                job = replace(job, run=pace.recorded(job.run))
                _save(job, trainer, rows, pace, part, before_first)
                before_first = None
                draw = pace.is_finished or time.monotonic() - drawn > REDRAW_AFTER_S
                job = replace(job, run=write_run(job, rows, pace.epochs_done, draw=draw))
                drawn = time.monotonic() if draw else drawn
    inside = sum(float(row["seconds"]) for row in rows[started:]) - earlier_s
    between = max(0.0, 1 - inside / max(time.monotonic() - begin, 1e-9))
    job.log(
        f"Trained {job.run.length} in {duration(job.run.seconds)}, {job.run.waiting_share:.1%} of it waiting for data. "
        f"This run spent {between:.1%} of its time between epochs (checkpoints, curves).{pace.report()}",
        group,
    )


def _save(
    job: TrainingJob,
    trainer: Trainer,
    rows: Sequence[dict[str, Any]],
    pace: Pace,
    part: PartialEpoch,
    before_first: Callable[[], None] | None,
) -> None:
    """Write rows and checkpoint. With ``before_first`` they replace an earlier training in a single moment."""

    def write_rows() -> None:
        if before_first is not None:
            before_first()
        if rows:
            epoch_log.write_epochs(job.folder.epochs, rows)
        else:
            job.folder.epochs.unlink(missing_ok=True)

    if before_first is None:
        write_rows()
    checkpoint.save(
        job.folder.checkpoint,
        trainer.network,
        trainer.optimizer,
        pace.epochs_done,
        average=trainer.average,
        schedule=job.run.schedule,
        partial=part if len(part.losses) < pace.steps_per_epoch else None,
        before_move=None if before_first is None else write_rows,
    )


def _take_steps(
    job: TrainingJob,
    trainer: Trainer,
    loader: Loader,
    pace: Pace,
    bar: progress.StepBar,
    before: PartialEpoch | None,
) -> PartialEpoch:
    """Take steps after those of ``before`` until the epoch or the training ends, or must be saved. Return all."""
    epoch, steps = pace.epoch, pace.steps_per_epoch
    check_every = CHECK_EVERY if trainer.setup.device == "cpu" else steps
    before = before or PartialEpoch(losses=torch.empty(0), seconds=0.0, waited=0.0)
    earlier, losses = before.losses.to(trainer.setup.device), list[torch.Tensor]()
    watch = progress.Stopwatch(seconds=before.seconds, waited=before.waited)
    values = earlier
    for batch in watch.over(loader.epoch(epoch, pace.taken % steps)):
        trainer.set_learning_rate(pace.learning_rate())
        losses.append(trainer.step(batch))
        pace.count_step(losses[-1].item)
        bar.update(pace.steps)
        must_stop = pace.is_finished or pace.must_save
        if len(losses) % check_every == 0 or must_stop or pace.taken % steps == 0:
            values = _finite_losses(earlier, losses, job, trainer.group, epoch)
            mean = float(values.mean())
            bar.set_message(f"epoch {epoch + 1}, loss {mean:.3g}, waiting for data {watch.waiting_share():.0%}")
        if must_stop and pace.taken % steps:  # an epoch that is taken to its end lets the loader read ahead
            break
    if not trainer.is_finite():
        raise _not_finite("a weight is", job, epoch, len(values) - 1)
    return PartialEpoch(losses=values, seconds=watch.seconds(), waited=watch.waited())


def _row(job: TrainingJob, pace: Pace, epoch: int, part: PartialEpoch) -> dict[str, Any]:
    """Return the row of an epoch in ``epochs.csv``."""
    slices = len(part.losses) * job.run.recipe.batch_size
    return {
        "epoch": epoch,
        "loss": f"{float(part.losses.mean()):.6g}",
        "learning_rate": f"{pace.learning_rate(pace.taken - 1):.3g}",
        "seconds": f"{part.seconds:.3f}",
        "waiting_share": f"{part.waited / part.seconds:.4f}",
        "slices_per_s": f"{slices / part.seconds:.2f}",
    }


def _finite_losses(
    earlier: torch.Tensor, losses: Sequence[torch.Tensor], job: TrainingJob, group: TorchProcessGroup, epoch: int
) -> torch.Tensor:
    """Return the losses of an epoch so far, averaged over the group.

    Raises:
        DvtError: naming the first batch whose loss is not finite, and its slices.
    """
    values = torch.cat([earlier, group.mean(torch.stack(list(losses)))])
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return values
    raise _not_finite("the loss is", job, epoch, int(torch.nonzero(~finite)[0]))


def _not_finite(what: str, job: TrainingJob, epoch: int, step: int) -> DvtError:
    numbers = replace(job.sampler, rank=0, world=1).order(epoch)[0][step]
    kept = "The last good checkpoint is kept." if job.folder.checkpoint.exists() else "There is no checkpoint yet."
    return DvtError(
        f"{job.folder.path}: {what} not finite in epoch {epoch + 1}, batch {step + 1} "
        f"({'; '.join(job.slices.name(int(n)) for n in numbers)}). {kept} Check these slices, or train again with a "
        "lower `learning_rate` or with `precision='fp32'`."
    )
