"""This process among its equals, and torchrun's environment: without torch, so that a process alone never loads it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Processes that share one piece of work. This one is alone; ``parallel.Group`` is one of several.

    Its methods are met by all processes of a team, in the same order.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def shard(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of a list."""
        return items[self.rank :: self.world]

    def all_gather(self, value: T) -> list[T]:
        """The value of each process, in every process."""
        return [value]

    def broadcast(self, value: Any) -> Any:
        """What the leader holds, in every process."""
        return value

    def gather_shards(self, mine: Sequence[T]) -> list[T]:
        """What all processes made of their shares of one list, in the order of that list."""
        parts = self.all_gather(list(mine))
        return [parts[k % self.world][k // self.world] for k in range(sum(map(len, parts)))]


def under_torchrun() -> bool:
    """Whether a launcher has already started the processes of a team."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and size of its team, as the launcher says."""
    return (int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])) if under_torchrun() else (0, 1)


def is_main_process() -> bool:
    """Whether this process is the only one of its team that should go on after the team's work."""
    return int(os.environ.get("RANK", "0")) == 0


def local_world_size() -> int:
    """How many processes of the team share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if under_torchrun() else 1


def restart_count() -> int:
    """How often the launcher has started these processes again because one of them had died."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) if under_torchrun() else 0
