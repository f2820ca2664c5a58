"""Groups of processes: one by itself, and two over Gloo on this machine, also to train a fold."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from helpers.processes import assert_ends_with_descendants
from helpers.refusals import refused
from helpers.trainings import CPU, TINY, load_run, rows

from dvtplan.core import process_group
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import Workspace
from dvtplan.training import distributed, pace, train, tuning
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingOptions, TrainingRequest
from dvtplan.training.pace import Budget
from dvtplan.training.train import train_fold


def put(folder: Path, text: str) -> None:
    """Leave word of a process, by its rank."""
    (folder / os.environ.get("RANK", "alone")).write_text(text)


def meet(folder: Path) -> None:
    """Average and share in a group; each process leaves word of what it got."""
    with distributed.process_group("cpu") as group:
        mean = group.mean(torch.tensor([1.0 + group.rank, 10.0 * group.rank]))
        word = group.broadcast(f"from {group.rank}")
        assert group.all_gather(f"of {group.rank}") == [f"of {rank}" for rank in range(group.world)]
        assert group.gather_shards(group.shard("abcde")) == list("abcde")
        network = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.constant_(network.weight, 2.0)
        shared = group.wrap(network, "cpu")
        shared(torch.full((1, 1), 1.0 + 2 * group.rank)).sum().backward()
        gradient = 0.0 if network.weight.grad is None else float(network.weight.grad)
        put(folder, f"{group.rank} of {group.world}, {mean.tolist()}, {word}, gradient {gradient}")
        assert group.is_main == (group.rank == 0)


def fail_in_the_second(folder: Path) -> None:
    """The second process refuses, while the first is busy."""
    with distributed.process_group("cpu") as group:
        if group.rank == 1:
            raise DvtError("file.nii.gz: is odd. Fix it.")
        time.sleep(60)


def die_in_the_second(folder: Path) -> None:
    """As if the system had ended it for want of memory."""
    with distributed.process_group("cpu") as group:
        if group.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(60)


def test_one_process_is_a_group_of_one(tmp_path: Path) -> None:
    distributed.launch(meet, 1, tmp_path)
    assert (tmp_path / "alone").read_text() == "0 of 1, [1.0, 0.0], from 0, gradient 1.0"
    network = torch.nn.Linear(1, 1)
    assert TorchProcessGroup().wrap(network, "cpu") is network and TorchProcessGroup().is_main


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of torchrun with one process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": probe.getsockname()[1]}
    for name, value in place.items():
        monkeypatch.setenv(name, str(value))


def test_one_process_of_a_launcher_uses_torch_distributed_on_request(launcher: None) -> None:
    """So one GPU can test the code for several."""
    with distributed.process_group("cpu") as group:
        assert not group.connected
    with distributed.process_group("cpu", alone_too=True) as group:
        assert group.connected and torch.distributed.get_backend() == "gloo"
        assert isinstance(group.wrap(torch.nn.Linear(1, 1), "cpu"), torch.nn.parallel.DistributedDataParallel)
        assert torch.equal(group.mean(torch.tensor([3.0])), torch.tensor([3.0]))
        assert group.all_gather("word") == ["word"] and group.broadcast("word") == "word"


class _CanonicalGradient(torch.autograd.Function):
    """Return the weight; its gradient has the strides of the contiguous layout, as compiled kernels return it."""

    @staticmethod
    def forward(ctx: object, weight: torch.Tensor) -> torch.Tensor:
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return gradient.clone(memory_format=torch.contiguous_format)


class _OneChannel(torch.nn.Module):
    """A convolution of one channel in channels-last layout."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = torch.nn.Parameter(torch.ones(8, 1, 3, 3)), torch.nn.Parameter(torch.zeros(8))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(image, _CanonicalGradient.apply(self.weight), self.bias)


def test_gradients_in_a_group_have_the_strides_of_their_weights(launcher: None) -> None:
    """Otherwise DistributedDataParallel warns. The values stay."""
    alone, shared = _OneChannel(), _OneChannel()
    image = torch.rand(2, 1, 8, 8)
    alone(image).sum().backward()
    with distributed.process_group("cpu", alone_too=True) as group:
        group.wrap(shared, "cpu")(image).sum().backward()
    assert alone.weight.grad is not None and shared.weight.grad is not None
    assert alone.weight.grad.stride() != alone.weight.stride()
    assert shared.weight.grad.stride() == shared.weight.stride()
    assert torch.equal(shared.weight.grad, alone.weight.grad)


