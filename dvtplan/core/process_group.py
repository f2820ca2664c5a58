"""Rank and world size from torchrun's environment, without torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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
    """Return whether torchrun has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank_and_world_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if under_torchrun() else (0, 1)


def is_main_process() -> bool:
    """Return whether this is the process that continues after the shared work."""
    return int(os.environ.get("RANK", "0")) == 0


def local_world_size() -> int:
    """Return how many processes of the group share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun() else 1


def restart_count() -> int:
    """Return how often torchrun has restarted the processes because one of them died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if under_torchrun() else 0
