"""A process alone, and what torchrun's environment says of several."""

from __future__ import annotations

import pytest

from dvtplan import team, workers
from dvtplan.team import Team


def launched(monkeypatch: pytest.MonkeyPatch, **variables: object) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, **variables}.items():
        monkeypatch.setenv(name, str(value))


def test_alone_everything_is_ones_own() -> None:
    alone = Team()
    assert alone.leads and alone.share("abc") == "abc"
    assert alone.gather(3) == [3] and alone.from_leader("x") == "x"
    assert alone.together([1, 2, 3]) == [1, 2, 3]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_come_back_in_the_order_of_the_list(count: int, world: int) -> None:
    """Each item in one share; what is made of the shares lies where its item lay."""
    items = list(range(count))
    shares = [Team(rank, world).share(items) for rank in range(world)]
    assert sorted(n for share in shares for n in share) == items

    class Met(Team):
        """One of several that have met."""

        def gather(self, value: object) -> list[object]:  # type: ignore[override]
            assert value == list(shares[self.rank])
            return [list(share) for share in shares]

    for rank in range(world):
        assert Met(rank, world).together(shares[rank]) == items


def test_without_a_launcher_there_is_one_process() -> None:
    assert not team.under_torchrun() and team.restarts() == 0
    assert team.place() == (0, 1) and team.is_first() and team.on_this_machine() == 1


def test_a_launcher_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    launched(monkeypatch, RANK=5, WORLD_SIZE=8, LOCAL_WORLD_SIZE=4, TORCHELASTIC_RESTART_COUNT=0)
    assert team.under_torchrun() and team.place() == (5, 8) and not team.is_first()
    assert team.on_this_machine() == 4 and team.restarts() == 0
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert team.restarts() == 2


def test_a_rank_alone_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs set RANK too."""
    monkeypatch.setenv("RANK", "0")
    assert team.is_first() and not team.under_torchrun()


def test_processes_of_one_machine_divide_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = workers.available_cores()
    launched(monkeypatch, WORLD_SIZE=6, LOCAL_WORLD_SIZE=2)
    assert workers.available_cores() == max(1, alone // 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "10000")
    assert workers.available_cores() == 1
