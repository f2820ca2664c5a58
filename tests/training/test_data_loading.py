"""The schedule is a pure function; both sources follow it; no worker process outlives its training."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.processes import ended

from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.planning import preprocessed_cases
from dvtplan.training import data_loading
from dvtplan.training.data_loading import (
    Batch,
    InMemoryLoader,
    Loader,
    SliceDataset,
    StreamingLoader,
    open_loader,
)
from dvtplan.training.sampling import SliceSampler


def schedule(**changes: int) -> SliceSampler:
    return SliceSampler(**{"slices": 24, "variants": 12, "batch_size": 4, "seed": 7, **changes})


@pytest.fixture
def slices(toy_once: Workspace) -> SliceDataset:
    """24 slices of 4 cases."""
    return SliceDataset([toy_once.preprocessed_case(f"c{k}") for k in range(4)])


def drain(source: Loader, epochs: list[int]) -> list[Batch]:
    try:
        return [batch for epoch in epochs for batch in source.epoch(epoch)]
    finally:
        source.close()


def assert_equal(a: list[Batch], b: list[Batch]) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for x, y in zip(one, other, strict=True):
            assert x.dtype == y.dtype and torch.equal(x, y)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_begin_at_any_batch(slices: SliceDataset, workers: int) -> None:
    source = open_loader(slices, schedule(), "cpu", None, workers)
    with contextlib.closing(source):
        whole = [*source.epoch(1), *source.epoch(2)]
        for first in (1, 5):
            assert_equal([*source.epoch(1, first), *source.epoch(2)], whole[first:])


# --- the schedule ---------------------------------------------------------------------------------


def test_the_order_is_a_function_of_seed_and_epoch_alone() -> None:
    first = schedule().order(3)
    np.random.seed(99)  # noqa: NPY002 - the global generator, which must not matter
    schedule().order(2)
    again = schedule().order(3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("changes", [{"seed": 8}, {"epoch": 4}])
def test_another_seed_or_epoch_gives_another_order_and_other_variants(changes: dict[str, int]) -> None:
    epoch = changes.pop("epoch", 3)
    for a, b in zip(schedule().order(3), schedule(**changes).order(epoch), strict=True):
        assert not np.array_equal(a, b)


def test_every_slice_comes_once_and_every_variant_exists() -> None:
    numbers, variants = schedule().order(0)
    assert sorted(numbers.ravel()) == list(range(24))
    assert numbers.shape == variants.shape == (6, 4)
    assert set(variants.ravel()) <= set(range(12)) and len(set(variants.ravel())) > 6


@pytest.mark.parametrize(("slices", "batch_size", "steps"), [(25, 4, 7), (24, 4, 6), (3, 8, 1), (1, 1, 1)])
def test_the_last_batch_is_filled_from_the_start_of_the_order(slices: int, batch_size: int, steps: int) -> None:
    plan = schedule(slices=slices, batch_size=batch_size)
    numbers = plan.order(5)[0].ravel()
    assert plan.steps == steps and numbers.size == steps * batch_size
    assert sorted(numbers[:slices]) == list(range(slices))
    assert np.array_equal(numbers[slices:], np.resize(numbers[:slices], numbers.size)[slices:])


@pytest.mark.parametrize("world", [2, 4])
def test_the_ranks_divide_each_batch_among_them(world: int) -> None:
    whole = schedule().order(1)
    for part in (0, 1):
        shares = [schedule(rank=r, world=world).order(1)[part] for r in range(world)]
        assert np.array_equal(np.stack(shares, axis=2).reshape(6, 4), whole[part])


def test_a_batch_that_the_ranks_cannot_share_is_refused() -> None:
    with pytest.raises(ValueError, match="24 slices in batches of 4 among 3"):
        schedule(world=3)


def test_oversampling_gives_every_label_the_same_share() -> None:
    """10 slices of 1000 hold label 1 and 2 hold label 2: each gets a quarter of the places in addition to its own."""
    lesions = (np.arange(10), np.array([500, 501]))
    plan = replace(schedule(slices=1000), lesions=lesions, oversampling=0.5)
    numbers = np.concatenate([plan.order(epoch)[0].ravel() for epoch in range(8)])
    assert plan.steps == schedule(slices=1000).steps
    for label in lesions:
        assert np.isin(numbers, label).mean() == pytest.approx(0.25, abs=0.03)
        seen = [np.count_nonzero(numbers == n) for n in label]
        assert min(seen) > 0.5 * max(seen)
    others = np.setdiff1d(np.arange(1000), np.concatenate(lesions))
    assert np.isin(numbers, others).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("changes", [{"oversampling": 0.0}, {"lesions": ()}])
def test_without_oversampling_or_lesions_every_slice_comes_once(changes: dict[str, Any]) -> None:
    plan = replace(schedule(), **{"lesions": (np.arange(3),), "oversampling": 0.5, **changes})
    assert np.array_equal(plan.order(2), schedule().order(2))


def test_ranks_divide_an_oversampled_batch_too() -> None:
    lesions = (np.array([3]), np.array([5, 6]))
    plan = replace(schedule(), lesions=lesions, oversampling=0.7)
    shares = [replace(plan, rank=r, world=2).order(1)[0] for r in range(2)]
    assert np.array_equal(np.stack(shares, axis=2).reshape(6, 4), plan.order(1)[0])


# --- the slices -----------------------------------------------------------------------------------


def test_a_running_number_names_case_and_slice(slices: SliceDataset) -> None:
    assert len(slices) == 24 and slices.counts == [6, 6, 6, 6]
    assert [slices.name(n) for n in (0, 5, 6, 23)] == [
        "c0, slice 0",
        "c0, slice 5",
        "c1, slice 0",
        "c3, slice 5",
    ]


def test_lesions_are_the_slices_that_hold_a_label(slices: SliceDataset) -> None:
    labels = np.concatenate([np.load(folder / "label.npy") for folder in slices.folders])
    classes = np.unique(labels)[1:]
    assert len(classes) == len(slices.lesions()) > 0
    for number, found in zip(classes, slices.lesions(), strict=True):
        assert np.array_equal(found, np.flatnonzero((labels == number).any(axis=(1, 2))))


def test_gathered_slices_are_those_on_disk(slices: SliceDataset) -> None:
    image, label = slices.gather(np.array([13, 2]))
    assert image.shape == (2, 1, 32, 32) and image.dtype == np.float16 and label.dtype == np.uint8
    c2, c0 = (np.load(slices.folders[k] / "image.npy") for k in (2, 0))
    assert np.array_equal(image[0], c2[1]) and np.array_equal(image[1], c0[2])
    assert np.array_equal(label[1], np.load(slices.folders[0] / "label.npy")[2])


def test_of_many_cases_only_some_stay_open(slices: SliceDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every slice of every case is read, with no more files open than are allowed."""
    monkeypatch.setattr(data_loading, "OPEN_CASES", 2)
    numbers = np.random.default_rng(0).permutation(np.arange(24))
    image, label = slices.gather(numbers)
    assert len(slices._open) == 2
    for place, number in enumerate(numbers):
        case, index = slices.locate(int(number))
        whole_image, whole_label = preprocessed_cases.arrays(slices.folders[case])
        assert np.array_equal(image[place], whole_image[index]) and np.array_equal(label[place], whole_label[index])


