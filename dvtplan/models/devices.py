"""Choose how networks run on this machine: device, precision, memory layout, compilation."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from dvtplan.core.errors import DvtError

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}
BF16_CAPABILITY = (8, 0)
"""First CUDA generation (Ampere) with bf16 matrix units."""
COMPILE_CAPABILITY = (7, 0)
"""First CUDA generation that Triton supports; a GTX 1080 Ti (6.1) runs uncompiled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceConfig:
    """How networks run on this machine."""

    device: str
    precision: str
    """'fp32', or 'bf16': autocast with float32 weights."""
    channels_last: bool
    compiled: bool
    training: bool
    """Whether backward passes run, too."""
    description: str
    """The choice in words, for the user."""

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        dtype = PRECISIONS[self.precision]
        if dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=dtype)

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory layout of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device and give its weights the memory layout."""
        return network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def free_bytes(self) -> int | None:
        """Return the free memory of a CUDA device; None for other devices, which share the system's memory."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.empty_cache()  # PyTorch's cache would not count as free
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
    """Choose how networks run on this machine. Arguments override each choice.

    Args:
        device: 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'.
        training: whether backward passes run, too. On a CPU, channels-last layout makes them slower, but forward
            passes alone faster.
        precision: 'fp32' or 'bf16'; None: the device decides.
        channels_last: memory layout; None: the device decides.
        compiled: whether to use torch.compile; None: only for training on a GPU. Compiling takes longer than the
            prediction of a patient.

    Raises:
        DvtError: if the device is not available or the precision is unknown.
    """
    name = _find(device)
    if precision is not None and precision not in PRECISIONS:
        raise DvtError(f"`precision={precision}`: expected one of {', '.join(PRECISIONS)}.")
    kind = torch.device(name).type
    bf16, compiles = _cuda_gains(name) if kind == "cuda" else (False, False)
    chosen = precision or ("bf16" if bf16 else "fp32")
    layout_helps = kind == "cuda" or (kind == "cpu" and not training)
    layout = layout_helps if channels_last is None else channels_last
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
"""A network, or a function in its place: images -> logits."""


def try_compile(network: Forward, setup: DeviceConfig, trial: Callable[[Forward], object]) -> tuple[Forward, str]:
    """Compile a network if the setup says so and compilation works here.

    For training on a GPU, its kernels are recorded as CUDA graphs, so that a step of two slices does not wait for
    Python. Compilation fails late, when shapes are known, and for many reasons (no C compiler, Triton or headers).
    Therefore it is tried here.

    Args:
        network: images -> logits.
        setup: how networks run.
        trial: runs its argument as it will run later, backward passes included.

    Returns:
        The compiled network, or the network itself; and why compilation failed, or an empty string.
    """
    if not setup.compiled:
        return network, ""
    graphs = setup.training and setup.device.startswith("cuda")
    compiled = torch.compile(network, mode="reduce-overhead" if graphs else None)
    try:
        trial(compiled)
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # compilers raise many types; the network runs uncompiled
        torch.compiler.reset()
        if setup.device.startswith("cuda"):
            torch.cuda.synchronize(setup.device)  # raises if the GPU cannot recover
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        return network, f"torch.compile does not work here ({reason}): continuing without it."
    return compiled, ""


def _find(device: str) -> str:
    if device == "auto":
        if torch.cuda.is_available():
            return "cuda:0"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise DvtError(f"`device={device}`: expected auto, cuda, cuda:N, cpu or mps.")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise DvtError(
                f"`device={device}`: PyTorch finds {count} CUDA GPUs here. Use `device='cpu'`, or fix the driver."
            )
        return f"cuda:{int(index or 0)}"
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DvtError("`device=mps`: PyTorch finds no Apple GPU here. Use `device='cpu'`.")
    return kind


def _cuda_gains(name: str) -> tuple[bool, bool]:
    """Return whether bf16 and compilation make a CUDA device faster."""
    capability = torch.cuda.get_device_capability(name)
    triton = importlib.util.find_spec("triton") is not None
    return capability >= BF16_CAPABILITY, capability >= COMPILE_CAPABILITY and triton


def _title(name: str) -> str:
    return torch.cuda.get_device_name(name) if name.startswith("cuda") else "Apple GPU"


@contextlib.contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Convert an out-of-memory error of a GPU to a message with advice.

    Raises:
        DvtError: if the code inside runs out of GPU memory.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        reason = str(error).partition(". ")[0]
        raise DvtError(f"The GPU ran out of memory ({reason}). {advice}") from error


def one_per_process(device: str, count: int) -> list[str]:
    """Return device names for several processes, one for each.

    Raises:
        DvtError: if there are fewer GPUs, or ``device`` names a single one.
    """
    kind = _find(device).partition(":")[0]
    if ":" in device or kind == "mps":
        raise DvtError(
            f"`device={device}`: is one device, but `processes={count}`. Use `device='cuda'` or `device='cpu'`."
        )
    if kind == "cpu" and device == "auto" and count > 1:
        raise DvtError(f"`processes={count}`: no GPU found. Omit it, or set `device='cpu'` to share the CPU.")
    if kind == "cuda" and torch.cuda.device_count() < count:
        raise DvtError(
            f"`processes={count}`: PyTorch finds {torch.cuda.device_count()} CUDA GPUs here. Use at most as many."
        )
    return [f"cuda:{i}" if kind == "cuda" else kind for i in range(count)]
