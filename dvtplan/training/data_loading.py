"""The batches of an epoch: from memory if the slices fit into it, else streamed by worker processes.

The only adapter to batchgenerators.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

from dvtplan.core import child_processes, console, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.planning import preprocessed_cases
from dvtplan.training.sampling import WHOLE_SLICES, Draws, SliceSampler, SliceView

DEFAULT_WORKERS = 2
"""Reading processes if the slices do not fit into memory. They only read, they compute nothing."""
OPEN_CASES = 128
"""Cases whose files stay open. Each uses two of the files that a process may have open, often 1024."""
IN_MEMORY_SHARE = 0.5
"""Share of the free memory that the slices may use; larger data sets are streamed."""
HOST_FIELDS = ("centre", "numbers", "seed")
"""Fields of a batch that stay on the CPU."""


class Batch(NamedTuple):
    """Slices of one rank and one step, before augmentation."""

    image_BCHW: torch.Tensor
    """float16, [0, 1]. With context, the channels of the first neighbour come first. Of a patch: what lies around it,
    too, so that it can be turned."""
    label_BHW: torch.Tensor
    """uint8 class numbers."""
    variant_B: torch.Tensor
    """Index of each slice's variant in the plan."""
    centre_B2: torch.Tensor
    """Row and column of the centre of each patch in its image, float32, on the CPU; no columns for whole slices."""
    numbers_BP: torch.Tensor
    """Uniform numbers from 0 to 1 that decide an augmentation, on the CPU."""
    seed_B: torch.Tensor
    """Seeds of the noise of an augmentation, on the CPU."""


class Loader(Protocol):
    """A source of batches."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield this rank's batches of an epoch from batch number ``first`` on, in order."""

    def close(self) -> None:
        """Release processes and memory."""


