"""Training: the whole loop against nothing but forward, backward and step; one process against two."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

import torch

from bench.clock import in_turn
from bench.inputs import Bench
from bench.rows import Row, absent
from dvtplan import artifacts, devices, journal
from dvtplan.batches import Schedule, Slices
from dvtplan.networks import build
from dvtplan.networks.blocks import UpConv
from dvtplan.plan import FORWARD_FLOP_PER_PIXEL
from dvtplan.recipes import override
from dvtplan.records import Plan, Recipe, Splits
from dvtplan.train import PREPARE, Options, train_fold
from dvtplan.workspace import Workspace

CASES, TINY_CASES = 4, 2
"""Half of them are trained on."""
MATRIX = 2048
"""Side of the matrices whose product is the machine's measured rate."""


def train(bench: Bench) -> Iterator[Row]:
    """Slices per second of the second epoch of `dvt_train`, over those of bare steps on fixed tensors."""
    workspace = _data(bench)
    plan = artifacts.load(Plan, workspace.plan, PREPARE)
    recipe = override("paper", epochs=2)
    slices = _slices_per_epoch(workspace, recipe)
    bare = _bare_steps(bench, recipe, plan.target_shape, slices // recipe.batch_size)
    timing = in_turn(
        {"loop": lambda: _epoch_seconds(workspace, recipe, bench.device), "bare": bare}, bench.rounds, warm_up=False
    )
    size = f"{plan.target_shape[0]}x{plan.target_shape[1]}"
    rate = slices / timing.seconds("loop")
    detail: dict[str, object] = {"seconds": timing.rounds, "slices": slices, "batch": recipe.batch_size, "size": size}
    yield Row(
        section="train", what="training loop over bare steps", value=timing.ratio("bare", "loop"), unit="x",
        at_least=0.95 if bench.on_cpu else 0.90, note=f"slices/s, {size}, batch {recipe.batch_size}", detail=detail,
    )  # fmt: skip
    yield Row(
        section="train", what="training rate", value=rate, unit="slices/s",
        note=f"the paper's fold of 589,000 steps of 2 would take {journal.duration(2 * 589e3 / rate)}"
        if size == "960x320" else "", detail=detail,
    )  # fmt: skip
    flop = 3 * FORWARD_FLOP_PER_PIXEL * plan.target_shape[0] * plan.target_shape[1] * rate
    peak = _matrix_flop_per_s(bench)
    yield Row(
        section="train", what="share of the matrix-product rate", value=flop / peak, unit="x",
        note=f"{flop / 1e12:.3g} of {peak / 1e12:.3g} TFLOP/s", detail={"flop_per_s": flop, "matrix_flop_per_s": peak},
    )  # fmt: skip


def shapes(bench: Bench) -> Iterator[Row]:
    """What a step costs on a CPU by batch, memory layout, and where the decoder upsamples; in forward passes."""
    if not bench.on_cpu:
        yield absent("steps", "a training step by batch and layout", "a question of CPUs; --device cpu")
        return
    shape = (64, 32) if bench.tiny else (960, 320)
    image = torch.rand(1, 1, *shape)
    ways = [(batch, layout, True) for batch in (1, 2, 4) for layout in LAYOUTS] + [(2, "channels first", False)]
    plain = build("gn_unet", 1, 1, width=32, norm_groups=32).eval()
    things: dict[str, Callable[[], object]] = {"forward": lambda: _forward(plain, image)}
    for batch, layout, before in ways:
        things[_way(batch, layout, before)] = _step(image.expand(batch, -1, -1, -1), LAYOUTS[layout], before)
    timing = in_turn(things, min(bench.rounds, 2))
    size = f"{shape[0]}x{shape[1]}"
    for batch, layout, before in ways:
        name = _way(batch, layout, before)
        yield Row(
            section="steps", what=name, value=timing.ratio(name, "forward") / batch, unit="forward passes a slice",
            note=f"{timing.seconds(name) / batch:.3g} s a slice of {size}", detail={"seconds": timing.rounds[name]},
        )  # fmt: skip


LAYOUTS = {"channels first": torch.contiguous_format, "channels last": torch.channels_last}


def _way(batch: int, layout: str, before: bool) -> str:
    return f"batch {batch}, {layout}" + ("" if before else ", upsampled before the convolution")


def _forward(network: torch.nn.Module, image: torch.Tensor) -> None:
    with torch.inference_mode():
        network(image)


def _step(image: torch.Tensor, layout: torch.memory_format, before_upsampling: bool) -> Callable[[], None]:
    """What does one step of a network of its own."""
    network = build("gn_unet", 1, 1, width=32, norm_groups=32)
    network = network.to(memory_format=layout)  # type: ignore[call-overload]
    if not before_upsampling:
        for module in network.modules():
            if isinstance(module, UpConv):
                module.forward = module.as_written  # type: ignore[method-assign]
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    image = image.contiguous(memory_format=layout)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(image).square().mean().backward()
        optimizer.step()

    return step


def parallel(bench: Bench) -> Iterator[Row]:
    """Slices per second of two processes over one, each process with half the batch and one core, or one GPU."""
    gpus = torch.cuda.device_count()
    if not bench.on_cpu and gpus < 2:
        yield absent("parallel", "two GPUs over one", f"PyTorch sees {gpus} GPU")
        return
    workspace, recipe = _data(bench), override("paper", epochs=2)
    kind = bench.device.partition(":")[0]
    with _one_thread() if bench.on_cpu else contextlib.nullcontext():
        timing = in_turn(
            {f"{n}": lambda n=n: _epoch_seconds(workspace, recipe, kind, n) for n in (1, 2)},  # type: ignore[misc]
            bench.rounds,
            warm_up=False,
        )
    yield Row(
        section="parallel", what="two processes over one", value=timing.ratio("1", "2"), unit="x", at_least=1.7,
        note="slices/s; one core a process" if bench.on_cpu else "slices/s; one GPU a process",
        detail={"seconds": timing.rounds},
    )  # fmt: skip


def _data(bench: Bench) -> Workspace:
    """Prepared slices of the largest size that this device trains on in minutes."""
    if bench.tiny:
        return bench.prepared("tiny", TINY_CASES)
    return bench.prepared("small" if bench.on_cpu else "paper", CASES)


def _epoch_seconds(workspace: Workspace, recipe: Recipe, device: str, processes: int = 1) -> float:
    """Of the last epoch; the one before it warms up."""
    options = Options(device=device, overwrite=True, processes=processes)
    folder = train_fold(workspace, 0, recipe=recipe, options=options)
    return float(journal.read_epochs(folder.epochs, before=recipe.epochs)[-1]["seconds"])


def _slices_per_epoch(workspace: Workspace, recipe: Recipe) -> int:
    """Of fold 0, those that fill its last batch counted again."""
    cases = artifacts.load(Splits, workspace.splits, PREPARE).folds[0].train
    count = len(Slices([workspace.prepared(case) for case in cases]))
    return recipe.batch_size * Schedule(slices=count, variants=1, batch_size=recipe.batch_size, seed=0).steps


def _bare_steps(bench: Bench, recipe: Recipe, shape: tuple[int, int], steps: int) -> Callable[[], float]:
    """What runs so many steps of forward, backward and Adam on one batch and gives their seconds."""
    setup = devices.choose(bench.device, training=True)
    network = build("gn_unet", 1, 1, width=recipe.width, norm_groups=recipe.norm_groups)
    network = network.to(setup.device, memory_format=setup.memory_format)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), fused=not setup.device.startswith("mps"))
    forward = torch.compile(network) if setup.compiled else network
    image = torch.rand(recipe.batch_size, 1, *shape, device=setup.device).contiguous(memory_format=setup.memory_format)

    def step() -> None:
        with setup.autocast():
            loss = forward(image).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def run() -> float:
        for _ in range(2):
            step()
        _wait(setup.device)
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        _wait(setup.device)
        return time.perf_counter() - begin

    return run


def _matrix_flop_per_s(bench: Bench) -> float:
    """The best of a few matrix products in the precision that is trained in."""
    setup = devices.choose(bench.device, training=True)
    side = MATRIX * (1 if bench.on_cpu else 4)
    kind = torch.bfloat16 if setup.precision == "bf16" else torch.float32
    one, other = (torch.rand(side, side, device=setup.device).to(kind) for _ in range(2))
    seconds = []
    for _ in range(8):
        _wait(setup.device)
        begin = time.perf_counter()
        torch.mm(one, other)
        _wait(setup.device)
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Processes begun inside get one core each, and so does this one."""
    before, threads = os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        os.environ.pop("OMP_NUM_THREADS") if before is None else os.environ.update(OMP_NUM_THREADS=before)
