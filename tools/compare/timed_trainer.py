"""nnU-Net's commands with a trainer that has a time budget.

This runs in nnU-Net's environment, which has no dvtplan:

    python -P timed_trainer.py train 1 2d 0 -device cpu
    python -P timed_trainer.py predict -d 1 -c 2d -f 0 -i IMAGES -o MASKS -device cpu
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.run import run_training
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

PARTS = 20
"""Mean losses in the record."""


class DvtTimedTrainer(nnUNetTrainer):
    """nnU-Net's training, with the learning rate a polynomial of the time instead of the epoch.

    There are no epochs. So no time is spent on validation, progress plots, and the checkpoint that nnU-Net's validation
    would choose. The time includes the preparation, as in dvt_train. The last step starts only if it can end in time.
    """

    def run_training(self) -> None:
        """Train for DVT_COMPARE_SECONDS; write the checkpoint, and what was done to DVT_COMPARE_RECORD."""
        begin = time.perf_counter()
        self.on_train_start()
        self.network.train()
        start = time.perf_counter()
        budget = float(os.environ["DVT_COMPARE_SECONDS"]) - (start - begin)
        steps, elapsed, rate, losses = 0, 0.0, self.initial_lr, []
        while steps == 0 or elapsed * (1 + 1 / steps) <= budget:
            rate = self.initial_lr * (1 - elapsed / budget) ** 0.9 if steps else self.initial_lr
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            losses.append(float(self.train_step(next(self.dataloader_train))["loss"]))
            steps += 1
            elapsed = time.perf_counter() - start
        self.on_train_end()
        record = {
            "training_s": elapsed,
            "preparation_s": start - begin,
            "steps": steps,
            "batch_size": self.batch_size,
            "parameters": sum(parameter.numel() for parameter in self.network.parameters()),
            "last_rate": rate,
            "losses": [sum(part) / len(part) for part in _parts(losses)],
        }
        Path(os.environ["DVT_COMPARE_RECORD"]).write_text(json.dumps(record, indent=1), encoding="utf-8")

    def _set_batch_size_and_oversample(self) -> None:
        """Use the batch size DVT_COMPARE_BATCH instead of that of the plan, which is meant for a GPU."""
        super()._set_batch_size_and_oversample()
        self.batch_size = int(os.environ["DVT_COMPARE_BATCH"])

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Do nothing: the test patients are predicted, and scored, by commands of their own."""


def _parts(losses: list[float]) -> list[list[float]]:
    """Divide the losses into at most ``PARTS`` parts, so that the record shows whether the training converged."""
    size = -(-len(losses) // PARTS)
    return [losses[start : start + size] for start in range(0, len(losses), size)]


def main(words: list[str]) -> None:
    """Run nnU-Net's command for training or prediction with this trainer."""
    command, *options = words
    # nnU-Net finds a trainer by its name, for which it imports all of its trainers and the packages that they need.
    for module in (run_training, predict_from_raw_data):
        module.recursive_find_trainer_class_by_name = _trainer
    sys.argv = [command, *options, "-tr", DvtTimedTrainer.__name__]
    {"train": run_training.run_training_entry, "predict": predict_from_raw_data.predict_entry_point}[command]()


def _trainer(_: str) -> type[nnUNetTrainer]:
    """Return the trainer, and limit the threads: before, nnU-Net's commands have chosen all cores."""
    torch.set_num_threads(int(os.environ["DVT_COMPARE_THREADS"]))
    return DvtTimedTrainer


if __name__ == "__main__":
    main(sys.argv[1:])