def test_two_processes_average_and_share(tmp_path: Path) -> None:
    distributed.launch(meet, 2, tmp_path)
    # Values 1 and 2, 0 and 10; gradients 1 and 3.
    for rank in "01":
        assert (tmp_path / rank).read_text() == f"{rank} of 2, [1.5, 5.0], from 0, gradient 2.0"


def test_a_refusal_in_one_process_ends_all_and_arrives_as_its_one_line(tmp_path: Path) -> None:
    with pytest.raises(DvtError) as caught:
        distributed.launch(fail_in_the_second, 2, tmp_path)
    assert str(caught.value) == "file.nii.gz: is odd. Fix it."


def test_a_killed_process_ends_all_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(DvtError, match=r"^Process 2 of 2 was killed .*SIGKILL.*memory") as caught:
        distributed.launch(die_in_the_second, 2, tmp_path)
    assert "\n" not in str(caught.value)


def break_in_the_second(folder: Path) -> None:
    """A bug."""
    if os.environ["RANK"] == "1":
        raise ZeroDivisionError("a bug")
    time.sleep(60)


def test_a_bug_in_one_process_ends_all_and_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"(?s)^Process 2 of 2 failed\..*ZeroDivisionError: a bug"):
        distributed.launch(break_in_the_second, 2, tmp_path)


WAITING_GROUP = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from types import SimpleNamespace
import test_distributed
from dvtplan.training import distributed
if __name__ == "__main__":
    distributed.launch(test_distributed.wait_for_ever, 2, Path(sys.argv[3]))
