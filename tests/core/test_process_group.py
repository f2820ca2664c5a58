"""A single process, and torchrun's environment."""

from __future__ import annotations

import pytest

from dvtplan.core import process_group, worker_pool
from dvtplan.core.process_group import ProcessGroup


def launched(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, **variables}.items():
        monkeypatch.setenv(name, str(value))


def test_a_single_process_has_everything() -> None:
    alone = ProcessGroup()
    assert alone.is_main and alone.shard("abc") == "abc"
    assert alone.all_gather(3) == [3] and alone.broadcast("x") == "x"
    assert alone.gather_shards([1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_results_of_shards_are_in_the_order_of_the_list(count: int, world: int) -> None:
    """Each item is in one shard; each result is at the position of its item."""
    items = list(range(count))
    shares = [ProcessGroup(rank, world).shard(items) for rank in range(world)]
    assert sorted(n for share in shares for n in share) == items

    class Met(ProcessGroup):
        """A process group whose members have exchanged their results."""

        def all_gather(self, value: object) -> list[object]:  # type: ignore[override]
            assert value == list(shares[self.rank])
            return [list(share) for share in shares]

    for rank in range(world):
        assert Met(rank, world).gather_shards(shares[rank]) == items


def test_without_torchrun_there_is_one_process() -> None:
    assert not process_group.under_torchrun() and process_group.restart_count() == 0
    assert (
        process_group.rank_and_world_size() == (0, 1)
        and process_group.is_main_process()
        and process_group.local_world_size() == 1
    )


def test_torchrun_sets_rank_and_world_size(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, RANK=5, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4, TORCHELASTIC_RESTART_COUNT=0)
    assert (
        process_group.under_torchrun()
        and process_group.rank_and_world_size() == (5, 8)
        and not process_group.is_main_process()
    )
    assert process_group.local_world_size() == 4 and process_group.restart_count() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert process_group.restart_count() == 2


def test_a_rank_without_world_size_is_not_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs set RANK too."""
    monkeypatch.setenv("RANK", "0")
    assert process_group.is_main_process() and not process_group.under_torchrun()


def test_processes_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = worker_pool.available_cores()
    launched(monkeypatch, WORLD_SIZE=6, LOCAL_WORLD_SIZE=2)
    assert worker_pool.available_cores() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "10000")
    assert worker_pool.available_cores() == 1
