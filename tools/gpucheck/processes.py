"""Check whole trainings as processes: killed and resumed, under torchrun, and out of memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from bench.results import Row
from phantom.cohort import Design, make_cohort

from dvtplan.core import worker_pool
from dvtplan.core.json_records import load
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import epoch_log
from dvtplan.planning.cost import training_bytes
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess
from gpucheck.checks import Check, OutOfTime
from gpucheck.collectives import WORKS
from gpucheck.settings import SEED, Settings
from gpucheck.small_training import EPOCHS

CASES, FOLDS = 2, 2
KILL_AFTER = 2
"""Epochs after which a training is killed."""
TIMES_TOO_LARGE = 40
"""Size of the too large batch, in multiples of the GPU's memory."""


def prepare(settings: Settings) -> Workspace:
    """Return the small cohort, planned and preprocessed on first use."""
    small = settings.small
    ready = small.root / "ready"
    if not ready.exists():
        shutil.rmtree(small.root, ignore_errors=True)
        make_cohort(small.root, Design(scale="tiny", cases=CASES, seed=SEED), dataset=small.dataset)
        plan_and_preprocess(small.root, small.dataset, options=PreprocessOptions(folds=FOLDS, jobs=1))
        ready.touch()
    return small


def copy_of(small: Workspace, name: str) -> Workspace:
    """Copy the small cohort without results, for a training; an earlier copy is replaced."""
    root = small.root.with_name(f"small_{name}")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(small.root, root, ignore=shutil.ignore_patterns(small.all_results.parent.name))
    return Workspace(root, small.dataset)


# --- killed and resumed ---------------------------------------------------------------------------


def resume(settings: Settings, *, deterministic: bool, compiled: bool, recipe: str = "paper") -> Iterator[Row]:
    """Compare a training that is killed during an epoch and resumed with an uninterrupted one."""
    title = "as dvt_train runs it" if not deterministic else "deterministic algorithms, not compiled"
    small = prepare(settings)
    tag = f"{recipe}_{'exact' if deterministic else 'default'}"
    options: dict[str, bool | str] = {
        "deterministic": deterministic, "compiled": compiled, "resume": False, "recipe": recipe
    }  # fmt: skip
    whole, killed = (copy_of(small, f"{tag}_{kind}") for kind in ("whole", "killed"))
    with ThreadPoolExecutor(1) as pool:
        uninterrupted = pool.submit(run_process, _command(settings, whole, options), settings)
        _kill(settings, killed, options)
        done = len(epoch_log.read_epochs(killed.fold("gn_unet", 0).epochs, before=EPOCHS))
        run_process(_command(settings, killed, {**options, "resume": True}), settings)
        uninterrupted.result()
    largest = largest_difference(whole.fold("gn_unet", 0), killed.fold("gn_unet", 0))
    yield Row(
        section="resume", what=f"largest difference of weights, {recipe}, {title}", value=largest, unit="",
        at_most=0.0 if deterministic else None, note=f"killed after {done} of {EPOCHS} epochs, then resumed",
    )  # fmt: skip


def largest_difference(one: FoldFolder, other: FoldFolder) -> float:
    """Return the largest difference of the weights of two checkpoints, over the largest weight; 0 if bit-identical.

    Averaged weights count, too.
    """
    loaded = [torch.load(f.checkpoint, map_location="cpu", weights_only=True) for f in (one, other)]
    states = [_all_weights(state) for state in loaded]
    if all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items()):
        return 0.0
    pairs = [(tensor.double(), states[1][name].double()) for name, tensor in states[0].items()]
    largest = max(float((a - b).abs().max()) for a, b in pairs)
    return largest / max(float(a.abs().max()) for a, _ in pairs)


def _all_weights(state: dict[str, Any]) -> dict[str, torch.Tensor]:
    averaged = state["average"]["weights"] if "average" in state else {}
    return {**state["network"], **{f"average {name}": tensor for name, tensor in averaged.items()}}


def _command(settings: Settings, workspace: Workspace, options: dict[str, bool | str]) -> list[str]:
    words = [settings.to_json(), str(workspace.root), json.dumps(options)]
    return [sys.executable, "-m", "gpucheck.small_training", *words]


