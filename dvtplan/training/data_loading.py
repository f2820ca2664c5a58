"""The batches of an epoch: resident where the slices fit into memory, else streamed by worker processes.

Which slice comes when and in which variant is a pure function of the seed and the epoch. Both
sources follow it, so neither the source, nor the number of workers or ranks, nor a resume can
change what is trained on. The only door to batchgenerators.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from dvtplan.core.errors import DvtError
from dvtplan.planning import preprocessed_cases

DEFAULT_WORKERS = 2
"""Reading processes where slices do not fit into memory; reading, not computing, is all they do."""


OPEN_CASES = 128
"""Cases whose files are kept open; each holds two of the files that a process may have open, often 1024."""


class Batch(NamedTuple):
    """What one rank sees in one step, before augmentation."""

    image_BCHW: torch.Tensor
    """float16, [0, 1]."""
    label_BHW: torch.Tensor
    """uint8 class numbers."""
    variant_B: torch.Tensor
    """Index of each slice's variant in the plan."""


class Loader(Protocol):
    """Where batches come from."""

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """All of this rank's batches of an epoch, in order."""

    def close(self) -> None:
        """Give back processes and memory."""


@dataclass(frozen=True, slots=True)
class SliceSampler:
    """Who sees what when: the order of slices and variants as a function of the epoch."""

    slices: int
    variants: int
    batch_size: int
    """Of all ranks together."""
    seed: int
    lesions: tuple[np.ndarray, ...] = ()
    """For each label, the slices that hold it."""
    oversampling: float = 0.0
    """Share of the places of an epoch that are given to slices of ``lesions``, every label equally often."""
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.slices < 1 or self.batch_size % self.world:
            raise ValueError(f"cannot share batches of {self.batch_size} of {self.slices} slices over {self.world}")

    @property
    def steps(self) -> int:
        """Batches of an epoch."""
        return -(-self.slices // self.batch_size)

    def order(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """Slice and variant numbers of an epoch, (steps, batch_size / world) each.

        Every slice comes once. Where they do not fill the last batch, it is filled from the start
        of the same order, so that all batches are equal and no slice is left out. Oversampling then
        gives places away, at random: it never makes an epoch longer. Rank r of a group takes every
        world-th entry.
        """
        random = np.random.default_rng([self.seed, epoch])
        slices = np.resize(random.permutation(self.slices), self.steps * self.batch_size)
        variants = random.integers(self.variants, size=slices.size)
        if self.oversampling and self.lesions:
            for place in np.flatnonzero(random.random(slices.size) < self.oversampling):
                slices[place] = random.choice(self.lesions[random.integers(len(self.lesions))])
        shape = (self.steps, self.batch_size)
        mine = np.s_[:, self.rank :: self.world]
        return slices.reshape(shape)[mine], variants.reshape(shape)[mine]


class SliceDataset:
    """All slices of some prepared cases under one running number."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        cases = [preprocessed_cases.describe(folder) for folder in self.folders]
        self.counts = [case.slices for case in cases]
        self._classes = [classes for case in cases for classes in case.classes]
        self._ends = np.cumsum(self.counts)
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def lesions(self) -> tuple[np.ndarray, ...]:
        """For each label that occurs, the numbers of the slices that hold it, in the order of the labels."""
        labels = sorted({label for classes in self._classes for label in classes})
        return tuple(np.flatnonzero([label in classes for classes in self._classes]) for label in labels)

    def locate(self, number: int) -> tuple[int, int]:
        """Case position and slice within the case."""
        case = int(np.searchsorted(self._ends, number, side="right"))
        return case, number - int(self._ends[case]) + self.counts[case]

    def name(self, number: int) -> str:
        """'case, slice k', for messages."""
        case, index = self.locate(number)
        return f"{self.folders[case].name}, slice {index}"

    def gather(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images (B, C, H, W) float16 and labels (B, H, W) uint8 of some slices."""
        parts = []
        for number in numbers.tolist():
            case, index = self.locate(number)
            if case not in self._open:
                if len(self._open) == OPEN_CASES:
                    del self._open[next(iter(self._open))]  # the one that was opened first
                self._open[case] = preprocessed_cases.arrays(self.folders[case])
            image, label = self._open[case]
            parts.append((image[index], label[index]))
        return np.stack([image for image, _ in parts]), np.stack([label for _, label in parts])

    def total_bytes(self) -> int:
        """Memory that all slices take."""
        arrays = (preprocessed_cases.arrays(folder) for folder in self.folders)
        return sum(image.nbytes + label.nbytes for image, label in arrays)

    def __getstate__(self) -> dict[str, Any]:
        """Worker processes open the files themselves."""
        return {**self.__dict__, "_open": {}}


class InMemoryLoader:
    """All slices as two tensors on the training device; a batch is an index into them."""

    def __init__(self, slices: SliceDataset, schedule: SliceSampler, device: str) -> None:
        self.schedule = schedule
        image, label = None, None
        start = 0
        for folder in slices.folders:
            one_image, one_label = preprocessed_cases.arrays(folder)
            if image is None or label is None:
                image = torch.empty((len(slices), *one_image.shape[1:]), dtype=torch.float16, device=device)
                label = torch.empty((len(slices), *one_label.shape[1:]), dtype=torch.uint8, device=device)
            stop = start + len(one_label)
            image[start:stop] = torch.from_numpy(np.array(one_image)).to(device)
            label[start:stop] = torch.from_numpy(np.array(one_label)).to(device)
            start = stop
        if image is None or label is None:
            raise ValueError("no slices")
        self._image, self._label = image, label

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The order travels to the device once; no step waits for the host after that."""
        order, variants = (torch.from_numpy(a).to(self._image.device) for a in self.schedule.order(epoch))
        for numbers, variant in zip(order, variants, strict=True):
            yield Batch(self._image[numbers], self._label[numbers], variant)

    def close(self) -> None:
        """Nothing to give back but memory, which goes with the object."""


class _BatchLoader(SlimDataLoaderBase):
    """What each worker process runs: worker k makes the batches k, k + n, k + 2n, ... from an epoch on."""

    def __init__(self, slices: SliceDataset, schedule: SliceSampler, first_epoch: int, workers: int) -> None:
        super().__init__(None, schedule.batch_size // schedule.world, workers)
        self.slices, self.schedule = slices, schedule
        self._parent = os.getpid()
        self._epoch = -1
        self._order: tuple[np.ndarray, np.ndarray] | None = None
        self._step = first_epoch * schedule.steps

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each worker process."""
        self.thread_id = thread_id
        self._step += thread_id
        threading.Thread(target=_end_with, args=(self._parent,), daemon=True).start()

    def generate_train_batch(self) -> dict[str, np.ndarray]:
        epoch, step = divmod(self._step, self.schedule.steps)
        if self._order is None or epoch != self._epoch:
            self._epoch, self._order = epoch, self.schedule.order(epoch)
        self._step += self.number_of_threads_in_multithreaded
        image, label = self.slices.gather(self._order[0][step])
        return {"image": image, "label": label, "variant": self._order[1][step]}


def _end_with(parent: int, every_s: float = 1.0) -> None:
    """A worker whose training was killed waits for room in its queue for ever, unless it looks."""
    while os.getppid() == parent:
        time.sleep(every_s)
    os._exit(1)


class StreamingLoader:
    """Slices read from disk by worker processes, for data sets larger than memory."""

    def __init__(self, slices: SliceDataset, schedule: SliceSampler, device: str, workers: int) -> None:
        self.slices, self.schedule, self.device = slices, schedule, device
        self.workers = max(1, workers)
        self._feeder: MultiThreadedAugmenter | None = None
        self._expected = -1

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Batches in order: the augmenter takes them from its workers in turn.

        The workers read ahead into the next epoch; asking for another one starts them afresh.

        Raises:
            DvtError: if a worker process dies.
        """
        if self._feeder is None or epoch != self._expected:
            self.close()
            loader = _BatchLoader(self.slices, self.schedule, epoch, self.workers)
            self._feeder = MultiThreadedAugmenter(loader, None, self.workers, seeds=list(range(self.workers)))
        self._expected = -1  # an epoch that is left half-way cannot be gone on with
        for _ in range(self.schedule.steps):
            try:
                made = next(self._feeder)
            except RuntimeError as error:
                raise DvtError(
                    "A data worker process died; what it printed stands above, and with nothing there memory ran "
                    "out. Train with fewer --workers, then --resume."
                ) from error
            yield Batch(*(self._send(made[key]) for key in ("image", "label", "variant")))
        self._expected = epoch + 1

    def _send(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.startswith("cuda"):
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def close(self) -> None:
        """End the worker processes."""
        if self._feeder is not None:
            self._feeder._finish()
            self._feeder = None


IN_MEMORY_SHARE = 0.5
"""Of the memory that is free, how much the slices may take before they are streamed instead."""


def open_loader(
    slices: SliceDataset, schedule: SliceSampler, device: str, free_bytes: int | None, workers: int | None
) -> Loader:
    """Resident where the slices fit well into the memory that is free, else streamed.

    Args:
        slices: of the training cases.
        schedule: who sees what when.
        device: where batches are wanted.
        free_bytes: on that device; none if unknown, which counts as enough.
        workers: reading processes; naming any number above 0 forces streaming, 0 forces resident.
    """
    fits = free_bytes is None or slices.total_bytes() <= IN_MEMORY_SHARE * free_bytes
    if workers == 0 or (workers is None and fits):
        return InMemoryLoader(slices, schedule, device)
    return StreamingLoader(slices, schedule, device, workers or DEFAULT_WORKERS)
