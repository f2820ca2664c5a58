"""Print the seconds of a task on this CPU: ``python -m bench.speed_probe TASK ROWS COLUMNS BATCH``.

It also runs with the ``dvtplan`` of an earlier commit, so it uses only what that has.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

REPEATS = 3


def main(task: str, rows: int, columns: int, batch: int) -> None:
    """Run a task and print the seconds of the fastest of several repetitions.

    Args:
        task: 'plain', a forward pass in float32 and channels-first layout, upsampling before the convolution;
            'forward', one as `dvt_predict` runs it; or 'step', a training step as `dvt_train` runs it.
        rows: of a slice.
        columns: of a slice.
        batch: slices.
    """
    torch.manual_seed(0)
    run = {"plain": plain, "forward": forward, "step": step}[task](torch.rand(batch, 1, rows, columns))
    run()
    taken = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        run()
        taken.append(time.perf_counter() - begin)
    print(min(taken))


def plain(image: torch.Tensor) -> Callable[[], None]:
    """Return a forward pass of the network as the paper writes it, with PyTorch's defaults."""
    from dvtplan.models.networks.blocks import UpConv

    network = gn_unet().eval()
    for module in network.modules():
        if isinstance(module, UpConv):
            module.forward = module.as_written  # type: ignore[method-assign]

    def run() -> None:
        with torch.inference_mode():
            network(image)

    return run


def forward(image: torch.Tensor) -> Callable[[], None]:
    """Return a forward pass as a prediction runs it."""
    from dvtplan.models import devices

    network, setup = gn_unet().eval(), devices.choose("cpu")
    try:
        from dvtplan.core import allocator
        from dvtplan.models import speed_trial

        setup = speed_trial.fastest_for_prediction(network, 1, image.shape[-2:], setup)  # type: ignore[arg-type]
        allocator.keep_freed_memory()
        image = setup.images(image)
    except ImportError:
        image = image.contiguous(memory_format=setup.memory_format)
    print(setup.description, getattr(setup, "trial", ""), file=sys.stderr)
    network = setup.place(network)

    def run() -> None:
        with torch.inference_mode(), setup.autocast():
            network(image).float()

    return run


def step(image: torch.Tensor) -> Callable[[], None]:
    """Return a step of a training: forward, backward, Adam."""
    from dvtplan.models import devices

    network, setup = gn_unet(), devices.choose("cpu", training=True)
    try:
        from dvtplan.core import allocator
        from dvtplan.models import speed_trial

        setup = speed_trial.fastest_for_training(network, tuple(image.shape), setup)  # type: ignore[arg-type]
        allocator.keep_freed_memory()
    except ImportError:
        pass
    print(setup.description, getattr(setup, "trial", ""), file=sys.stderr)
    network = setup.place(network)
    image = image.contiguous(memory_format=setup.memory_format)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with setup.autocast():
            logits = network(image)
        logits.float().square().mean().backward()
        optimizer.step()

    return run


def gn_unet() -> torch.nn.Module:
    """Return an untrained GN-U-Net of the paper's width."""
    from dvtplan.models.networks.registry import build

    return build("gn_unet", 1, 1, width=32, norm_groups=32)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