class SliceDataset:
    """All slices of some preprocessed cases, numbered consecutively."""

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
        """Return for each label that occurs the numbers of the slices that contain it, in the order of the labels."""
        labels = sorted({label for classes in self._classes for label in classes})
        return tuple(np.flatnonzero([label in classes for classes in self._classes]) for label in labels)

    def locate(self, number: int) -> tuple[int, int]:
        """Return the case's position and the slice within the case."""
        case = int(np.searchsorted(self._ends, number, side="right"))
        return case, number - int(self._ends[case]) + self.counts[case]

    def labels_of_cases(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield for each case the number of its first slice and its labels (S, H, W), in memory."""
        for folder, end, count in zip(self.folders, self._ends.tolist(), self.counts, strict=True):
            yield end - count, np.array(preprocessed_cases.arrays(folder)[1])

    def span(self, number: int) -> tuple[int, int, int]:
        """Return the first slice of the case of a slice, the first of the next case, and the slice within the case."""
        case, index = self.locate(number)
        stop = int(self._ends[case])
        return stop - self.counts[case], stop, index

    def name(self, number: int) -> str:
        """Return 'case, slice k' for messages."""
        case, index = self.locate(number)
        return f"{self.folders[case].name}, slice {index}"

    def gather(
        self, numbers: np.ndarray, view: SliceView = WHOLE_SLICES, corners: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Read images (B, C, H, W) float16 and labels (B, H, W) uint8 of some slices, or of windows at corners."""
        parts = []
        for place, number in enumerate(numbers.tolist()):
            case, index = self.locate(number)
            image, label = self._arrays(case)
            corner = np.zeros(2, int) if corners is None else corners[place]
            seen = view.part(image, index, corner, view.context)
            parts.append((np.concatenate(seen), view.part(label, index, corner, 0)[0]))
        return np.stack([image for image, _ in parts]), np.stack([label for _, label in parts])

    def _arrays(self, case: int) -> tuple[np.ndarray, np.ndarray]:
        if case not in self._open:
            if len(self._open) == OPEN_CASES:
                del self._open[next(iter(self._open))]  # the case opened first
            self._open[case] = preprocessed_cases.arrays(self.folders[case])
        return self._open[case]

    def total_bytes(self) -> int:
        """Return the memory that all slices need."""
        arrays = (preprocessed_cases.arrays(folder) for folder in self.folders)
        return sum(image.nbytes + label.nbytes for image, label in arrays)

    def __getstate__(self) -> dict[str, Any]:
        """Omit open files, because worker processes open the files themselves."""
        return {**self.__dict__, "_open": {}}


class InMemoryLoader:
    """Keep all slices as two tensors on the training device; a batch is an index into them."""

    def __init__(self, slices: SliceDataset, sampler: SliceSampler, device: str) -> None:
        self.sampler = sampler
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
        self._image, self._label, self._slices = image, label, slices

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches. What whole slices need is sent to the device once, so no step waits for the host."""
        draws = self.sampler.draws(epoch)
        order, variants = (torch.from_numpy(a).to(self._image.device) for a in (draws.slices, draws.variants))
        for step in range(first, self.sampler.steps):
            image, label = self._take(order[step], draws, step)
            yield Batch(image, label, variants[step], *map(torch.from_numpy, _on_the_host(draws, step)))

    def _take(self, numbers_B: torch.Tensor, draws: Draws, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        view = self.sampler.view
        if view.is_plain:
            return self._image[numbers_B], self._label[numbers_B]
        images, labels = [], []
        for place, number in enumerate(draws.slices[step].tolist()):
            first, stop, index = self._slices.span(number)
            corner = draws.corners[step, place]
            images.append(torch.cat(view.part(self._image[first:stop], index, corner, view.context)))
            labels.append(view.part(self._label[first:stop], index, corner, 0)[0])
        return torch.stack(images), torch.stack(labels)

    def close(self) -> None:
        """Do nothing: the memory is released with the object."""


def _on_the_host(draws: Draws, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what decides the augmentation of a step: the last three fields of a batch."""
    return draws.centres[step].copy(), draws.numbers[step].copy(), draws.seeds[step].copy()


class _BatchLoader(SlimDataLoaderBase):
    """The loader in each worker process: worker k of n reads the batches k, k + n, k + 2n, ... from a step on."""

    def __init__(self, slices: SliceDataset, sampler: SliceSampler, first_step: int, workers: int) -> None:
        super().__init__(None, sampler.batch_size // sampler.world, workers)
        self.slices, self.sampler = slices, sampler
        self._epoch = -1
        self._draws: Draws | None = None
        self._step = first_step

    def set_thread_id(self, thread_id: int) -> None:
        """Set the worker's number; called once in each worker process."""
        self.thread_id = thread_id
        self._step += thread_id
        child_processes.become_worker()

    def generate_train_batch(self) -> dict[str, np.ndarray]:
        epoch, step = divmod(self._step, self.sampler.steps)
        if self._draws is None or epoch != self._epoch:
            self._epoch, self._draws = epoch, self.sampler.draws(epoch)
        self._step += self.number_of_threads_in_multithreaded
        draws = self._draws
        image, label = self.slices.gather(draws.slices[step], self.sampler.view, draws.corners[step])
        host = dict(zip(HOST_FIELDS, _on_the_host(draws, step), strict=True))
        return {"image": image, "label": label, "variant": draws.variants[step], **host}


class StreamingLoader:
    """Read slices from disk in worker processes, for data sets larger than memory."""

    def __init__(self, slices: SliceDataset, sampler: SliceSampler, device: str, workers: int) -> None:
        self.slices, self.sampler, self.device = slices, sampler, device
        self.workers = max(1, workers)
        self._feeder: SlimDataLoaderBase | MultiThreadedAugmenter | None = None
        self._fault: str | None = None
        self._expected = -1

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches in order: the augmenter takes them from its workers in turn.

        The workers read ahead into the next epoch. If another step is requested, they are restarted.

        Raises:
            DvtError: if a worker process dies.
        """
        step = epoch * self.sampler.steps + first
        if self._feeder is None or step != self._expected:
            self.close()
            self._feeder = self._open_feeder(step)
        self._expected = -1  # an epoch that is abandoned half-way cannot be continued
        for _ in range(self.sampler.steps - first):
            try:
                arrays = next(self._feeder)
            except RuntimeError as error:
                raise DvtError(
                    "A data worker process died. Its error is printed above; if there is none, memory ran out. Train "
                    "with fewer `workers`, and set `resume=True` to continue."
                ) from error
            host = (torch.from_numpy(arrays[key]) for key in HOST_FIELDS)
            yield Batch(*(self._send(arrays[key]) for key in ("image", "label", "variant")), *host)
        self._expected = (epoch + 1) * self.sampler.steps

    def _open_feeder(self, first_step: int) -> SlimDataLoaderBase | MultiThreadedAugmenter:
        """Start the workers; read in this process where worker processes cannot share anything."""
        if self._fault is None:
            self._fault = worker_pool.sharing_fault()
            if self._fault:
                console.warn(f"Cannot start processes that read slices ({self._fault}); this process reads them.")
        if self._fault:
            return _BatchLoader(self.slices, self.sampler, first_step, 1)
        loader = _BatchLoader(self.slices, self.sampler, first_step, self.workers)
        return MultiThreadedAugmenter(loader, None, self.workers, seeds=list(range(self.workers)))

    def _send(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(array)
        if self.device.startswith("cuda"):
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def close(self) -> None:
        """Stop the worker processes."""
        if isinstance(self._feeder, MultiThreadedAugmenter):
            self._feeder._finish()
        self._feeder = None


def open_loader(
    slices: SliceDataset, sampler: SliceSampler, device: str, free_bytes: int | None, workers: int | None
) -> Loader:
    """Open a loader: in memory if the slices fit into half of the free memory, else streaming.

    Args:
        slices: of the training cases.
        sampler: the order of slices and variants.
        device: where the batches are needed.
        free_bytes: on that device; None if unknown, which counts as enough.
        workers: reading processes; a number above 0 forces streaming, 0 forces loading into memory.
    """
    fits = free_bytes is None or slices.total_bytes() <= IN_MEMORY_SHARE * free_bytes
    if workers == 0 or (workers is None and fits):
        return InMemoryLoader(slices, sampler, device)
    return StreamingLoader(slices, sampler, device, workers or DEFAULT_WORKERS)
