"""What is chosen on which machine. GPUs that are not here are imitated by what torch.cuda answers."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch

from dvtplan.core.errors import DvtError
from dvtplan.models import devices


def pretend(monkeypatch: pytest.MonkeyPatch, *capabilities: tuple[int, int], triton: bool = True) -> None:
    """Make torch answer as on a machine with these CUDA GPUs."""
    cuda = {
        "is_available": lambda: bool(capabilities),
        "device_count": lambda: len(capabilities),
        "get_device_capability": lambda name: capabilities[torch.device(name).index],
        "get_device_name": lambda name: f"GPU {torch.device(name).index}",
        "mem_get_info": lambda name: (5_000 + torch.device(name).index, 9_000),
    }
    for name, answer in cuda.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda name: object() if triton else None)


def test_without_a_gpu_the_cpu_is_taken_and_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    setup = devices.choose()
    assert (setup.device, setup.precision, setup.channels_last, setup.compiled) == (
        "cpu",
        "fp32",
        True,
        False,
    )
    assert setup.description.startswith("No GPU found: running on the CPU, ") and "\n" not in setup.description
    assert devices.choose("cpu").description.startswith("Running on cpu: ")
    assert setup.free_bytes() is None


def test_training_on_a_cpu_takes_the_layout_that_backward_passes_like(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch)
    assert not devices.choose("cpu", training=True).channels_last
    assert devices.choose("cpu", training=True, precision="bf16").channels_last
    pretend(monkeypatch, (9, 0))
    assert devices.choose("cuda", training=True).channels_last


def test_a_gtx_1080_ti_runs_fp32_without_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (6, 1))
    setup = devices.choose()
    assert (setup.device, setup.precision, setup.channels_last, setup.compiled) == (
        "cuda:0",
        "fp32",
        True,
        False,
    )
    assert setup.description == "Running on cuda:0: GPU 0 (fp32, channels last)."


def test_an_h200_runs_compiled_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0))
    setup = devices.choose(training=True)
    assert (setup.precision, setup.compiled) == ("bf16", True)
    assert setup.description == "Running on cuda:0: GPU 0 (bf16, channels last, compiled)."


def test_prediction_is_compiled_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0))
    assert not devices.choose().compiled
    assert devices.choose(compiled=True).compiled


def test_a_volta_compiles_but_stays_with_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (7, 0))
    setup = devices.choose(training=True)
    assert (setup.precision, setup.compiled) == ("fp32", True)


def test_without_triton_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0), triton=False)
    assert not devices.choose(training=True).compiled


def test_every_choice_can_be_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0))
    setup = devices.choose("cuda", precision="fp32", channels_last=False, compiled=False)
    assert (setup.precision, setup.channels_last, setup.compiled) == ("fp32", False, False)
    assert setup.memory_format == torch.contiguous_format
    assert devices.choose("cpu", precision="bf16").precision == "bf16"


def test_a_gpu_is_named_by_its_number_and_tells_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (6, 1), (9, 0))
    setup = devices.choose("cuda:1")
    assert (setup.device, setup.precision, setup.free_bytes()) == ("cuda:1", "bf16", 5_001)
    assert devices.choose("cuda").device == "cuda:0"


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda", 0, "`device=cuda`: PyTorch finds 0 CUDA GPUs here"),
        ("cuda:2", 2, "`device=cuda:2`: PyTorch finds 2 CUDA GPUs here"),
        ("mps", 0, "`device=mps`: PyTorch finds no Apple GPU"),
        ("gpu", 1, "`device=gpu`: expected auto, cuda, cuda:N, cpu or mps"),
        ("cuda:x", 1, "`device=cuda:x`: expected auto"),
        ("cuda:-1", 1, "`device=cuda:-1`: expected auto"),
        ("", 1, "`device=`: expected auto"),
    ],
)
def test_a_device_that_is_not_there_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, gpus: int, message: str
) -> None:
    pretend(monkeypatch, *[(9, 0)] * gpus)
    with pytest.raises(DvtError, match=message):
        devices.choose(device)


def test_an_unknown_precision_is_refused_with_the_choices() -> None:
    with pytest.raises(DvtError, match="`precision=fp16`: expected one of fp32, bf16"):
        devices.choose("cpu", precision="fp16")


def test_several_processes_get_a_gpu_each_or_share_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0), (9, 0))
    assert devices.one_per_process("auto", 2) == ["cuda:0", "cuda:1"]
    assert devices.one_per_process("cpu", 3) == ["cpu", "cpu", "cpu"]
    with pytest.raises(DvtError, match="`processes=3`: PyTorch finds 2 CUDA GPUs here"):
        devices.one_per_process("cuda", 3)
    with pytest.raises(DvtError, match="`device=cuda:1`: is one device, but `processes=2`"):
        devices.one_per_process("cuda:1", 2)


def test_autocast_is_bf16_or_nothing() -> None:
    layer, image = torch.nn.Conv2d(1, 1, 1), torch.rand(1, 1, 2, 2)
    with devices.choose("cpu", training=True, precision="bf16").autocast():
        assert layer(image).dtype == torch.bfloat16
    plain = devices.choose("cpu").autocast()
    assert isinstance(plain, contextlib.nullcontext)


def test_a_gpu_without_memory_left_is_one_line_with_advice() -> None:
    line = r"^The GPU ran out of memory \(CUDA out of memory\)\. Use a smaller batch\.$"
    with pytest.raises(DvtError, match=line), devices.explain_out_of_memory("Use a smaller batch."):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB. GPU 0 has 8 GiB")


def test_several_gpus_where_there_is_none_are_refused_unless_the_cpu_is_meant() -> None:
    if torch.cuda.is_available() or torch.backends.mps.is_available():
        assert devices.one_per_process("cpu", 2) == ["cpu", "cpu"]
    else:
        with pytest.raises(DvtError, match=r"^`processes=2`: no GPU found"):
            devices.one_per_process("auto", 2)


# --- compilation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("device", "training", "mode"), [("cuda:0", True, "reduce-overhead"), ("cuda:0", False, None), ("cpu", True, None)]
)
def test_kernels_are_recorded_as_graphs_where_a_gpu_trains(
    monkeypatch: pytest.MonkeyPatch, device: str, training: bool, mode: str | None
) -> None:
    seen: list[str | None] = []
    monkeypatch.setattr(torch, "compile", lambda network, mode: seen.append(mode) or network)
    setup = replace(devices.choose("cpu", training=training, compiled=True), device=device)
    network = torch.nn.Identity()
    tried: list[object] = []
    assert devices.try_compile(network, setup, tried.append) == (network, "")
    assert seen == [mode] and tried == [network]
    assert devices.try_compile(network, replace(setup, compiled=False), tried.append) == (network, "")
    assert len(seen) == len(tried) == 1


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(forward: object) -> None:
        raise ModuleNotFoundError("No module named 'triton'\n  at length")

    monkeypatch.setattr(torch, "compile", lambda network, mode: torch.nn.ReLU())
    setup = devices.choose("cpu", compiled=True)
    network = torch.nn.Identity()
    made, failure = devices.try_compile(network, setup, fail)
    assert made is network
    assert "torch.compile does not work here (No module named 'triton')" in failure


def test_a_lack_of_memory_is_no_failure_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(forward: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 2 GiB")

    monkeypatch.setattr(torch, "compile", lambda network, mode: network)
    with pytest.raises(torch.OutOfMemoryError):
        devices.try_compile(torch.nn.Identity(), devices.choose("cpu", compiled=True), full)


def test_memory_that_pytorch_keeps_for_later_counts_as_free(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (9, 0))
    kept = [60]
    monkeypatch.setattr(torch.cuda, "empty_cache", kept.clear)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 - sum(kept), 80))
    assert devices.choose("cuda").free_bytes() == 80
