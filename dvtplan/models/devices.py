"""Choose how networks run on this machine: device, precision, memory layout, compilation."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn

from dvtplan.core.errors import DvtError
from dvtplan.models.networks.inference_form import convert_for_inference

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
    """'fp32' or 'bf16'. bf16 is autocast with float32 weights, or for predictions on a CPU convolutions in bf16."""
    channels_last: bool
    compiled: bool
    training: bool
    """Whether backward passes run, too."""
    hardware: str = ""
    """Device in words: 'Running on cuda:0: NVIDIA H200'."""
    alternatives: tuple[DeviceConfig, ...] = ()
    """Other ways that may be faster on this processor; ``speed_trial`` decides."""
    trial: str = ""
    """Times of the trial that decided, in words; empty if there was none."""

    @property
    def description(self) -> str:
        """The choice in words: 'Running on cpu: 2 threads (bf16, channels last).'."""
        return f"{self.hardware} ({self.words})."

    @property
    def description_with_trial(self) -> str:
        """``description`` and why, if a trial decided."""
        return f"{self.description} {self.trial}".rstrip()

    @property
    def words(self) -> str:
        """Precision, layout and compilation: 'bf16, channels last'."""
        layout = "channels last" if self.channels_last else "channels first"
        return ", ".join([self.precision, layout, *(["compiled"] if self.compiled else [])])

    @property
    def _converts(self) -> bool:
        """Whether ``place`` gives the convolutions bf16 weights. Autocast would convert them in every pass."""
        return self.precision == "bf16" and self.device == "cpu" and not self.training

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which forward passes run."""
        dtype = PRECISIONS[self.precision]
        if dtype is None or self._converts:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=dtype)

    def images(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        """Return images on this device in the layout and number type that a placed network takes."""
        dtype = torch.bfloat16 if self._converts else image_BCHW.dtype
        return image_BCHW.to(dtype).contiguous(memory_format=self.memory_format)

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory layout of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device and give its weights the memory layout.

        For predictions on a CPU it is also converted: it can no longer be trained.
        """
        placed: nn.Module = network.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload]
        if self.device == "cpu" and not self.training:
            convert_for_inference(placed, torch.bfloat16 if self._converts else torch.float32)
        return placed

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

    On a CPU the choice is the default, float32, with the alternatives that the arguments leave open.

    Args:
        device: 'auto', 'cpu', 'mps', 'cuda' or 'cuda:N'.
        training: whether backward passes run, too. Then the default layout on a CPU is channels first in float32.
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
    layout_helps = kind == "cuda" or (kind == "cpu" and (not training or chosen == "bf16"))
    layout = layout_helps if channels_last is None else channels_last
    does_compile = (compiles and training) if compiled is None else compiled
    place = "No GPU found: running on the CPU," if device == "auto" and kind == "cpu" else f"Running on {name}:"
    threads = torch.get_num_threads()
    where = f"{threads} thread{'s' if threads > 1 else ''}" if kind == "cpu" else _title(name)
    setup = DeviceConfig(
        device=name,
        precision=chosen,
        channels_last=layout,
        compiled=does_compile,
        training=training,
        hardware=f"{place} {where}",
    )
    if kind != "cpu" or does_compile:
        return setup
    return replace(setup, alternatives=_alternatives(setup, precision is None, channels_last is None))


def _alternatives(setup: DeviceConfig, any_precision: bool, any_layout: bool) -> tuple[DeviceConfig, ...]:
    """Return the ways of running on a CPU that may be faster, of those that the user left open."""
    precisions = ("fp32", "bf16") if any_precision and _cpu_supports_bf16() else (setup.precision,)
    layouts = (False, True) if any_layout and setup.training else (setup.channels_last,)
    # bf16 in channels-first layout is never the fastest: its convolutions need the other layout.
    ways = [(p, last) for p in precisions for last in layouts if p == "fp32" or last or not any_layout]
    here = setup.precision, setup.channels_last
    return tuple(replace(setup, precision=p, channels_last=last) for p, last in ways if (p, last) != here)


def processor() -> str:
    """Return what the CPU computes with, as far as it decides rounding: 'AVX512 bf16 AMX'."""
    units = {"bf16": "_is_avx512_bf16_supported", "AMX": "_is_amx_tile_supported"}
    present = [name for name, test in units.items() if getattr(torch.cpu, test, lambda: False)()]
    return " ".join([torch.backends.cpu.get_cpu_capability(), *present])


def _cpu_supports_bf16() -> bool:
    """Return whether the CPU's convolutions take bf16; whether they are faster, only a trial can show."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return supported is not None and bool(supported())


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
