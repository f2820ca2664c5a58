"""Rank and world size from torchrun's environment, without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from dvtplan.core.errors import DvtError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that share a task: here a single one; ``training.distributed`` has the group of several.

    The methods are collective: every process must call them in the same order.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part of a list."""
        return items[self.rank :: self.world]

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all processes, in every process."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value, in every process."""
        return value

    def gather_shards(self, mine: Sequence[T]) -> list[T]:
        """Return the results of all processes for their shards of a list, in the order of that list."""
        parts = self.all_gather(list(mine))
        return [parts[k % self.world][k // self.world] for k in range(sum(map(len, parts)))]


def under_torchrun() -> bool:
    """Return whether torchrun, or another launcher with its environment, has started this process.

    Other programs set some of the variables, too. Only RANK and WORLD_SIZE together describe a group.
    """
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_child_of_torchrun() -> bool:
    """Return whether torchrun itself has started this process; other launchers set fewer variables."""
    return under_torchrun() and "TORCHELASTIC_RUN_ID" in os.environ


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes.

    Raises:
        DvtError: if the environment describes no group.
    """
    if not under_torchrun():
        return 0, 1
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    if rank >= world:
        raise DvtError(f"RANK={rank}: must be below WORLD_SIZE={world} in the environment. {_UNSET}")
    return rank, world


_UNSET = "Start the processes with torchrun, or unset RANK and WORLD_SIZE."


def _number(name: str, least: int) -> int:
    text = os.environ[name]
    if not text.isascii() or not text.isdecimal() or int(text) < least:
        raise DvtError(f"{name}={text}: expected a whole number from {least} in the environment. {_UNSET}")
    return int(text)


def require_address() -> None:
    """Refuse a group whose processes cannot find each other.

    Raises:
        DvtError: if MASTER_ADDR or MASTER_PORT is missing or invalid.
    """
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if not os.environ.get(name):
            raise DvtError(f"{name}: is missing in the environment, but RANK and WORLD_SIZE are set. {_UNSET}")
    if not 1 <= _number("MASTER_PORT", 0) < 1 << 16:
        raise DvtError(f"MASTER_PORT={os.environ['MASTER_PORT']}: is not the number of a port. {_UNSET}")


def is_main_process() -> bool:
    """Return whether this is the process that continues after the shared work."""
    return rank_and_world_size()[0] == 0


def local_rank() -> int:
    """Return the number of this process among the group's processes on this machine; 0 without a group."""
    if not under_torchrun():
        return 0
    return _number("LOCAL_RANK", 0) if "LOCAL_RANK" in os.environ else rank_and_world_size()[0]


def local_world_size() -> int:
    """Return how many processes of the group share this machine's cores."""
    return _number("LOCAL_WORLD_SIZE", 1) if under_torchrun() and "LOCAL_WORLD_SIZE" in os.environ else 1


def restart_count() -> int:
    """Return how often torchrun has restarted the processes because one of them died."""
    name = "TORCHELASTIC_RESTART_COUNT"
    return _number(name, 0) if under_torchrun() and name in os.environ else 0
