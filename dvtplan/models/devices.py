"""What this machine can do, and what was chosen: device, precision, memory layout, compilation."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from dvtplan.core.errors import DvtError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
BF16_CAPABILITY = (8, 0)
"""The first CUDA generation (Ampere) with bf16 matrix units."""
COMPILE_CAPABILITY = (7, 0)
"""The first CUDA generation that Triton supports; a GTX 1080 Ti (6.1) runs without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """How networks run here."""

    device: str
    precision: str
    """'fp32', or 'bf16' by autocast with float32 weights."""
    channels_last: bool
    compiled: bool
    training: bool
    """Whether backward passes run too."""
    description: str
    """What was chosen and why, for the user."""

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        dtype = PRECISIONS[self.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=dtype)

    @property
    def memory_format(self) -> torch.memory_format:
        """Of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def free_bytes(self) -> int | None:
        """Memory that is free on an accelerator; none on a CPU, whose memory the system tells."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()  # what PyTorch keeps for later does not count as free
            return torch.cuda.mem_get_info(torch.device(self.device))[0]
        return None


def choose(
    device: str = "auto",
    *,
    training: bool = False,
    precision: str | None = None,
    channels_last: bool | None = None,
    compiled: bool | None = None,
) -> DeviceConfig:
    """Choose how to run; every choice but the device's existence can be overridden.

    Args:
        device: 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'.
        training: whether backward passes run too; those are slower on a CPU in channels-last layout,
            while forward passes alone are faster.
        precision: 'fp32' or 'bf16'; none lets the device decide.
        channels_last: memory layout; none lets the device decide.
        compiled: torch.compile; none: for training on a GPU. Compiling takes longer than predicting a patient.

    Raises:
        DvtError: if the device is not there or the precision is unknown.
    """
    name = _find(device)
    if precision is not None and precision not in PRECISIONS:
        raise DvtError(f"--precision {precision}: expected one of {', '.join(PRECISIONS)}.")
    kind = torch.device(name).type
    bf16, compiles = _cuda_gains(name) if kind == "cuda" else (False, False)
    chosen = precision or ("bf16" if bf16 else "fp32")
    gains = kind == "cuda" or (kind == "cpu" and not training)
    layout = gains if channels_last is None else channels_last
    does_compile = (compiles and training) if compiled is None else compiled
    words = [chosen, "channels last" if layout else "channels first", *(["compiled"] if does_compile else [])]
    missing = "No GPU found: running on the CPU, " if device == "auto" and kind == "cpu" else ""
    threads = torch.get_num_threads()
    where = f"{threads} thread{'s' if threads > 1 else ''}" if kind == "cpu" else _title(name)
    description = (
        f"{missing}{where} ({', '.join(words)})." if missing else f"Running on {name}: {where} ({', '.join(words)})."
    )
    return DeviceConfig(
        device=name,
        precision=chosen,
        channels_last=layout,
        compiled=does_compile,
        training=training,
        description=description,
    )


Forward = Callable[[torch.Tensor], torch.Tensor]
"""A network, or what stands for it."""


def try_compile(network: Forward, setup: DeviceConfig, trial: Callable[[Forward], object]) -> tuple[Forward, str]:
    """A network that is compiled where this is chosen and can be done, else as it is.

    On a GPU while training its kernels are recorded as CUDA graphs, so that a step of two slices does
    not wait for Python. Compilation fails late, when shapes are known, and for want of many things
    (a C compiler, Triton, headers), so it is tried here.

    Args:
        network: images in, logits out.
        setup: what was chosen.
        trial: runs what it is given as it will be run later, backward passes included.

    Returns:
        What to call, and where compilation failed a line that says so.
    """
    if not setup.compiled:
        return network, ""
    graphs = setup.training and setup.device.startswith("cuda")
    made = torch.compile(network, mode="reduce-overhead" if graphs else None)
    try:
        trial(made)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # compilers fail in their own ways; the network runs without
        torch.compiler.reset()
        if setup.device.startswith("cuda"):
            torch.cuda.synchronize(setup.device)  # an error that the GPU cannot recover from shows here
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return network, f"torch.compile does not work here ({reason}): going on without it."
    return made, ""


def _find(device: str) -> str:
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise DvtError(f"--device {device}: expected auto, cuda, cuda:N, cpu or mps.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise DvtError(
                f"--device {device}: PyTorch sees {count} CUDA GPUs here. Use --device cpu, or mend the driver."
            )
        return f"cuda:{int(index or 0)}"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DvtError("--device mps: PyTorch sees no Apple GPU here. Use --device cpu.")
    return kind


def _cuda_gains(name: str) -> tuple[bool, bool]:
    """Whether bf16 and compilation pay on a CUDA device."""
    capability = torch.cuda.get_device_capability(name)
    triton = importlib.util.find_spec("triton") is not None
    return capability >= BF16_CAPABILITY, capability >= COMPILE_CAPABILITY and triton


def _title(name: str) -> str:
    return torch.cuda.get_device_name(name) if name.startswith("cuda") else "Apple GPU"


@contextlib.contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn an accelerator's lack of memory into a line that says what to do.

    Raises:
        DvtError: where what is done inside runs out of memory.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise DvtError(f"The GPU's memory ran out ({reason}). {advice}") from error


def one_per_process(device: str, count: int) -> list[str]:
    """Names of several devices of a kind, one for each of several processes.

    Raises:
        DvtError: if fewer GPUs are there, or the device is a certain one of them.
    """
    kind = _find(device).partition(":")[0]
    if ":" in device or kind == "mps":
        raise DvtError(f"--device {device}: is one device, --gpus asks for {count}. Use --device cuda or cpu.")
    if kind == "cpu" and device == "auto" and count > 1:
        raise DvtError(f"--gpus {count}: no GPU found. Leave it away, or share the CPU by adding --device cpu.")
    if kind == "cuda" and torch.cuda.device_count() < count:
        raise DvtError(f"--gpus {count}: PyTorch sees {torch.cuda.device_count()} CUDA GPUs here. Use as many.")
    return [f"cuda:{i}" if kind == "cuda" else kind for i in range(count)]
