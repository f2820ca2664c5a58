"""Data-parallel processes: the only adapter to torch.distributed.

A single process is a group of one, so that no other module needs to distinguish the two cases.
"""

from __future__ import annotations

import contextlib
import contextvars
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from dvtplan.core import child_processes, console
from dvtplan.core.errors import DvtError
from dvtplan.core.process_group import (
    ProcessGroup,
    T,
    local_rank,
    rank_and_world_size,
    require_address,
    restart_count,
    under_torchrun,
)

TIMEOUT = timedelta(minutes=30)
LONGEST_TRACE = 8000
"""Most characters of a traceback that a process reports; more could fill the pipe."""


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


_ALONE = contextvars.ContextVar("alone", default=False)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Compute losses of this process only: for trials, in which the other processes take no part."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Add a tensor over the processes of the group, if there is one. Gradients reach every process."""
    if _ALONE.get() or not distributed.is_initialized():
        return value
    summed: torch.Tensor = _SumOverProcesses.apply(value)
    return summed


class _SumOverProcesses(torch.autograd.Function):
    """Add a tensor over the processes. Each process's loss depends on the sum, so the gradients are added, too."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> torch.Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone()
        distributed.all_reduce(total)
        return total


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
    if device in ("auto", "cuda") and under_torchrun() and torch.cuda.is_available():
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
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
    require_address()
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
    ends all of them and is raised here. An exception or an interrupt in this process ends them too.

    Raises:
        DvtError: as the function does, or if a process was killed.
        RuntimeError: if the function has a bug; with its traceback.
    """
    if processes <= 1 or under_torchrun():
        function(*arguments)
        return
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    members: list[_Member] = []
    try:
        with child_processes.startable_main():
            for rank in range(processes):
                receiver, sender = context.Pipe(duplex=False)
                place = (rank, processes, port, sender, console.settings(), function, arguments)
                process = context.Process(target=_run_in_group, args=place, daemon=False)
                members.append(_Member(process, receiver))
                process.start()
                sender.close()
        _wait_for_all(members)
    finally:
        child_processes.end_children([member.process for member in members if member.process.pid is not None])


@dataclass(frozen=True, slots=True)
class _Member:
    """A process of a group, seen from the one that started it."""

    process: BaseProcess
    messages: Connection
    """Yields the DvtError's message and the traceback of an exception."""

    def message(self) -> tuple[str, str]:
        """Return message and traceback of the exception that ended this process; empty if there are none."""
        try:
            message, trace = self.messages.recv() if self.messages.poll() else ("", "")
        except (EOFError, OSError):
            return "", ""
        return message, trace


def _wait_for_all(members: Sequence[_Member]) -> None:
    """Wait until all processes have ended; at the first failure end the others and raise the reason."""
    processes = [member.process for member in members]
    while running := [process for process in processes if process.is_alive()]:
        if any(process.exitcode for process in processes):
            break
        wait([process.sentinel for process in running])
    failed = [index for index, process in enumerate(processes) if process.exitcode]
    if not failed:
        return
    # The first failure makes others fail, because they communicate.
    index = next((k for k in failed if (processes[k].exitcode or 0) < 0), failed[0])
    child_processes.end_children(processes)
    reports = [member.message() for member in members]
    if message := next((message for message, _ in reports if message), ""):
        raise DvtError(message)
    where, status = f"Process {index + 1} of {len(processes)}", processes[index].exitcode or 0
    if status < 0:
        raise DvtError(
            f"{where} was killed ({signal.Signals(-status).name}). Most often memory ran out: use a smaller "
            "`batch_size` or fewer `workers`."
        )
    if trace := reports[index][1] or next((trace for _, trace in reports if trace), ""):
        raise RuntimeError(f"{where} failed.\n{trace}")
    raise DvtError(f"{where} ended with status {status}. Its error is printed above.")


def _run_in_group(
    rank: int,
    world: int,
    port: int,
    messages: Connection,
    settings: Any,
    function: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent ends this one
    child_processes.end_with_parent()
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
        with child_processes.ends_in_order():
            function(*arguments)
    except KeyboardInterrupt:
        sys.exit(child_processes.exit_status())
    except Exception as error:
        messages.send((str(error) if isinstance(error, DvtError) else "", traceback.format_exc()[-LONGEST_TRACE:]))
        sys.exit(1)


def run_commands(commands: Sequence[Sequence[str]], slots: Sequence[Sequence[str]]) -> list[int]:
    """Run commands in parallel, one per slot at a time. Append the words of its slot to each command.

    If this process is interrupted, the commands are ended.

    Returns:
        The exit status of each command, in order.
    """
    waiting = list(enumerate(commands))
    running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
    status = [0] * len(commands)
    try:
        while waiting or running:
            for slot, words in enumerate(slots):
                if slot in running and running[slot][1].poll() is not None:
                    index, process = running.pop(slot)
                    status[index] = process.returncode
                if slot not in running and waiting:
                    index, command = waiting.pop(0)
                    running[slot] = (index, subprocess.Popen([*command, *words]))
            time.sleep(0.05)
    finally:
        child_processes.end_children([process for _, process in running.values()])
    return status
