"""The check of the GPU code: complete on a CPU, killed at any moment, and its checks fail on errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu_check
import pytest
import torch
from bench import results, steps, training
from bench.inputs import Bench
from bench.results import Row
from gpucheck import networks, operations, processes, study
from gpucheck.checks import Check, OutOfTime
from gpucheck.child import run_check
from gpucheck.parts import PARTS
from gpucheck.record import NAME, Record
from gpucheck.runner import LAST, SHARES, STAGES, Runner, shorten_log
from gpucheck.settings import LOG, Settings

from dvtplan.core.files import exclusive_lock
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import devices
from dvtplan.planning import recipe
from dvtplan.training import augmentation
from dvtplan.training.losses import focal

TOOL = Path(gpu_check.__file__)
GPU_ONLY = {
    "compiled networks",
    "resume, as run",
    "collectives, compiled",
    "out of memory",
    "auto",
    "synchronisations",
    "eager",
    "other ways",
}


def settings_of(folder: Path, seconds: float = 600.0) -> Settings:
    return Settings(out=folder, scratch=folder / "scratch", device="cpu", scale="tiny", until=time.time() + seconds)


def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the GPU code on this CPU, as far as it needs no CUDA."""
    for kind in (Settings, Bench):
        monkeypatch.setattr(kind, "on_gpu", property(lambda self: True))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123_000_000)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda mode: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=80e9))


def row_of(value: float, at_most: float | None = None) -> Row:
    return Row(section="s", what="w", value=value, unit="x", at_most=at_most)


# --- the command ----------------------------------------------------------------------------------


def command(out: Path, *options: object) -> list[str]:
    fixed = ["--device", "cpu", "--scale", "tiny", "--out", out]
    return [sys.executable, str(TOOL), *map(str, [*fixed, *options])]


def read(out: Path) -> dict[str, Any]:
    """Read the record; a number that JSON does not have is an error."""

    def refuse(word: str) -> float:
        raise ValueError(word)

    return json.loads((out / NAME).read_text(encoding="utf-8"), parse_constant=refuse)


def states(record: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for part in record["parts"] for check in part["checks"]}


