"""Network, optimizer and step; the epoch loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration, plural
from dvtplan.data.paths import FoldFolder
from dvtplan.models import checkpoint, devices, epoch_log
from dvtplan.models.devices import DeviceConfig, Forward
from dvtplan.models.networks.registry import build, outputs_of
from dvtplan.training import progress
from dvtplan.training.augmentation import Augmentation
from dvtplan.training.data_loading import Batch, Loader
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingJob, write_run
from dvtplan.training.losses import loss_function

CHECK_EVERY = 50
"""Steps between checks of the loss on a CPU. An accelerator is checked once an epoch, because each check makes the
host wait for it."""
REDRAW_AFTER_S = 30.0
"""Seconds between two drawings of the learning curve."""


class Trainer:
    """A network with its optimizer, loss and augmentation, on a device and in a process group."""

    def __init__(self, job: TrainingJob, setup: DeviceConfig, group: TorchProcessGroup) -> None:
        run, recipe = job.run, job.run.recipe
        torch.manual_seed(recipe.seed)
        outputs = outputs_of(len(run.classes))
        network = build(run.network, run.channels, outputs, width=recipe.width, norm_groups=recipe.norm_groups)
        self.setup, self.group = setup, group
        self.network = setup.place(network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=recipe.learning_rate,
            betas=(recipe.beta1, 0.999),
            fused=not setup.device.startswith("mps"),
        )
        self._recipe, self._loss = recipe, loss_function(recipe.loss)
        self._augment = Augmentation(job.plan, setup.device)
        self._forward: Forward = self.network  # later compiled, then shared by the group

    def restore(self, folder: FoldFolder) -> int:
        """Restore the last finished epoch. Return the number of finished epochs."""
        return checkpoint.restore(folder.checkpoint, self.network, self.optimizer)

    def loss(self, batch: Batch, forward: Forward | None = None) -> torch.Tensor:
        """Augment a batch, run the network, or ``forward`` in its place, and return the loss."""
        image, label = self._augment(*batch)
        with self.setup.autocast():
            logits = (self._forward if forward is None else forward)(
                image.contiguous(memory_format=self.setup.memory_format)
            )
        return self._loss(logits, label, self._recipe)

    def step(self, batch: Batch) -> torch.Tensor:
        """Take one step of Adam. Return the loss before it, on the device."""
        self.optimizer.zero_grad(set_to_none=True)  # before the forward pass, as in tuning._step_seconds
        loss = self.loss(batch)
        loss.backward()
        self.optimizer.step()
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
    job: TrainingJob, trainer: Trainer, loader: Loader, done: int, *, before_first: Callable[[], None] | None = None
) -> None:
    """Run the remaining epochs. Write the row, the checkpoint and ``run.json`` after each.

    Args:
        job: what to train.
        trainer: with the weights of ``done`` epochs.
        loader: source of batches.
        done: number of finished epochs.
        before_first: called in the main process once the first checkpoint is on disk, before it and its row replace
            those of an earlier training.

    Raises:
        DvtError: if a loss or a weight is not finite.
    """
    recipe, steps, group = job.run.recipe, job.sampler.steps, trainer.group
    rows = epoch_log.read_epochs(job.folder.epochs, before=done)
    run, begin = job.run, time.monotonic()
    drawn = begin
    title = f"Train fold {run.fold}"
    with progress.StepBar(title, total=recipe.epochs * steps, done=done * steps, shown=group.is_main) as bar:
        for epoch in range(done, recipe.epochs):
            trainer.set_learning_rate(recipe.learning_rate_at(epoch))
            row = _run_epoch(job, trainer, loader, epoch, bar)
            if not group.is_main:
                continue
            rows.append(row)
            _save_epoch(job, trainer, rows, epoch + 1, before_first if epoch == done else None)
            draw = epoch + 1 == recipe.epochs or time.monotonic() - drawn > REDRAW_AFTER_S
            run = write_run(job, rows, epoch + 1, draw=draw)
            drawn = time.monotonic() if draw else drawn
    inside = sum(float(row["seconds"]) for row in rows[done:])
    between = max(0.0, 1 - inside / max(time.monotonic() - begin, 1e-9))
    job.log(
        f"Trained {plural(recipe.epochs, 'epoch')} in {duration(run.seconds)}, {run.waiting_share:.1%} of it waiting "
        f"for data. This run spent {between:.1%} of its time between epochs (checkpoints, curves).",
        group,
    )


def _save_epoch(
    job: TrainingJob,
    trainer: Trainer,
    rows: Sequence[dict[str, Any]],
    done: int,
    before_first: Callable[[], None] | None,
) -> None:
    """Write rows and checkpoint. With ``before_first`` they replace an earlier training in a single moment."""
    if before_first is None:
        epoch_log.write_epochs(job.folder.epochs, rows)
        checkpoint.save(job.folder.checkpoint, trainer.network, trainer.optimizer, done)
        return

    def replace_earlier() -> None:
        before_first()
        epoch_log.write_epochs(job.folder.epochs, rows)

    checkpoint.save(job.folder.checkpoint, trainer.network, trainer.optimizer, done, before_move=replace_earlier)


def _run_epoch(job: TrainingJob, trainer: Trainer, loader: Loader, epoch: int, bar: progress.StepBar) -> dict[str, Any]:
    """Take all steps of an epoch. Return its row of ``epochs.csv``."""
    recipe, steps = job.run.recipe, job.sampler.steps
    check_every = CHECK_EVERY if trainer.setup.device == "cpu" else steps
    losses: list[torch.Tensor] = []
    watch, mean = progress.Stopwatch(), float("nan")
    for batch in watch.over(loader.epoch(epoch)):
        losses.append(trainer.step(batch))
        bar.update()
        if len(losses) % check_every == 0 or len(losses) == steps:
            mean = _finite_mean(losses, job, trainer.group, epoch)
            bar.set_message(f"epoch {epoch + 1}, loss {mean:.3g}, waiting for data {watch.waiting_share():.0%}")
    if not trainer.is_finite():
        raise _not_finite("a weight is", job, epoch, steps - 1)
    return {
        "epoch": epoch,
        "loss": f"{mean:.6g}",
        "learning_rate": f"{recipe.learning_rate_at(epoch):.3g}",
        "seconds": f"{watch.seconds():.3f}",
        "waiting_share": f"{watch.waiting_share():.4f}",
        "slices_per_s": f"{steps * recipe.batch_size / watch.seconds():.2f}",
    }


def _finite_mean(losses: Sequence[torch.Tensor], job: TrainingJob, group: TorchProcessGroup, epoch: int) -> float:
    """Return the mean loss of an epoch so far, over the group.

    Raises:
        DvtError: naming the first batch whose loss is not finite, and its slices.
    """
    values = group.mean(torch.stack(list(losses)))
    finite = torch.isfinite(values)
    if bool(finite.all()):
        return float(values.mean())
    raise _not_finite("the loss is", job, epoch, int(torch.nonzero(~finite)[0]))


def _not_finite(what: str, job: TrainingJob, epoch: int, step: int) -> DvtError:
    numbers = replace(job.sampler, rank=0, world=1).order(epoch)[0][step]
    kept = f"The last good checkpoint, of epoch {epoch}, is kept." if epoch else "No epoch was finished."
    return DvtError(
        f"{job.folder.path}: {what} not finite in epoch {epoch + 1}, batch {step + 1} "
        f"({'; '.join(job.slices.name(int(n)) for n in numbers)}). {kept} Check these slices, or train again with a "
        "lower `learning_rate` or with `precision='fp32'`."
    )
