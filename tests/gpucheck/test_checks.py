"""States of a check, and errors that the checks of the GPU code find."""

from __future__ import annotations

import json
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import steps, training
from bench.inputs import Bench
from bench.results import Row
from gpucheck import networks, operations, processes
from gpucheck.checks import Check, OutOfTime
from gpucheck.child import run_check
from gpucheck.settings import Settings
from helpers.gpu_checks import on_gpu, row_of, settings_of

from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.inference import tiles
from dvtplan.models import devices
from dvtplan.planning import recipe
from dvtplan.training import augmentation
from dvtplan.training.losses import focal


def outcome(measure: Callable[[Settings], Iterator[Row]], folder: Path, **kinds: bool) -> tuple[str, str, int]:
    """Run a check; return its state, error and number of values."""
    events: list[dict[str, Any]] = []
    check = Check(name="c", measure=measure, **kinds)
    run_check(check, settings_of(folder), lambda event: events.append(dict(event)))
    assert json.dumps(events, allow_nan=False)
    assert [event["event"] for event in events][:: len(events) - 1] == ["begin", "end"]
    return events[-1]["state"], events[-1]["error"], len(events) - 2


def test_every_state_of_a_check(tmp_path: Path) -> None:
    def good(_: Settings) -> Iterator[Row]:
        yield row_of(1.0, at_most=2.0)

    def beyond(_: Settings) -> Iterator[Row]:
        yield row_of(float("inf"), at_most=2.0)
        yield row_of(1.0, at_most=2.0)

    def broken(_: Settings) -> Iterator[Row]:
        yield row_of(float("nan"))
        raise ValueError("why")

    def late(_: Settings) -> Iterator[Row]:
        raise OutOfTime("too late")
        yield row_of(1.0)

    assert outcome(good, tmp_path, must_hold=True) == ("passed", "", 1)
    assert outcome(beyond, tmp_path) == ("missed", "", 2)
    assert outcome(lambda _: iter([row_of(float("nan"), at_most=2.0)]), tmp_path, must_hold=True)[0] == "failed"
    assert outcome(beyond, tmp_path, must_hold=True) == ("failed", "", 2)
    assert outcome(late, tmp_path) == ("not reached", "too late", 0)
    assert outcome(good, tmp_path, needs_gpu=True) == ("no GPU", "", 0)
    state, error, figures = outcome(broken, tmp_path)
    assert (state, figures) == ("failed", 1) and error.endswith("ValueError: why")