def test_total_bytes_is_what_the_arrays_take(slices: SliceDataset) -> None:
    assert slices.total_bytes() == 24 * 32 * 32 * (2 + 1)


# --- the sources ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_resident_and_streamed_give_the_same_batches(slices: SliceDataset, workers: int) -> None:
    """Over two epochs of six and, to leave the workers out of step, of seven batches."""
    for batch_size in (4, 5 if workers == 1 else 7):
        plan = schedule(batch_size=batch_size)
        resident = drain(InMemoryLoader(slices, plan, "cpu"), [0, 1])
        assert len(resident) == 2 * plan.steps
        assert_equal(drain(StreamingLoader(slices, plan, "cpu", workers), [0, 1]), resident)


def test_without_shared_semaphores_this_process_reads(slices: SliceDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /dev/shm is missing or read-only."""
    plan = schedule()
    resident = drain(InMemoryLoader(slices, plan, "cpu"), [0, 2, 3])
    monkeypatch.setattr("dvtplan.core.worker_pool.sharing_fault", lambda: "Read-only file system")
    assert_equal(drain(StreamingLoader(slices, plan, "cpu", 2), [0, 2, 3]), resident)


def test_streaming_may_begin_at_any_epoch_and_jump(slices: SliceDataset) -> None:
    plan = schedule()
    resident = drain(InMemoryLoader(slices, plan, "cpu"), [5, 3, 3, 4])
    assert_equal(drain(StreamingLoader(slices, plan, "cpu", 2), [5, 3, 3, 4]), resident)


def test_an_epoch_left_half_way_starts_afresh(slices: SliceDataset) -> None:
    plan = schedule()
    source = StreamingLoader(slices, plan, "cpu", 2)
    next(source.epoch(0))
    assert_equal(drain(source, [0]), drain(InMemoryLoader(slices, plan, "cpu"), [0]))


def test_each_rank_streams_its_own_share(slices: SliceDataset) -> None:
    whole = drain(InMemoryLoader(slices, schedule(), "cpu"), [0])
    shares = [drain(StreamingLoader(slices, schedule(rank=r, world=2), "cpu", 1), [0]) for r in (0, 1)]
    for step, batch in enumerate(whole):
        for rank in (0, 1):
            assert torch.equal(shares[rank][step].image_BCHW, batch.image_BCHW[rank::2])


def test_batches_change_nothing_on_disk_when_written_to(slices: SliceDataset) -> None:
    before = slices.gather(np.arange(24))[0].copy()
    for source in (InMemoryLoader(slices, schedule(), "cpu"), StreamingLoader(slices, schedule(), "cpu", 1)):
        for batch in drain(source, [0]):
            batch.image_BCHW.fill_(9)
    assert np.array_equal(slices.gather(np.arange(24))[0], before)


@pytest.mark.parametrize(
    ("free_bytes", "workers", "kind"),
    [
        (None, None, InMemoryLoader),
        (10**9, None, InMemoryLoader),
        (2 * 24 * 32 * 32 * 3, None, InMemoryLoader),
        (2 * 24 * 32 * 32 * 3 - 2, None, StreamingLoader),
        (10**9, 1, StreamingLoader),
        (0, 0, InMemoryLoader),
    ],
)
def test_slices_stay_in_memory_while_they_take_half_of_it_unless_set(
    slices: SliceDataset, free_bytes: int | None, workers: int | None, kind: type
) -> None:
    source = open_loader(slices, schedule(), "cpu", free_bytes, workers)
    assert isinstance(source, kind)
    source.close()


# --- worker processes -----------------------------------------------------------------------------


def test_workers_end_when_the_source_closes(slices: SliceDataset) -> None:
    source = StreamingLoader(slices, schedule(), "cpu", 2)
    next(source.epoch(0))
    workers = [child.pid for child in multiprocessing.active_children()]
    assert len(workers) == 2
    source.close()
    assert all(ended(pid, 5) for pid in workers if pid is not None)
    source.close()


# batchgenerators reports a dead worker by an exception in a thread of its own.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_killed_worker_is_one_clear_error(slices: SliceDataset) -> None:
    source = StreamingLoader(slices, schedule(), "cpu", 2)
    batches = (batch for epoch in range(10**6) for batch in source.epoch(epoch))
    next(batches)
    victim = multiprocessing.active_children()[0].pid
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(DvtError, match=r"data worker process died.*`workers`.*`resume=True`") as caught:
        for _ in batches:
            pass
    assert "\n" not in str(caught.value)
    source.close()
    assert multiprocessing.active_children() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_cannot_read_ends_the_epoch_with_the_error(
    toy: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    slices = SliceDataset([toy.preprocessed_case("c0")])
    (toy.preprocessed_case("c0") / "image.npy").write_bytes(b"damaged")
    with pytest.raises(DvtError, match="data worker process died"):
        drain(StreamingLoader(slices, schedule(slices=6, batch_size=2), "cpu", 1), [0])
    assert "slices cannot be read" in capfd.readouterr().out


TRAINING = """
import multiprocessing, sys, time
from pathlib import Path
from dvtplan.training.data_loading import SliceDataset, StreamingLoader
from dvtplan.training.sampling import SliceSampler
sampler = SliceSampler(slices=6, variants=1, batch_size=2, seed=0)
source = StreamingLoader(SliceDataset([Path(sys.argv[1])]), sampler, "cpu", 2)
next(source.epoch(0))
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(600)
"""


def test_workers_end_when_the_training_is_killed(toy_once: Workspace) -> None:
    """They stand before full queues, and look once a second whether their training still lives."""
    training = subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(toy_once.preprocessed_case("c0"))], stdout=subprocess.PIPE, text=True
    )
    try:
        assert training.stdout is not None
        workers = [int(pid) for pid in training.stdout.readline().split()]
        assert len(workers) == 2
    finally:
        training.kill()
        training.wait()
    # One look, and ample time on a busy machine.
    assert all(ended(pid, 10) for pid in workers)
