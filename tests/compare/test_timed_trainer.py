"""nnU-Net's trainer with a time budget, on a made-up nnU-Net and a made-up clock."""

from __future__ import annotations

import importlib
import itertools
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch


class Base:
    """What the trainer uses of nnU-Net's."""

    initial_lr = 0.01
    batch_size = 4

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rates: list[float] = []
        self.ended = False
        self.network = torch.nn.Linear(3, 2)
        self.optimizer = SimpleNamespace(param_groups=[{"lr": 1.0}])
        self.dataloader_train = itertools.repeat({})

    def on_train_start(self) -> None:
        self.clock.now += 2.0

    def train_step(self, _: dict[str, object]) -> dict[str, float]:
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        self.clock.now += 1.0
        return {"loss": -self.clock.now}

    def _set_batch_size_and_oversample(self) -> None:
        self.batch_size = 366

    def on_train_end(self) -> None:
        self.ended = True


class Clock:
    """Time that passes only where a test says so."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The module of the trainer."""
    entry = SimpleNamespace(calls=[])
    made = {
        "nnunetv2": {},
        "nnunetv2.inference": {"predict_from_raw_data": SimpleNamespace(predict_entry_point=None)},
        "nnunetv2.run": {"run_training": entry},
        "nnunetv2.training": {},
        "nnunetv2.training.nnUNetTrainer": {},
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer": {"nnUNetTrainer": Base},
    }
    entry.run_training_entry = lambda: entry.calls.append((sys.argv, entry.recursive_find_trainer_class_by_name("x")))
    for name, content in made.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    monkeypatch.delitem(sys.modules, "compare.timed_trainer", raising=False)
    monkeypatch.setenv("DVT_COMPARE_RECORD", str(tmp_path / "training.json"))
    monkeypatch.setenv("DVT_COMPARE_THREADS", str(torch.get_num_threads()))
    module = importlib.import_module("compare.timed_trainer")
    monkeypatch.delitem(sys.modules, "compare.timed_trainer")
    return module


def test_the_rate_falls_with_the_time_and_the_last_step_ends_in_time(
    trainer: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clock = Clock()
    monkeypatch.setattr(trainer, "time", clock)
    monkeypatch.setenv("DVT_COMPARE_SECONDS", "12.5")
    training = trainer.DvtTimedTrainer(clock)
    training.run_training()
    assert training.ended and clock.now == 112.0  # 2 s of preparation and 10 steps; another would take too long
    assert training.rates == pytest.approx([0.01 * (1 - t / 10.5) ** 0.9 for t in range(10)])
    record = json.loads((tmp_path / "training.json").read_text())
    assert (record["steps"], record["training_s"], record["preparation_s"]) == (10, 10.0, 2.0)
    assert (record["batch_size"], record["parameters"]) == (4, 8)
    assert record["losses"] == [-103.0 - n for n in range(10)]


def test_a_time_that_is_too_short_gives_one_step(trainer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(trainer, "time", clock)
    monkeypatch.setenv("DVT_COMPARE_SECONDS", "1")
    training = trainer.DvtTimedTrainer(clock)
    training.run_training()
    assert training.rates == [0.01]


def test_nnunets_command_gets_the_trainer(trainer: ModuleType) -> None:
    trainer.main(["train", "1", "2d", "0", "-device", "cpu"])
    ((words, found),) = trainer.run_training.calls
    assert words == ["train", "1", "2d", "0", "-device", "cpu", "-tr", "DvtTimedTrainer"]
    assert found is trainer.DvtTimedTrainer


@pytest.mark.parametrize(("steps", "parts"), [(1, 1), (20, 20), (50, 17)])
def test_the_record_holds_means_of_the_loss(trainer: ModuleType, steps: int, parts: int) -> None:
    found = trainer._parts([float(n) for n in range(steps)])
    assert len(found) == parts and [n for part in found for n in part] == list(range(steps))


def test_the_batch_size_is_not_that_of_the_plan(trainer: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVT_COMPARE_BATCH", "12")
    training = trainer.DvtTimedTrainer(Clock())
    training._set_batch_size_and_oversample()
    assert training.batch_size == 12
