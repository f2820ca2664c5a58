"""Measure prediction: a patient from file to file against bare forward passes, and these against plain PyTorch."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from bench.inputs import Bench, gn_unet, untrained
from bench.limits import matrix_flop_per_s, seconds_of, wait
from bench.results import Row
from bench.steps import PAPER_SHAPE, TINY_SHAPE, forget_compiled
from bench.timing import child, in_turn
from dvtplan.core import json_records
from dvtplan.data.dataset import discover
from dvtplan.imaging import volume_io
from dvtplan.imaging.resize import imresize
from dvtplan.inference.model import Model, slices_at_once
from dvtplan.inference.predict_case import predict_case
from dvtplan.models import devices
from dvtplan.models.devices import DeviceConfig
from dvtplan.planning.cost import FORWARD_FLOP_PER_PIXEL
from dvtplan.planning.recipe import RECIPES, override

TOOLS = Path(__file__).parents[1]

PAPER_SLICE_S, PAPER_PATIENT_S = 1.5, 13.5
"""Huang 2019 on a GTX 1080 Ti. The two values are inconsistent: a patient has about 90 slices."""


def predict(bench: Bench) -> Iterator[Row]:
    """One patient at the paper's scale: read, normalize, resize, network, resize back, write."""
    workspace, plan = bench.patients()
    model = untrained(plan, devices.choose(bench.device), tiny=bench.tiny)
    case = discover(workspace.raw).cases[0]
    slices = volume_io.read_grid(case.images[0]).shape
    count = min(slices)
    block = slices_at_once(plan.target_shape, model.setup.device)
    image = model.setup.images(torch.rand(block, 1, *plan.target_shape, device=model.setup.device))

    def forward() -> None:
        with torch.inference_mode(), model.setup.autocast():
            for start in range(0, count, block):
                model.networks[0](image[: count - start])
        wait(model.setup.device)

    rounds = min(bench.rounds, 2) if bench.on_cpu and not bench.tiny else bench.rounds
    target = bench.scratch / "predicted.nii.gz"
    timing = in_turn(
        {"patient": lambda: predict_case(case, target, model), "forward": forward},
        rounds,
        warm_up=bench.warm_up and not bench.on_cpu,
    )
    seconds = timing.seconds("patient")
    size = "x".join(map(str, plan.target_shape))
    detail: dict[str, object] = {"seconds": timing.rounds, "slices": count, "size": size, "shape": slices}
    yield Row(
        section="predict", what="bare forward passes over a patient", value=timing.ratio("forward", "patient"),
        unit="x", at_least=0.85 if bench.on_cpu else None, note=f"{count} slices of {size}, file to file",
        detail=detail,
    )  # fmt: skip
    yield Row(
        section="predict", what="per slice", value=seconds / count, unit="s",
        note=f"the paper: {PAPER_SLICE_S} s", detail=detail,
    )  # fmt: skip
    yield Row(
        section="predict", what="per patient", value=seconds, unit="s",
        note=f"the paper: {PAPER_PATIENT_S} s", detail=detail,
    )  # fmt: skip


def predict_tiles(bench: Bench) -> Iterator[Row]:
    """One patient as the recipe `modern` predicts: in overlapping tiles, with context, each slice once."""
    workspace, plan = bench.patients()
    recipe = override("modern", patch="64x32") if bench.tiny else RECIPES["modern"]
    models = {
        "tiles": untrained(plan, devices.choose(bench.device), recipe=recipe, tiny=bench.tiny),
        "whole": untrained(plan, devices.choose(bench.device), tiny=bench.tiny),
    }
    case, target = discover(workspace.raw).cases[0], bench.scratch / "predicted_tiles.nii.gz"
    bench.scratch.mkdir(parents=True, exist_ok=True)
    timing = in_turn(
        {name: partial(predict_case, case, target, model) for name, model in models.items()},
        bench.rounds,
        warm_up=bench.warm_up and not bench.on_cpu,
    )
    tile = "x".join(map(str, models["tiles"].tile or plan.target_shape))
    yield Row(
        section="predict", what="per patient, in tiles", value=timing.seconds("tiles"), unit="s",
        note=f"tiles of {tile}, {timing.ratio('tiles', 'whole'):.3g} times as long as whole slices",
        detail={"seconds": timing.rounds, "tile": tile},
    )  # fmt: skip


