"""A single process, and torchrun's environment."""

from __future__ import annotations

import pytest

from dvtplan.core import process_group, worker_pool
from dvtplan.core.errors import DvtError
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


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_half_of_the_environment_of_torchrun_is_not_torchrun(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Other programs set RANK too; its process still does everything."""
    monkeypatch.setenv(name, "3")
    assert process_group.is_main_process() and not process_group.under_torchrun()
    assert process_group.local_rank() == 0 and process_group.rank_and_world_size() == (0, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [("RANK", "2"), ("RANK", "-1"), ("RANK", "x"), ("RANK", ""), ("WORLD_SIZE", "0"), ("WORLD_SIZE", "two")],
)
def test_an_impossible_group_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    launched(monkeypatch, **{"WORLD_SIZE": 2, name: value})
    with pytest.raises(DvtError, match=f"^{name}={value}: .*torchrun"):
        process_group.is_main_process()


@pytest.mark.parametrize(("address", "port"), [("", "29500"), ("127.0.0.1", ""), ("127.0.0.1", "99999")])
def test_a_group_without_a_place_to_meet_is_refused(monkeypatch: pytest.MonkeyPatch, address: str, port: str) -> None:
    launched(monkeypatch, WORLD_SIZE=2, MASTER_ADDR=address, MASTER_PORT=port)
    with pytest.raises(DvtError, match=r"^MASTER_"):
        process_group.require_address()


def test_the_local_rank_is_the_rank_unless_the_launcher_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, RANK=5, WORLD_SIZE=8)
    assert process_group.local_rank() == 5
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert process_group.local_rank() == 1


def test_processes_on_one_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = worker_pool.available_cores()
    launched(monkeypatch, WORLD_SIZE=6, LOCAL_WORLD_SIZE=2)
    assert worker_pool.available_cores() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "10000")
    assert worker_pool.available_cores() == 1
