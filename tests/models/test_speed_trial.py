"""Which way of running a network a trial chooses. Times are injected; no clock decides a test."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dvtplan.models import devices, speed_trial
from dvtplan.models.devices import DeviceConfig

Way = tuple[str, bool]
FP32, FP32_LAST, BF16 = ("fp32", False), ("fp32", True), ("bf16", True)


@pytest.fixture(autouse=True)
def every_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are tried, too, on a processor that supports bf16."""
    monkeypatch.setattr(speed_trial, "MIN_WORK", 0)
    monkeypatch.setattr(devices, "_cpu_supports_bf16", lambda: True)


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(1, 2, 3, padding=1)


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[Way, float]) -> list[Way]:
    """Let each way take its seconds; return the list of the ways that were placed, which fills."""
    placed: list[Way] = []
    running: list[Way] = []
    place, autocast = DeviceConfig.place, DeviceConfig.autocast

    def placing(setup: DeviceConfig, network: nn.Module) -> nn.Module:
        placed.append((setup.precision, setup.channels_last))
        return place(setup, network)

    def entering(setup: DeviceConfig) -> contextlib.AbstractContextManager[object]:
        running.append((setup.precision, setup.channels_last))
        return autocast(setup)

    ticks = [0.0]

    def clock() -> float:
        ticks[0] += seconds[running[-1]]
        return ticks[0]

    monkeypatch.setattr(DeviceConfig, "place", placing)
    monkeypatch.setattr(DeviceConfig, "autocast", entering)
    monkeypatch.setattr(speed_trial, "time", SimpleNamespace(perf_counter=clock))
    return placed


def chosen(setup: DeviceConfig) -> Way:
    return setup.precision, setup.channels_last


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({FP32_LAST: 1.0, BF16: 0.5}, BF16),
        ({FP32_LAST: 1.0, BF16: 0.95}, FP32_LAST),
        ({FP32_LAST: 1.0, BF16: 3.0}, FP32_LAST),
    ],
)
def test_a_prediction_takes_bf16_where_it_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[Way, float], expected: Way
) -> None:
    placed = timed(monkeypatch, seconds)
    setup = speed_trial.fastest_for_prediction(conv().eval(), 1, (32, 32), devices.choose("cpu"))
    assert chosen(setup) == expected and placed == list(seconds) and setup.alternatives == ()
    assert "bf16, channels last" in setup.trial and setup.words in setup.description_with_trial


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({FP32: 1.0, FP32_LAST: 0.8, BF16: 0.5}, BF16),
        ({FP32: 1.0, FP32_LAST: 0.8, BF16: 2.0}, FP32_LAST),
        ({FP32: 1.0, FP32_LAST: 0.97, BF16: 2.0}, FP32),
    ],
)
def test_a_training_takes_the_fastest_precision_and_layout(
    monkeypatch: pytest.MonkeyPatch, seconds: dict[Way, float], expected: Way
) -> None:
    placed = timed(monkeypatch, seconds)
    setup = speed_trial.fastest_for_training(conv(), (2, 1, 32, 32), devices.choose("cpu", training=True))
    assert chosen(setup) == expected and placed == list(seconds)


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        ({"precision": "fp32"}, []),
        ({"precision": "bf16"}, []),
        ({"channels_last": False}, [("bf16", False)]),
        ({"compiled": True}, []),
        ({"training": True, "precision": "fp32"}, [FP32_LAST]),
        ({"training": True, "precision": "bf16"}, []),
        ({"training": True, "channels_last": True}, [BF16]),
        ({"training": True, "precision": "bf16", "channels_last": True}, []),
    ],
)
def test_what_the_user_chose_is_not_tried(options: dict[str, object], ways: list[Way]) -> None:
    setup = devices.choose("cpu", **options)  # type: ignore[arg-type]
    assert [chosen(way) for way in setup.alternatives] == ways


def test_without_bf16_on_the_processor_it_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_cpu_supports_bf16", lambda: False)
    assert devices.choose("cpu").alternatives == ()
    assert [chosen(way) for way in devices.choose("cpu", training=True).alternatives] == [FP32_LAST]


def test_a_small_network_is_not_worth_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    setup = speed_trial.fastest_for_prediction(conv().eval(), 1, (960, 320), devices.choose("cpu"))
    assert (chosen(setup), setup.trial) == (FP32_LAST, "")


def test_a_trial_changes_neither_the_network_nor_the_random_numbers() -> None:
    network = nn.Sequential(conv(), nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    state = torch.get_rng_state()
    speed_trial.fastest_for_training(network, (2, 1, 32, 32), devices.choose("cpu", training=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(p.grad is None and p.dtype == torch.float32 for p in network.parameters())


class WithoutBf16(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.dtype == torch.bfloat16:
            raise RuntimeError('"max_unpool2d" not implemented for BFloat16')
        return self.conv(image)


def test_a_network_that_has_no_bf16_stays_in_float32() -> None:
    setup = speed_trial.fastest_for_prediction(WithoutBf16().eval(), 1, (32, 32), devices.choose("cpu"))
    assert chosen(setup) == FP32_LAST and "bf16" not in setup.trial


@pytest.mark.parametrize(
    ("slices", "shape", "expected"),
    [
        (1, (960, 320), (1, 3, 128, 320)),
        (2, (960, 320), (2, 3, 64, 320)),
        (4, (320, 128), (4, 3, 64, 128)),
        (32, (160, 64), (20, 3, 32, 64)),
        (2, (96, 2048), (2, 3, 32, 2048)),
        (2, (16, 16), (2, 3, 16, 16)),
    ],
)
def test_images_of_a_trial_are_small_and_fit_every_network(
    slices: int, shape: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert speed_trial._noise(slices, 3, shape).shape == expected


def test_a_slow_trial_ends_after_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {FP32_LAST: 40.0, BF16: 20.0})
    runs: list[Way] = []
    autocast = DeviceConfig.autocast

    def entering(setup: DeviceConfig) -> contextlib.AbstractContextManager[object]:
        runs.append(chosen(setup))
        return autocast(setup)

    monkeypatch.setattr(DeviceConfig, "autocast", entering)
    speed_trial.fastest_for_prediction(conv().eval(), 1, (32, 32), devices.choose("cpu"))
    assert runs == [FP32_LAST, BF16] * 2  # one round is not timed