def forward(bench: Bench) -> Iterator[Row]:
    """Forward pass of one slice as `dvt_predict` runs it, against plain float32 PyTorch with the same weights."""
    workspace, plan = bench.patients()
    chosen = untrained(plan, devices.choose(bench.device), tiny=bench.tiny)
    default = devices.choose(bench.device, precision="fp32", channels_last=False, compiled=False)
    plain = untrained(plan, default, tiny=bench.tiny)
    volume, _ = volume_io.read(discover(workspace.raw).cases[0].images[0])
    across = volume.shape.index(min(volume.shape))
    middle = volume.take(volume.shape[across] // 2, axis=across)
    middle = imresize((middle / middle.max()).astype("float32"), plan.target_shape)
    image = torch.from_numpy(middle).float()[None, None].to(chosen.setup.device)

    def run(model: Model) -> torch.Tensor:
        with torch.inference_mode(), model.setup.autocast():
            found = model.networks[0](model.setup.images(image)).float()
        return found.cpu()

    tasks = {"plain": lambda: run(plain), "chosen": lambda: run(chosen)}
    timing = in_turn(tasks, 2 * bench.rounds, bench.warm_up)
    ours, theirs = run(chosen), run(plain)
    # An untrained network gives nearly all voxels one class; at the median logit it is least certain.
    cut = theirs.median()
    differ = ((ours > cut) != (theirs > cut)).float().mean()
    size = "x".join(map(str, plan.target_shape))
    yield Row(
        section="forward", what="plain float32 over ours", value=timing.ratio("plain", "chosen"), unit="x",
        at_least=2.0 if bench.on_cpu else None, note=f"one slice of {size}", detail={"seconds": timing.rounds},
    )  # fmt: skip
    yield Row(
        section="forward", what="voxels that differ, cut at the median", value=float(differ), unit="",
        at_most=1e-4 if chosen.setup.precision == "fp32" else None,
        note=f"largest difference of logits {float((ours - theirs).abs().max()):.2g}",
    )  # fmt: skip


def forward_rate(bench: Bench) -> Iterator[Row]:
    """Slices per second of forward passes alone, in blocks as `dvt_predict` runs them, eager and compiled."""
    shape = TINY_SHAPE if bench.tiny else PAPER_SHAPE
    for compiled in (False, True) if bench.on_gpu else (False,):
        precision = "bf16" if bench.on_cpu else None
        setup = devices.choose(bench.device, compiled=compiled, precision=precision)
        block = slices_at_once(PAPER_SHAPE, setup.device)
        network = gn_unet(setup, tiny=bench.tiny).eval()
        image = setup.images(torch.rand(block, 1, *shape, device=setup.device))

        def run(forward: devices.Forward, setup: DeviceConfig = setup, image: torch.Tensor = image) -> None:
            with torch.inference_mode(), setup.autocast():
                forward(image)
            wait(setup.device)

        forget_compiled()
        begin = time.perf_counter()
        compiled_forward, failed = devices.try_compile(network, setup, run)
        compile_s = time.perf_counter() - begin
        seconds = seconds_of(partial(run, compiled_forward), setup.device, repeats=2)
        rate = block / seconds
        flop = FORWARD_FLOP_PER_PIXEL * shape[0] * shape[1] * rate
        matrix = matrix_flop_per_s(bench.device, setup.precision, tiny=bench.tiny)
        remark = f"; {failed or f'compiled in {compile_s:.0f} s'}" if compiled else ""
        yield Row(
            section="forward", what=f"rate of forward passes, {setup.precision}{', compiled' if compiled else ''}",
            value=rate, unit="slices/s",
            note=f"blocks of {block} at {shape[0]}x{shape[1]}, {flop / matrix:.1%} of the matrix rate{remark}",
            detail={"seconds": seconds, "flop_per_s": flop, "matrix_flop_per_s": matrix, "compile_s": compile_s},
        )  # fmt: skip


def memory(bench: Bench) -> Iterator[Row]:
    """Peak memory of a process that predicts a volume, and of one with three times the slices."""
    workspace, planned = bench.patients()
    plan, mask = bench.scratch / "deep_plan.json", bench.scratch / "deep_mask.nii.gz"
    json_records.save(planned, plan)
    volume, grid = volume_io.read(discover(workspace.raw).cases[0].images[0])
    across = volume.shape.index(min(volume.shape))
    peaks = {}
    for times in (1, 3):
        path = bench.scratch / f"deep_{times}.nii.gz"
        deep = np.concatenate([volume] * times, axis=across).astype(np.float32)
        volume_io.write_probabilities(path, deep, replace(grid, shape=deep.shape))
        command = [
            sys.executable,
            "-m",
            "bench.memory_probe",
            str(plan),
            str(path),
            str(mask),
            bench.device,
            *(["tiny"] if bench.tiny else []),
        ]
        _, output = child(command, {"PYTHONPATH": str(TOOLS)})
        peaks[times] = int(output)
    yield Row(
        section="scale", what="memory for three times the slices", value=peaks[3] / peaks[1], unit="x", at_most=1.1,
        note=f"{peaks[1] / 1e6:.0f} and {peaks[3] / 1e6:.0f} MB", detail={"bytes": peaks},
    )  # fmt: skip
