"""Precision and layout of a training on a CPU: tried once, recorded, kept by a resumed training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.trainings import CPU, TINY, Stop, link, load_run, timeless

from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import devices, speed_trial
from dvtplan.models.devices import DeviceConfig
from dvtplan.training.train import train_fold


@pytest.fixture
def bf16_is_fastest(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every trial finds bf16 in channels-last layout the fastest; return the list of trials, which fills."""
    tried: list[str] = []

    def fastest(network: object, batch: object, setup: DeviceConfig) -> DeviceConfig:
        tried.append(setup.words)
        ways = [w for w in (setup, *setup.alternatives) if w.precision == "bf16" and w.channels_last]
        return replace(ways[0] if ways else setup, alternatives=(), trial="Trial: none.")

    monkeypatch.setattr(devices, "_cpu_supports_bf16", lambda: True)
    monkeypatch.setattr(speed_trial, "fastest_for_training", fastest)
    return tried


def test_the_fastest_way_is_taken_recorded_and_kept_bit_by_bit(
    fresh: Workspace, tmp_path: Path, bf16_is_fastest: list[str], stop_after: Callable[[int], None]
) -> None:
    (tmp_path / "whole").mkdir()
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, recipe=TINY, options=CPU)
    run = load_run(whole)
    assert run.arithmetic is not None and "bf16, channels last" in run.setup
    assert (run.arithmetic.precision, run.arithmetic.channels_last) == ("bf16", True)
    stop_after(2)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=CPU)
    bf16_is_fastest.clear()
    resumed = train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert bf16_is_fastest == []
    assert load_run(resumed).arithmetic == run.arithmetic
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


def test_what_the_options_named_at_the_start_is_kept_without_them(
    fresh: Workspace, stop_after: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """bf16 with channels first is no alternative of the default, and a compiled training has none."""
    stop_after(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=replace(CPU, precision="bf16", channels_last=False))
    began = load_run(fresh.fold("gn_unet", 0)).arithmetic
    stop_after(2)
    with pytest.raises(Stop):
        train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert load_run(fresh.fold("gn_unet", 0)).arithmetic == began and "bit-identical" not in capsys.readouterr().err
    folder = train_fold(fresh, 0, options=replace(CPU, resume=True, precision="fp32"))
    arithmetic = load_run(folder).arithmetic
    assert arithmetic is not None and (arithmetic.precision, arithmetic.channels_last) == ("fp32", False)
    assert "precision bf16, now fp32" in capsys.readouterr().err


def test_bf16_learns_what_float32_learns(fresh: Workspace, straight: FoldFolder, bf16_is_fastest: list[str]) -> None:
    folder = train_fold(fresh, 0, recipe=TINY, options=CPU)
    losses, exact = ([float(row["loss"]) for row in timeless(one)] for one in (folder, straight))
    assert losses != exact and losses == pytest.approx(exact, rel=0.02)
    assert bf16_is_fastest == ["fp32, channels first"]


def test_another_processor_tries_again(
    fresh: Workspace,
    bf16_is_fastest: list[str],
    stop_after: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop_after(2)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=CPU)
    monkeypatch.setattr(devices, "processor", lambda: "another")
    folder = train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert len(bf16_is_fastest) == 2
    arithmetic = load_run(folder).arithmetic
    assert arithmetic is not None and arithmetic.processor == "another"


def test_a_training_from_before_trials_goes_on_as_it_began(
    fresh: Workspace, straight: FoldFolder, stop_after: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(2)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=CPU)
    folder = fresh.fold("gn_unet", 0)
    text = folder.run.read_text()
    start, end = text.index('"arithmetic"'), text.index("}", text.index('"arithmetic"')) + 1
    folder.run.write_text(text[:start].rstrip().rstrip(",") + text[end:])
    assert load_run(folder).arithmetic is None
    monkeypatch.setattr(speed_trial, "fastest_for_training", lambda *_: pytest.fail("a trial decided"))
    train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_the_processor_is_described_by_what_it_computes_with() -> None:
    assert devices.processor().split()[0] == torch.backends.cpu.get_cpu_capability()
