"""What depends on the machine: compilation, batch size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.trainings import CPU, TINY, link, load_run

from dvtplan.core import json_records, worker_pool
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import devices
from dvtplan.models.devices import Forward
from dvtplan.planning.cost import training_bytes
from dvtplan.planning.plan import Plan
from dvtplan.training import tuning
from dvtplan.training.train import train_fold

# --- compiled -------------------------------------------------------------------------------------


def test_a_compiled_network_leaves_a_plain_checkpoint(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilation is imitated: what matters is whose weights are saved."""
    seen = []

    def pretend(module: torch.nn.Module, mode: str | None) -> torch.nn.Module:
        seen.append(module)
        return torch.nn.Sequential(module)

    monkeypatch.setattr(torch, "compile", pretend)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True))
    assert len(seen) == 1
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_where_compilation_fails_the_training_goes_on_without_and_says_so(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(module: torch.nn.Module, mode: str | None) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C compiler\nand much more")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    message = "torch.compile does not work here (no C compiler)"
    assert message in capsys.readouterr().err and message in load_run(folder).setup


def test_no_gradient_is_alive_when_a_compiled_network_runs_again(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUDA graph writes its gradients over those of its last run; PyTorch refuses what then still holds them."""
    runs = []

    def compiled(network: torch.nn.Module, setup: object, trial: Callable[[Forward], object]) -> tuple[Forward, str]:
        def strict(_: torch.nn.Module, inputs: object) -> None:
            runs.append(all(p.grad is None for p in network.parameters()))

        network.register_forward_pre_hook(strict)
        trial(network)
        return network, ""

    monkeypatch.setattr(devices, "try_compile", compiled)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True, time_budget_s=1e6))
    assert len(runs) > 4 + 4 * 6 and all(runs)
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_a_compiled_training_learns_the_same(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for real, by a backend that needs no C compiler and leaves every product as it is."""
    compiled = []

    def eager(network: torch.nn.Module, mode: str | None = None) -> torch.nn.Module:
        compiled.append(mode)
        return torch_compile(network, backend="eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True))
    assert compiled == [None] and "does not work" not in load_run(folder).setup
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


# --- batch size -----------------------------------------------------------------------------------


AUTO = replace(CPU, batch_size_auto=True)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.3}, 8),  # the next would be more slices than there are
        ({1: 1.0, 2: 1.1, 4: 2.1, 8: 1.0}, 2),  # twice the slices must be worth it
        ({1: 1.0, 2: 1.1, 4: None}, 2),  # no memory
        ({1: 1.0, 2: 2.0}, 1),
    ],
)
def test_the_batch_size_is_doubled_while_that_pays(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float | None], chosen: int
) -> None:
    def took(job: object, trainer: object, slices: int, forward: object = None) -> float:
        found = seconds[slices]
        if found is None:
            raise torch.OutOfMemoryError
        return found

    monkeypatch.setattr(tuning, "_step_seconds", took)
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=AUTO)
    assert load_run(folder).recipe.batch_size == chosen
    assert torch.load(folder.checkpoint, weights_only=True)["optimizer"]["state"][0]["step"] == -(-12 // chosen)


def test_no_batch_is_tried_that_memory_does_not_hold(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = json_records.load(Plan, fresh.plan, "")
    monkeypatch.setattr(worker_pool, "free_memory_bytes", lambda: training_bytes(plan.target_shape, 5))
    monkeypatch.setattr(tuning, "_step_seconds", lambda job, trainer, slices, forward: 1.0)
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=AUTO)
    assert load_run(folder).recipe.batch_size == 2


def test_what_was_tried_leaves_no_trace_and_a_resumed_training_keeps_its_batch_size(
    fresh: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real steps, of batch normalization too: the checkpoint is that of a recipe with the batch size chosen."""
    tried = train_fold(fresh, 0, network="segnet", recipe=replace(TINY, epochs=1), options=AUTO)
    chosen = load_run(tried).recipe.batch_size
    (tmp_path / "whole").mkdir()
    recipe = replace(TINY, epochs=1, batch_size=chosen)
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, network="segnet", recipe=recipe, options=CPU)
    assert tried.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    monkeypatch.setattr(tuning, "_step_seconds", lambda *what: pytest.fail("tried again"))
    again = replace(AUTO, resume=True)
    train_fold(fresh, 0, network="segnet", recipe=replace(TINY, batch_size=1), epochs=2, options=again)
    assert load_run(tried).recipe.batch_size == chosen and load_run(tried).epochs_done == 2