@pytest.fixture
def fresh(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the toy with its own results; its data must not be changed."""
    for name in ("datasets_raw", "datasets_preprocessed"):
        (tmp_path / name).symlink_to(toy_once.root / name)
    return Workspace(tmp_path, toy_once.dataset)


# --- errors are found -----------------------------------------------------------------------------


def test_a_loss_that_differs_on_the_device_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its value or its gradient alone."""
    assert outcome(operations.loss, tmp_path, must_hold=True)[0] == "passed"
    calls: list[int] = []
    value, gradient = 1.001, 1.0

    def off_by_a_little(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        loss = focal(*arguments)
        if len(calls) % 2:
            return loss
        return loss.detach() * (value - gradient) + loss * gradient

    monkeypatch.setattr(operations, "focal", off_by_a_little)
    assert outcome(operations.loss, tmp_path, must_hold=True)[0] == "failed"
    value, gradient = 1.0, 1.001
    assert outcome(operations.loss, tmp_path, must_hold=True)[0] == "failed"


def test_an_augmentation_that_is_shifted_by_a_pixel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, apply = [], augmentation.apply

    def shifted(*arguments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(1)
        image, label = apply(*arguments)
        return (image, label) if len(calls) % 2 else (image.roll(1, -1), label)

    monkeypatch.setattr(augmentation, "apply", shifted)
    assert outcome(operations.augmented, tmp_path, must_hold=True)[0] == "failed"


@pytest.mark.parametrize("check", ["dice_loss", "wide", "tiles"])
def test_parts_of_the_recipe_modern_that_differ_on_the_device_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, check: str
) -> None:
    """The second call, that of the device, gives another result."""
    measure, calls = getattr(operations, check), list[int]()
    assert outcome(measure, tmp_path, must_hold=True)[0] == "passed"

    def factor() -> float:
        calls.append(1)
        return 1.0 if len(calls) == 1 else 1.01

    class Augmentation(operations.WideAugmentation):
        def finish(self, *arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            image, label = super().finish(*arguments)
            return image * factor(), label

    def predict_by_tiles(*arguments: Any, **options: Any) -> torch.Tensor:
        return tiles.predict_by_tiles(*arguments, **options) * factor()

    loss = operations.LOSSES["dice_ce"]
    monkeypatch.setattr(operations, "WideAugmentation", Augmentation)
    monkeypatch.setattr(operations, "predict_by_tiles", predict_by_tiles)
    monkeypatch.setattr(operations, "LOSSES", {"dice_ce": lambda *arguments: loss(*arguments) * factor()})
    assert outcome(measure, tmp_path, must_hold=True)[0] == "failed"


def test_a_compiled_network_is_compared_with_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, factor = settings_of(tmp_path), [1.0]

    def compiled(network: torch.nn.Module, *_: object) -> tuple[devices.Forward, str]:
        return lambda image: network(image) * factor[0], ""

    monkeypatch.setattr(devices, "try_compile", compiled)
    same = networks.compile_one("gn_unet", settings)
    assert same["dice"] == pytest.approx(1.0) and same["cosine"] == pytest.approx(1.0) and same["failed"] == ""
    factor[0] = -1.0
    wrong = networks.compile_one("gn_unet", settings)
    assert wrong["dice"] < 0.5 and wrong["cosine"] < 0  # type: ignore[operator]


def test_weights_that_differ_after_a_resume_are_measured(trained_once: Workspace, tmp_path: Path) -> None:
    folder = trained_once.fold("gn_unet", 0)
    state = torch.load(folder.checkpoint, weights_only=True)
    largest = max(float(weight.abs().max()) for weight in state["network"].values())
    first = next(iter(state["network"]))
    state["network"][first].flatten()[0] += 0.01 * largest
    torch.save(state, tmp_path / "checkpoint.pt")
    assert processes.largest_difference(folder, folder) == 0.0
    assert processes.largest_difference(folder, FoldFolder(tmp_path)) == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize(
    ("status", "text", "value"),
    [
        (1, "bar\ndvt_train: The GPU's memory ran out (CUDA out of memory). Use less.\n", 1.0),
        (1, "Traceback (most recent call last):\nRuntimeError: memory ran out\n", 0.0),
        (1, "RuntimeError: CUDA error\n", 0.0),
        (0, "memory ran out\n", 0.0),
    ],
)
def test_out_of_memory_must_be_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_once: Workspace, status: int, text: str, value: float
) -> None:
    on_gpu(monkeypatch)
    monkeypatch.setattr(processes, "copy_of", lambda small, name: toy_once)
    monkeypatch.setattr(processes, "prepare", lambda settings: toy_once)
    done = subprocess.CompletedProcess([], status, "", text)
    monkeypatch.setattr(processes.subprocess, "run", lambda *arguments, **options: done)
    (row,) = processes.out_of_memory(settings_of(tmp_path))
    assert row.value == value and "--batch-size" in row.note


def test_waits_for_the_host_are_counted_where_they_are_made(
    toy_once: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_gpu(monkeypatch)
    slices = training._slices_per_epoch(toy_once, recipe.override("paper", batch_size=1))

    def counted(workspace: Workspace, device: str, recipe: recipe.Recipe) -> Counter[str]:
        epochs, batch = recipe.epochs, recipe.batch_size
        return Counter({"train.py fit": 3 * epochs + 7, "train.py step": epochs * slices // batch})

    monkeypatch.setattr(Bench, "prepared", lambda self, scale, cases: toy_once)
    monkeypatch.setattr(training, "_waits", counted)
    epoch, step, *modern = training.synchronisations(Bench(scratch=Path(), device="cpu", rounds=1, tiny=True))
    assert len(modern) == 2 and all("modern" in row.what for row in modern)
    assert epoch.value == 3 + slices / 2 and "train.py fit 3" in epoch.note
    assert step.value == pytest.approx(1.0) and step.verdict == "missed"


def test_a_wait_is_attributed_to_the_function_that_waited(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch)
    isfinite = torch.isfinite

    def waiting(value: torch.Tensor) -> torch.Tensor:
        warnings.warn(f"called a {training.SYNCHRONISING}", stacklevel=1)
        return isfinite(value)

    monkeypatch.setattr(torch, "isfinite", waiting)
    small = recipe.override("paper", epochs=1, batch_size=6, width=8, norm_groups=8)
    found = training._waits(fresh, "cpu", small)
    # An epoch has two steps, whose losses are checked together; then every weight is checked once.
    assert {place.split()[0] for place in found} == {"trainer.py"} and found["trainer.py _finite_losses"] == 1


@pytest.mark.parametrize("way", [steps.TUNED, steps.CHANNELS_FIRST])
def test_a_step_is_measured_in_every_way_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    on_gpu(monkeypatch)
    monkeypatch.setattr(steps, "TIMED_S", 0.01)
    monkeypatch.setattr(devices, "try_compile", lambda network, setup, trial: (network, trial(network) or ""))
    row = steps.on_gpu(Bench(scratch=tmp_path, device="cpu", rounds=1, tiny=True), way, 2)
    assert row.value > 0 and way in row.what and "peak 123 MB" in row.note
    assert ("compiled in" in row.note) == (way == steps.CHANNELS_FIRST)
    assert not torch.backends.cudnn.benchmark
