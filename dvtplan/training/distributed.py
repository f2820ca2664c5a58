"""Data-parallel processes: the only adapter to torch.distributed.

A single process is a group of one, so that no other module needs to distinguish the two cases.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch.multiprocessing
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dvtplan.core import console
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import ProcessGroup, T, rank_and_world_size, restart_count, under_torchrun

TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True, slots=True)
class TorchProcessGroup(ProcessGroup):
    """A process group that communicates by torch.distributed if it has several processes."""

    connected: bool = False
    """Whether torch.distributed is used; a single process does not need it."""

    def wrap(self, network: nn.Module, device: str) -> nn.Module:
        """Return a network, compiled or not, whose gradients are averaged over the group."""
        if not self.connected:
            return network
        for weight in network.parameters():
            if 1 in weight.shape and weight.dim() > 1:
                weight.register_hook(partial(_with_strides_of, weight))
        ids = [torch.device(device)] if device.startswith("cuda") else None
        return DistributedDataParallel(network, device_ids=ids)

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Average a tensor over the group."""
        if not self.connected:
            return value
        value = value.clone()
        distributed.all_reduce(value)
        return value / self.world

    def all_gather(self, value: T) -> list[T]:
        """Return the value of each process, in every process."""
        if not self.connected:
            return [value]
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the value of the main process, in every process."""
        if not self.connected:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


def _with_strides_of(weight: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Give a gradient the strides of its weight; the values stay.

    Along an axis of length 1 any stride describes the same memory, and autograd does not align them. But
    DistributedDataParallel compares strides literally and warns.
    """
    if gradient.stride() == weight.stride():
        return gradient
    return torch.empty_like(weight, dtype=gradient.dtype).copy_(gradient)


def local_device(device: str) -> str:
    """Return the device of this process: under a launcher, a CUDA process uses the GPU of its local rank."""
    if device in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    return device


@contextlib.contextmanager
def process_group(device: str, *, alone_too: bool = False) -> Iterator[TorchProcessGroup]:
    """Join the group that the environment describes, or make a group of one.

    Args:
        device: of this process; CUDA devices communicate by NCCL, others by Gloo.
        alone_too: use torch.distributed even if the launcher started only one process, to test it on one GPU.
    """
    if rank_and_world_size()[1] == 1 and not (alone_too and under_torchrun()):
        yield TorchProcessGroup()
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    # The launcher's store survives a restart of the processes. The prefix hides the addresses of dead processes.
    store, rank, world = next(distributed.rendezvous("env://", timeout=TIMEOUT))
    store = distributed.PrefixStore(f"restart_{restart_count()}", store)
    backend, own = ("nccl", torch.device(device)) if cuda else ("gloo", None)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT, device_id=own)
    try:
        yield TorchProcessGroup(distributed.get_rank(), distributed.get_world_size(), connected=True)
        distributed.barrier()  # a process that leaves early may end the others
    finally:
        distributed.destroy_process_group()


def launch(function: Callable[..., None], processes: int, *arguments: Any) -> None:
    """Run a function in several processes on this machine, or in this process if ``processes`` is 1.

    Under torchrun the processes already exist, so the function runs in this process. An exception in any process
    ends all of them and is raised here.

    Raises:
        DvtError: as the function does, or if a process was killed.
    """
    if processes <= 1 or under_torchrun():
        function(*arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    messages = torch.multiprocessing.get_context("spawn").SimpleQueue()
    try:
        torch.multiprocessing.spawn(
            _run_in_group, (processes, port, messages, console.settings(), function, arguments), nprocs=processes
        )
    except (
        torch.multiprocessing.ProcessRaisedException,
        torch.multiprocessing.ProcessExitedException,
    ) as error:
        if not messages.empty():
            raise DvtError(messages.get()) from None
        if isinstance(error, torch.multiprocessing.ProcessRaisedException):
            raise
        raise DvtError(
            f"Process {error.error_index + 1} of {processes} was killed ({error.msg}). Most often memory ran out: use "
            "a smaller `batch_size` or fewer `workers`."
        ) from None


def _run_in_group(
    rank: int,
    world: int,
    port: int,
    messages: Any,
    settings: Any,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    console.restore(settings)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(max(1, torch.get_num_threads() // world))
    try:
        function(*arguments)
    except DvtError as error:
        messages.put(str(error))
        raise


def run_commands(commands: Sequence[Sequence[str]], slots: Sequence[Sequence[str]]) -> list[int]:
    """Run commands in parallel, one per slot at a time. Append the words of its slot to each command.

    Returns:
        The exit status of each command, in order.
    """
    waiting = list(enumerate(commands))
    running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
    status = [0] * len(commands)
    while waiting or running:
        for slot, words in enumerate(slots):
            if slot in running and running[slot][1].poll() is not None:
                index, process = running.pop(slot)
                status[index] = process.returncode
            if slot not in running and waiting:
                index, command = waiting.pop(0)
                running[slot] = (index, subprocess.Popen([*command, *words]))
        time.sleep(0.05)
    return status