def test_all_parts_run_on_a_cpu(tmp_path: Path) -> None:
    """A slow machine may not reach every check, but no check may fail.

    The last part trains until the time is over, so it has tests of its own.
    """
    parts = [part for part in PARTS if part != LAST]
    options = ("--minutes", 2, "--parts", *parts)
    done = subprocess.run(command(tmp_path / "x", *options), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read(tmp_path / "x")
    assert [part["name"] for part in record["parts"]] == parts
    found = states(record)
    assert {name for name, state in found.items() if state == "no GPU"} <= GPU_ONLY
    assert not any(found[name] in ("held", "missed") for name in GPU_ONLY)
    assert set(found.values()) <= {"held", "missed", "no GPU", "not reached", "stopped"}
    assert {found[name] for name in ("limits", "focal loss", "augmentation")} == {"held"}
    assert record["machine"]["versions"]["torch"] and record["minutes"] == 2
    files = list((tmp_path / "x").iterdir())
    assert len(files) <= 8 and all(file.stat().st_size < 15e6 for file in files)
    text = (tmp_path / "x" / LOG).read_text(encoding="utf-8")
    assert "Not reached:" in done.stdout and done.stdout.strip().splitlines()[-1] in text
    assert "Failed: nothing." in done.stdout


def test_the_last_part_alone_has_no_cohort_and_reaches_nothing(tmp_path: Path) -> None:
    options = ("--minutes", 1, "--parts", LAST)
    done = subprocess.run(command(tmp_path, *options), capture_output=True, text=True, check=False)
    (part,) = read(tmp_path)["parts"]
    assert done.returncode == 1 and part["state"] == "done"
    assert {check["state"] for check in part["checks"]} == {"not reached"}
    assert "cohort was not ready" in done.stdout


def started(out: Path) -> subprocess.Popen[str]:
    """Start a check and return it when a result is on disk and a part is running."""
    process = subprocess.Popen(command(out, "--minutes", 2), stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        if (out / NAME).exists() and states(read(out))["limits"] == "held" and alive(out):
            return process
        time.sleep(0.05)
    process.kill()
    raise AssertionError("no result came")


def test_a_killed_check_leaves_its_results_and_no_process(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.kill()
    process.wait()
    record = read(tmp_path)
    assert states(record)["limits"] == "held" and record["machine"]["cores"]
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and alive(tmp_path):
        time.sleep(0.2)
    assert alive(tmp_path) == []


def alive(out: Path) -> list[str]:
    """Return the processes with a folder in their command line; none if the system does not list processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:
            continue
        if str(out).encode() in words and int(path.parent.name) != os.getpid():
            found.append(words.decode())
    return found


def test_a_check_that_is_stopped_prints_its_results(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "matrix product" in text and "Not reached:" in text
    assert "stopped" in {part["state"] for part in read(tmp_path)["parts"]}
    assert alive(tmp_path) == []


@pytest.mark.parametrize("minutes", ["0", "many", "-1", "nan"])
def test_minutes_are_a_number_in_range(tmp_path: Path, capsys: pytest.CaptureFixture[str], minutes: str) -> None:
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(["--out", str(tmp_path / "x"), "--minutes", minutes])
    assert caught.value.code == 2 and f"'{minutes}'" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_a_gpu_that_is_not_there_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--out", str(tmp_path / "x"), "--device", "cuda"]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.docx").write_text("years of work")
    (tmp_path / NAME).write_text("{}")
    assert gpu_check.main(["--out", str(tmp_path), "--device", "cpu"]) == 1
    assert "thesis.docx" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir() if path.name[0] != "."} == {"thesis.docx", NAME}


def test_a_second_check_does_not_touch_the_results_of_one_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / NAME).write_text("{}")
    with exclusive_lock(tmp_path):
        assert gpu_check.main(["--out", str(tmp_path), "--device", "cpu"]) == 1
    assert str(tmp_path) in capsys.readouterr().err and (tmp_path / NAME).read_text() == "{}"


def test_an_output_that_is_a_file_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("of the user")
    for out in (tmp_path / "x", tmp_path / "x" / "sub"):
        assert gpu_check.main(["--out", str(out), "--device", "cpu"]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "x").read_text() == "of the user"


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    (tmp_path / "SimpleITK.py").write_text("raise ModuleNotFoundError(name='SimpleITK')")
    done = subprocess.run(
        [sys.executable, TOOL, "--out", tmp_path / "x"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "SimpleITK" in done.stderr and "gpu_check.md" in done.stderr


# --- parts and their time limits ------------------------------------------------------------------

CHILD = """
import json, os, subprocess, sys, time
part, settings, pipe = sys.argv[1:]
events = os.fdopen(int(pipe), "w")
def report(**event):
    events.write(json.dumps(event) + chr(10))
    events.flush()
row = dict(section="s", what="w", value=1.0, unit="", at_least=None, at_most=None, note="", detail={}, verdict="")
report(event="begin", check="one")
report(event="row", check="one", row=row)
report(event="end", check="one", state="held", error="", seconds=0.1)
report(event="begin", check="two")
if part == "machine":
    print("the last words", flush=True)
    os.kill(os.getpid(), 9)
if part == "right":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", json.loads(settings)["out"]])
    time.sleep(600)
if part == "fast":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", json.loads(settings)["out"]],
                     pass_fds=[int(pipe)])
report(event="end", check="two", state="held", error="", seconds=0.1)
report(event="bye")
"""


def test_a_part_that_crashes_or_hangs_does_not_stop_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_child.py").write_text(CHILD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("gpucheck.runner.SHARES", {"machine": 1.0, "right": 0.1, "fast": 1.0, "whole": 1.0})
    names = ["machine", "right", "fast", "whole"]
    record = Record(tmp_path / NAME, {"command": "c"}, {name: ["one", "two", "three"] for name in names})
    said: list[str] = []
    Runner(settings_of(tmp_path, 30.0), record, said.append, child="fake_child").run([[name] for name in names])
    found = {part["name"]: part for part in read(tmp_path)["parts"]}
    assert [found[name]["state"] for name in names] == ["failed", "stopped", "done", "done"]
    assert "status -9" in found["machine"]["error"] and "the last words" in found["machine"]["error"]
    assert all(part["checks"][0]["rows"][0]["value"] == 1.0 for part in found.values())
    assert [check["state"] for check in found["right"]["checks"]] == ["held", "stopped", "not reached"]
    assert [check["state"] for check in found["fast"]["checks"]] == ["held", "held", "not reached"]
    assert record.failed and "machine: its process ended" in record.to_text()
    assert alive(tmp_path) == []


def test_parallel_parts_may_end_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one part is ended, other parts report that they are done or reach their own time limit."""
    child = CHILD.replace('part == "right"', 'part in ("right", "compiled")').replace(
        'report(event="bye")', "time.sleep(3.0)" + chr(10) + 'report(event="bye")'
    )
    (tmp_path / "fake_child.py").write_text(child)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    names = ["right", "compiled", "whole", "cohort"]
    monkeypatch.setattr("gpucheck.runner.SHARES", dict.fromkeys(names, 0.1))
    record = Record(tmp_path / NAME, {}, {name: ["one", "two", "three"] for name in names})
    Runner(settings_of(tmp_path, 30.0), record, lambda text: None, child="fake_child").run([names])
    found = {part["name"]: part["state"] for part in read(tmp_path)["parts"]}
    assert found["right"] == found["compiled"] == "stopped"
    assert {found["whole"], found["cohort"]} <= {"stopped", "done"}
    assert all(part["checks"][0]["state"] == "held" for part in read(tmp_path)["parts"])
    assert alive(tmp_path) == []


def test_parts_not_reached_in_time_are_named(tmp_path: Path) -> None:
    record = Record(tmp_path / NAME, {}, {"machine": ["limits"]})
    Runner(settings_of(tmp_path, 1.0), record, lambda text: None).run([["machine"]])
    assert not record.failed and record.empty
    assert "machine, limits: its part was not reached" in record.to_text()


def test_a_process_ends_with_an_ancestor_that_is_not_its_parent(tmp_path: Path) -> None:
    """Like a worker of torchrun, which has its own session, after its part was killed."""
    ancestor = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    program = "import sys, time; from gpucheck import lifetime; lifetime.end_with_the_parent(int(sys.argv[1])); "
    worker = subprocess.Popen(
        [sys.executable, "-c", program + "print('ready', flush=True); time.sleep(60)", str(ancestor.pid)],
        stdout=subprocess.PIPE, start_new_session=True, env={**os.environ, "PYTHONPATH": str(TOOL.parent)},
    )  # fmt: skip
    assert worker.stdout is not None and worker.stdout.readline() == b"ready\n"
    assert worker.poll() is None
    ancestor.kill()
    ancestor.wait()
    assert worker.wait(timeout=30) == -signal.SIGKILL


# --- checks ---------------------------------------------------------------------------------------


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

    assert outcome(good, tmp_path, must_hold=True) == ("held", "", 1)
    assert outcome(beyond, tmp_path) == ("missed", "", 2)
    assert outcome(lambda _: iter([row_of(float("nan"), at_most=2.0)]), tmp_path, must_hold=True)[0] == "failed"
    assert outcome(beyond, tmp_path, must_hold=True) == ("failed", "", 2)
    assert outcome(late, tmp_path) == ("not reached", "too late", 0)
    assert outcome(good, tmp_path, needs_gpu=True) == ("no GPU", "", 0)
    state, error, figures = outcome(broken, tmp_path)
    assert (state, figures) == ("failed", 1) and error.endswith("ValueError: why")


def test_the_table_names_what_failed_what_missed_its_goal_and_what_was_not_reached(tmp_path: Path) -> None:
    record = Record(tmp_path / NAME, {"command": "c"}, {"right": ["a", "b"], "fast": ["c", "d"]})
    for part, check, state, error in (
        ("right", "a", "failed", "Traceback\nValueError: why"), ("right", "b", "held", ""), ("fast", "c", "missed", "")
    ):  # fmt: skip
        record.take(part, {"event": "begin", "check": check})
        record.take(part, {"event": "row", "check": check, "row": results.to_json(row_of(3.0, at_most=2.0))})
        record.take(part, {"event": "end", "check": check, "state": state, "error": error, "seconds": 1.0})
    record.end("fast", "stopped", 9.0)
    failed, _, rest = record.to_text().partition("Failed:")[2].partition("Goals missed:")
    missed, _, unreached = rest.partition("Not reached:")
    assert "right, a: Traceback" in failed and "ValueError: why" in failed
    assert "fast, c: w: 3 x, expected <= 2" in missed
    assert "fast, d: its part was stopped" in unreached
    assert "1 held, 1 failed, 1 missed, 1 not reached" in record.to_text()
    assert record.failed


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = tmp_path / LOG
    log.write_text("begin" + "x" * 10_000 + "end")
    shorten_log(log, 1000)
    text = log.read_text()
    assert text.startswith("begin") and text.endswith("end") and "omitted" in text and len(text) < 1100


def test_every_part_is_in_a_stage_and_every_check_has_its_own_name() -> None:
    assert [part for stage in STAGES for part in stage] == list(PARTS) == list(SHARES)
    names = [check.name for checks in PARTS.values() for check in checks]
    assert len(set(names)) == len(names) and set(names) > GPU_ONLY


@pytest.fixture
def fresh(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the toy with its own results; its data must not be changed."""
    for name in ("datasets_raw", "datasets_preprocessed"):
        (tmp_path / name).symlink_to(toy_once.root / name)
    return Workspace(tmp_path, toy_once.dataset)


# --- errors are found -----------------------------------------------------------------------------


def test_a_loss_that_differs_on_the_device_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its value or its gradient alone."""
    assert outcome(operations.loss, tmp_path, must_hold=True)[0] == "held"
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

    def counted(workspace: Workspace, device: str, epochs: int, batch: int) -> Counter[str]:
        return Counter({"train.py fit": 3 * epochs + 7, "train.py step": epochs * slices // batch})

    monkeypatch.setattr(Bench, "prepared", lambda self, scale, cases: toy_once)
    monkeypatch.setattr(training, "_waits", counted)
    epoch, step = training.synchronisations(Bench(scratch=Path(), device="cpu", rounds=1, tiny=True))
    assert epoch.value == 3 + slices / 2 and "train.py fit 3" in epoch.note
    assert step.value == pytest.approx(1.0) and step.verdict == "missed"


def test_a_wait_is_attributed_to_the_function_that_waited(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu(monkeypatch)
    isfinite = torch.isfinite

    def waiting(value: torch.Tensor) -> torch.Tensor:
        warnings.warn(f"called a {training.SYNCHRONISING}", stacklevel=1)
        return isfinite(value)

    monkeypatch.setattr(torch, "isfinite", waiting)
    found = training._waits(fresh, "cpu", 1, 6)
    # An epoch has two steps, whose losses are checked together; then every weight is checked once.
    assert {place.split()[0] for place in found} == {"trainer.py"} and found["trainer.py _finite_mean"] == 1


@pytest.mark.parametrize("way", [steps.TUNED, steps.CHANNELS_FIRST])
def test_a_step_is_measured_in_every_way_of_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    on_gpu(monkeypatch)
    monkeypatch.setattr(steps, "TIMED_S", 0.01)
    monkeypatch.setattr(devices, "try_compile", lambda network, setup, trial: (network, trial(network) or ""))
    row = steps.on_gpu(Bench(scratch=tmp_path, device="cpu", rounds=1, tiny=True), way, 2)
    assert row.value > 0 and way in row.what and "peak 123 MB" in row.note
    assert ("compiled in" in row.note) == (way == steps.CHANNELS_FIRST)
    assert not torch.backends.cudnn.benchmark


# --- the study ------------------------------------------------------------------------------------


def test_a_study_trains_evaluates_and_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training is short, whatever the speed of the machine: one epoch of a narrow network."""
    run_command, budgets = study.run_command, list[str]()

    def run_small(settings: Settings, name: str, words: list[str], seconds: float) -> None:
        if name == "train":
            at = words.index("--time-budget")
            budgets.append(words[at + 1])
            words = [*words[:at], "--epochs", "1", "--width", "4", "--norm-groups", "4", *words[at + 2 :]]
        run_command(settings, name, words, seconds)

    monkeypatch.setattr(study, "run_command", run_small)
    monkeypatch.setattr(study, "COHORTS", {"tiny": (4, 2)})
    settings = settings_of(tmp_path)
    found = [
        {row.what: row for row in step(settings)}
        for step in (study.make_phantoms, study.plan_and_preprocess, study.train, study.evaluate, study.export)
    ]
    phantoms, planned, trained, evaluated, exported = found
    assert "4 of scale tiny" in phantoms["phantom patients made"].note
    assert planned["patients planned and preprocessed"].value > 0
    assert 300 < float(budgets[0].removesuffix("s")) < 600  # of ten minutes
    assert trained["epochs of the paper's recipe"].value == 1
    assert any(what.startswith("phantom DSC, ") for what in evaluated)
    assert exported["exported model"].value > 0 and "gunzip" in exported["exported model"].note
    results = {path.name for path in study.result_files(tmp_path) if path.exists()}
    assert results >= {"learning_curve.png", "gn_unet.zip.gz"} and any(name.startswith("patient_") for name in results)


def test_a_training_with_too_little_time_is_not_started(
    tmp_path: Path, toy_once: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Settings, "study", property(lambda self: replace(toy_once, root=tmp_path)))
    with pytest.raises(OutOfTime, match="cohort"):
        next(study.train(settings_of(tmp_path)))
    monkeypatch.setattr(Settings, "study", property(lambda self: toy_once))
    monkeypatch.setattr(Settings, "study_is_ready", True)
    monkeypatch.setattr(study.shutil, "rmtree", lambda *_, **__: None)
    with pytest.raises(OutOfTime, match="are left"):
        next(study.train(settings_of(tmp_path, seconds=20.0)))


def test_a_failed_command_and_a_slow_command_give_different_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"dvt_train .*status 1"):
        study.run_command(settings_of(tmp_path), "train", ["0", "--root", "nowhere"], 60.0)
    (tmp_path / LOG).write_text("bar\ndvt_train: --time-budget: one epoch takes 9 s\n\n")
    with pytest.raises(OutOfTime, match="one epoch takes 9 s"):
        study.run_command(settings_of(tmp_path), "train", ["0", "--root", "nowhere"], 60.0)

    def too_long(arguments: object, **options: float) -> None:
        raise subprocess.TimeoutExpired(str(arguments), options["timeout"])

    monkeypatch.setattr(study.subprocess, "run", too_long)
    with pytest.raises(OutOfTime, match="60 s"):
        study.run_command(settings_of(tmp_path), "train", ["0"], 60.0)