"""


def wait_for_ever(folder: Path) -> None:
    put(folder, "here")
    time.sleep(60)


def test_a_group_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "group").mkdir()
    (tmp_path / "main.py").write_text(WAITING_GROUP)
    here = Path(__file__).parent
    words = [tmp_path / "main.py", here, here.parent, tmp_path / "group"]
    parent = subprocess.Popen([sys.executable, *map(str, words)])
    while len(list((tmp_path / "group").iterdir())) < 2:
        assert parent.poll() is None
        time.sleep(0.02)
    assert_ends_with_descendants(parent, signal.SIGKILL, -9)


def test_under_a_launcher_the_function_simply_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    distributed.launch(put, 8, tmp_path, "here")
    assert [p.name for p in tmp_path.iterdir()] == ["1"]


@pytest.mark.parametrize(
    ("local_rank", "asked", "device"),
    [("1", "auto", "cuda:1"), ("5", "cuda", "cuda:1"), ("1", "cpu", "cpu"), ("1", "cuda:0", "cuda:0")],
)
def test_processes_of_a_launcher_take_the_gpu_of_their_local_rank(
    monkeypatch: pytest.MonkeyPatch, local_rank: str, asked: str, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert distributed.local_device(asked) == asked
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert distributed.local_device(asked) == asked  # no group
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    assert distributed.local_device(asked) == device


def test_a_queue_of_commands_keeps_its_slots_busy_and_returns_every_status(tmp_path: Path) -> None:
    """Four commands on two slots; each notes its slot, and each waits until its partner has begun."""
    script = (
        "import sys, time; from pathlib import Path\n"
        "folder, me, partner, status, slot = sys.argv[1:]\n"
        "Path(folder, me).write_text(slot)\n"
        "deadline = time.monotonic() + 30\n"
        "while not Path(folder, partner).exists() and time.monotonic() < deadline: time.sleep(0.01)\n"
        "sys.exit(int(status) if Path(folder, partner).exists() else 99)\n"
    )
    pairs = [("a", "b", "0"), ("b", "a", "3"), ("c", "d", "0"), ("d", "c", "7")]
    commands = [[sys.executable, "-c", script, str(tmp_path), *words] for words in pairs]
    assert distributed.run_commands(commands, [["left"], ["right"]]) == [0, 3, 0, 7]
    slots = {name: (tmp_path / name).read_text() for name in "abcd"}
    assert {slots["a"], slots["b"]} == {slots["c"], slots["d"]} == {"left", "right"}


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"loss": "dice_ce"}])
def test_two_processes_take_the_same_steps_as_one(
    prepare_toy: Callable[..., Workspace], tmp_path: Path, changes: dict[str, str]
) -> None:
    """Batch 1 each against batch 2, three steps of Adam at 1e-3.

    The averaged gradient of two is that of the pair up to float32 rounding (3e-7 measured). Adam
    divides by the gradient's size, so where that is near zero rounding may become part of a step:
    a tenth of one is allowed to any weight, and 1e-6 to all but a thousandth of them. More steps
    would sooner or later tip a ReLU from one side to the other, and one norm group leaves no
    gradient that is nothing but rounding, as that of the bias before a group of one channel is.
    The Dice coefficient is that of the batch of both.
    """
    workspace = prepare_toy(tmp_path, cases=2)
    recipe = replace(TINY, epochs=1, norm_groups=1, **changes)  # type: ignore[arg-type]
    weights = []
    for processes in (2, 1):
        options = replace(CPU, processes=processes, overwrite=True)
        folder = train_fold(workspace, 0, recipe=recipe, options=options)
        state = torch.load(folder.checkpoint, weights_only=True)
        weights.append(torch.cat([w.ravel() for w in state["network"].values()]))
        assert load_run(folder).processes == processes
        assert state["epochs_done"] == 1 and len(rows(folder)) == 1
    apart = (weights[0] - weights[1]).abs()
    assert float(apart.max()) < 1e-4 and float(apart.quantile(0.999)) < 1e-6


def train_at_an_own_pace(workspace: Workspace) -> None:
    """What a process does that tries more steps than the other before it trains."""
    distributed.TIMEOUT = timedelta(seconds=40)
    tuning.TRIAL_S = 1e9 if process_group.rank_and_world_size()[0] else 0.0
    request = TrainingRequest(fold=0, network="gn_unet", recipe=TINY, epochs=None)
    train._train(workspace, request, CPU, Budget(seconds=3600.0))


def test_processes_may_try_different_numbers_of_steps(fresh: Workspace) -> None:
    """How many depends on each one's clock; a sum over the group in any of them would wait for ever."""
    distributed.launch(train_at_an_own_pace, 2, fresh)
    assert load_run(fresh.fold("gn_unet", 0)).epochs_done == TINY.epochs


def train_by_an_own_clock(workspace: Workspace) -> None:
    """What a process does whose clock runs faster or slower than the other's."""
    distributed.TIMEOUT = timedelta(seconds=40)
    rank = process_group.rank_and_world_size()[0]
    clock = (0.25 * (1 + 3 * rank) * n for n in itertools.count())
    pace.time = SimpleNamespace(monotonic=lambda: next(clock))  # type: ignore[assignment]
    tuning._step_seconds = lambda *what: 0.2 + rank
    tuning._save_seconds = lambda *what: 0.0
    pace.SAVE_AFTER_S = 1.0  # also within epochs
    request = TrainingRequest(fold=0, network="gn_unet", recipe=replace(TINY, epochs=9), epochs=None)
    train._train(workspace, request, CPU, Budget(seconds=8.0))


def test_processes_take_the_same_steps_of_a_time_budget(fresh: Workspace) -> None:
    """The main process decides; one that took another step would wait for ever."""
    distributed.launch(train_by_an_own_clock, 2, fresh)
    run = load_run(fresh.fold("gn_unet", 0))
    assert run.schedule is not None and run.is_finished
    assert 4 < run.schedule.taken == run.schedule.steps < run.schedule.planned < 9 * 6
    assert run.epochs_done == len(rows(fresh.fold("gn_unet", 0))) == run.recipe.epochs


def test_more_gpus_than_there_are_is_refused_before_anything_starts(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    options = TrainingOptions(device="cuda", processes=2)
    assert "`processes=2`: PyTorch finds 1" in refused(lambda: train_fold(fresh, 0, recipe=TINY, options=options))