def _variables() -> dict[str, str]:
    """Return an environment with deterministic cuBLAS, in which a part of the cores compiles."""
    threads = str(max(2, worker_pool.available_cores() // 4))
    return {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TORCHINDUCTOR_COMPILE_THREADS": threads}


def _kill(settings: Settings, workspace: Workspace, options: dict[str, bool | str]) -> None:
    """Start a training and kill it after some epochs."""
    epochs = workspace.fold("gn_unet", 0).epochs
    process = subprocess.Popen(_command(settings, workspace, options), env=_variables())
    while len(epoch_log.read_epochs(epochs, before=EPOCHS)) < KILL_AFTER:
        if process.poll() is not None:
            raise RuntimeError(f"the training ended with status {process.returncode} before it could be killed")
        _require_time(settings, process)
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError("the training had ended before it could be killed")


def run_process(command: Sequence[str], settings: Settings) -> str:
    """Run a process within the remaining time; return its standard output.

    Raises:
        OutOfTime: if it takes longer; the process is killed.
        RuntimeError: if it fails.
    """
    try:
        done = subprocess.run(
            command, env=_variables(), stdout=subprocess.PIPE, text=True, timeout=max(1.0, settings.remaining_s - 1)
        )
    except subprocess.TimeoutExpired:
        raise OutOfTime(f"{command[2]} was still running") from None
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:3])}: ended with status {done.returncode}, see the log")
    return done.stdout


def _require_time(settings: Settings, process: subprocess.Popen[bytes]) -> None:
    if settings.remaining_s < 1:
        process.kill()
        raise OutOfTime("the training was still running")


# --- several processes ----------------------------------------------------------------------------


def collectives(settings: Settings, *, compiled: bool) -> Iterator[Row]:
    """Check the collectives of a data-parallel training in one process under torchrun: NCCL on a GPU, Gloo on a CPU.

    Args:
        settings: settings of this run.
        compiled: whether the network of the training step is compiled.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launcher = ["torch.distributed.run", "--nproc-per-node", "1", "--master-port", str(port)]
    options = [settings.to_json(), str(os.getpid()), *(["compiled"] if compiled else [])]
    command = [sys.executable, "-m", *launcher, "-m", "gpucheck.collectives", *options]
    found = json.loads(run_process(command, settings).splitlines()[-1])
    words = [name for name in ("mean", "gather", "from leader", "dice loss") if not found[name]]
    if words:
        raise RuntimeError(f"{found['backend']}: wrong results of {', '.join(words)}")
    if found["compilation"] != WORKS:
        raise RuntimeError(found["compilation"])
    name = "compiled step" if compiled else "step"
    yield Row(
        section="collectives", what=f"{name} through {found['backend']}: gradient, cosine with one alone",
        value=found["step"], unit="", at_least=0.999, note="with DistributedDataParallel",
    )  # fmt: skip


# --- out of memory --------------------------------------------------------------------------------


def out_of_memory(settings: Settings) -> Iterator[Row]:
    """Check that a batch too large for any GPU gives one clear line and exit status 1."""
    workspace = copy_of(prepare(settings), "memory")
    plan = load(Plan, workspace.plan, "dvt_plan_and_preprocess")
    memory = torch.cuda.get_device_properties(settings.device).total_memory
    batch = TIMES_TOO_LARGE * memory // training_bytes(plan.target_shape, 1)
    where = ["--root", str(workspace.root), "--device", settings.device]
    command = [sys.executable, "-m", "dvtplan.cli", "train", "0", *where, "--batch-size", str(batch), "--no-compile"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=max(1.0, settings.remaining_s - 1))
    except subprocess.TimeoutExpired:
        raise OutOfTime("dvt_train was still running") from None
    print(done.stderr, file=sys.stderr)
    lines = [line for line in done.stderr.splitlines() if "memory ran out" in line]
    clear = done.returncode == 1 and len(lines) == 1 and "Traceback" not in done.stderr
    yield Row(
        section="out of memory", what="one clear line and exit status 1", value=float(clear), unit="", at_least=1,
        note=f"--batch-size {batch}: status {done.returncode}; {lines[0] if lines else done.stderr.strip()[-200:]}",
    )  # fmt: skip


def checks() -> tuple[Check, ...]:
    """Return the checks of trainings that are killed and resumed."""
    exact = partial(resume, deterministic=True, compiled=False)
    as_run = partial(resume, deterministic=False, compiled=True)
    return (
        Check(name="resume, exact", measure=exact, must_hold=True),
        Check(name="resume modern, exact", measure=partial(exact, recipe="modern"), must_hold=True),
        Check(name="resume, as run", measure=as_run, needs_gpu=True, must_hold=True),
        Check(name="resume modern, as run", measure=partial(as_run, recipe="modern"), needs_gpu=True, must_hold=True),
    )


def collectives_checks() -> tuple[Check, ...]:
    """Return the checks of a data-parallel training; compilation takes long and is last."""
    return (
        Check(name="collectives", measure=partial(collectives, compiled=False), must_hold=True),
        Check(
            name="collectives, compiled", measure=partial(collectives, compiled=True), needs_gpu=True, must_hold=True
        ),
    )


def memory_check() -> Check:
    """Return the check of a batch that is too large; it briefly uses all of the GPU's memory."""
    return Check(name="out of memory", measure=out_of_memory, needs_gpu=True, must_hold=True)
