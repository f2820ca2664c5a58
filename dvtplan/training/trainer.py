"""Network, optimizer, step; the epoch loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.core.text import duration, plural
from dvtplan.data.paths import FoldFolder
from dvtplan.models import checkpoint, epoch_log
from dvtplan.models.devices import DeviceConfig, Forward
from dvtplan.models.networks.registry import build, outputs_of
from dvtplan.models.training_run import Run
from dvtplan.training import augmentation, progress
from dvtplan.training.data_loading import Batch, Loader
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingJob, run_record
from dvtplan.training.losses import focal

CHECK_EVERY = 50
"""Steps between looks at the loss on a CPU. An accelerator is looked at once an epoch: at each look it waits for the
host."""
REDRAW_AFTER_S = 30.0
"""Time between two drawings of the learning curve."""


class Trainer:
    """A network with its optimizer, placed on a device and in a group."""

    def __init__(self, run: Run, setup: DeviceConfig, group: TorchProcessGroup) -> None:
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
        image, label = augmentation.apply(batch.image_BCHW, batch.label_BHW, matrices_V23[batch.variant_B])
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


def fit(job: TrainingJob, trainee: Trainer, source: Loader, done: int) -> None:
    """Run the epochs that are left; after each, its row, its checkpoint and its place in ``run.json``."""
    recipe, steps, group = job.run.recipe, job.schedule.steps, trainee.group
    matrices_V23 = augmentation.matrices(job.plan.variants, job.plan.target_shape).to(trainee.setup.device)
    rows = epoch_log.read_epochs(job.folder.epochs, before=done)
    run, begin = job.run, time.monotonic()
    drawn = begin
    check_every = CHECK_EVERY if trainee.setup.device == "cpu" else steps
    bar = progress.StepBar(
        f"Train fold {run.fold}", total=recipe.epochs * steps, done=done * steps, shown=group.is_main
    )
    with bar:
        for epoch in range(done, recipe.epochs):
            rate = recipe.learning_rate_at(epoch)
            trainee.set_learning_rate(rate)
            losses: list[torch.Tensor] = []
            watch, mean = progress.Stopwatch(), float("nan")
            for batch in watch.over(source.epoch(epoch)):
                losses.append(trainee.step(batch, matrices_V23))
                bar.update()
                if len(losses) % check_every == 0 or len(losses) == steps:
                    mean = _finite_mean(losses, job, group, epoch)
                    bar.say(f"epoch {epoch + 1}, loss {mean:.3g}, waiting for data {watch.waiting_share():.0%}")
            if not trainee.is_finite():
                raise _not_finite("a weight is", job, epoch, steps - 1)
            if not group.is_main:
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
            epoch_log.write_epochs(job.folder.epochs, rows)
            checkpoint.save(job.folder.checkpoint, trainee.network, trainee.optimizer, epoch + 1)
            draw = epoch + 1 == recipe.epochs or time.monotonic() - drawn > REDRAW_AFTER_S
            run = run_record(job, rows, epoch + 1, draw=draw)
            drawn = time.monotonic() if draw else drawn
    inside = sum(float(row["seconds"]) for row in rows[done:])
    between = max(0.0, 1 - inside / max(time.monotonic() - begin, 1e-9))
    job.tell(
        f"Trained {plural(recipe.epochs, 'epoch')} in {duration(run.seconds)}; {run.waiting_share:.1%} of it "
        f"went by waiting for data. Between the epochs (checkpoints, curves) went {between:.1%} of this run.",
        group,
    )


def _finite_mean(losses: Sequence[torch.Tensor], job: TrainingJob, group: TorchProcessGroup, epoch: int) -> float:
    """The mean loss of an epoch so far, over the group.

    Raises:
        DvtError: naming the first batch whose loss is not finite, and its cases.
    """
    values = group.mean(torch.stack(list(losses)))
    good = torch.isfinite(values)
    if bool(good.all()):
        return float(values.mean())
    raise _not_finite("the loss is", job, epoch, int(torch.nonzero(~good)[0]))


def _not_finite(what: str, job: TrainingJob, epoch: int, step: int) -> DvtError:
    numbers = replace(job.schedule, rank=0, world=1).order(epoch)[0][step]
    kept = f"The last good checkpoint, of epoch {epoch}, is kept." if epoch else "No epoch was finished."
    return DvtError(
        f"{job.folder.path}: {what} not finite in epoch {epoch + 1}, batch {step + 1} "
        f"({'; '.join(job.slices.name(int(n)) for n in numbers)}). {kept} Look at these slices, or train anew with a "
        "lower --learning-rate or with --precision fp32."
    )
