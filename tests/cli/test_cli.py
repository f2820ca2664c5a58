"""The commands: fast help, errors in one line, and options that reach the library."""

from __future__ import annotations

import argparse
import configparser
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import processes

from dvtplan import __version__, cli
from dvtplan.cli.overview import COMMANDS as LISTED_COMMANDS
from dvtplan.cli.recipe_arguments import add_recipe
from dvtplan.core import json_records
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.data.prediction_records import PredictionRecord
from dvtplan.imaging import volume_io
from dvtplan.models.training_run import Run
from dvtplan.planning.recipe import Recipe

COMMANDS = {
    "import": cli.import_dicom,
    "plan_and_preprocess": cli.plan_and_preprocess,
    "train": cli.train,
    "predict": cli.predict,
    "evaluate": cli.evaluate,
    "report": cli.report,
    "model": cli.model,
    "overview": cli.overview,
}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int | str | None]:
    """Run a command in this process; return its exit status, or its error message."""

    def run(command: str, *words: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", [f"dvt_{command}", *map(str, words)])
        try:
            COMMANDS[command]()
        except SystemExit as done:
            return done.code
        return 0

    return run


def start(command: str, *words: object, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "dvtplan.cli", command, *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )


# --- all commands ---------------------------------------------------------------------------------

HELP = """
import contextlib, io, sys
from dvtplan import cli
for main in (cli.import_dicom, cli.plan_and_preprocess, cli.train, cli.predict, cli.evaluate, cli.report, cli.model,
             cli.overview):
    sys.argv, out = ["dvt", "--help"], io.StringIO()
    try:
        with contextlib.redirect_stdout(out):
            main()
    except SystemExit as done:
        assert done.code == 0
    assert "example: dvt_" in out.getvalue() and "--" in out.getvalue()
print(*[name for name in ("torch", "SimpleITK", "pandas", "scipy", "matplotlib", "tqdm") if name in sys.modules])
"""


def test_help_of_every_command_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_overview_names_every_console_script() -> None:
    scripts = configparser.ConfigParser()
    scripts.read(Path(__file__).parents[2] / "setup.cfg", encoding="utf-8")
    lines = scripts["options.entry_points"]["console_scripts"].split("\n")
    names = {line.partition(" = ")[0] for line in lines if line}
    assert names == {"dvt", *LISTED_COMMANDS}


@pytest.mark.parametrize("word", ["-q", "--quiet"])
def test_quiet_leaves_results_and_errors(word: str, trained_once: Workspace, tmp_path: Path) -> None:
    image = next((trained_once.raw / "imagesTr").glob("*_0000.nii.gz"))
    words = ("predict", "-i", image, "-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet"))
    done = processes.command(*words, "--device", "cpu", word)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(tmp_path / "mask.nii.gz"), "")
    done = processes.command(
        "predict", "-i", tmp_path / "none", "-o", tmp_path, "--model", trained_once.results("gn_unet"), word
    )
    assert done.returncode == 1 and "not found" in done.stderr and len(done.stderr.splitlines()) == 1


def test_verbose_prints_timings_and_tracebacks(trained_once: Workspace, tmp_path: Path) -> None:
    image = next((trained_once.raw / "imagesTr").glob("*_0000.nii.gz"))
    words = ("-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet"), "--device", "cpu", "-v")
    done = processes.command("predict", "-i", image, *words)
    assert done.returncode == 0 and "s reading, " in done.stderr
    done = processes.command("predict", "-i", tmp_path / "none", *words)
    assert done.returncode == 1 and "Traceback" in done.stderr and done.stderr.splitlines()[-1].endswith("as --input.")


@pytest.mark.parametrize("command", COMMANDS)
def test_version_is_printed(call: Callable[..., Any], command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(command, "--version") == 0
    assert capsys.readouterr().out == f"dvtplan {__version__}\n"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("plan_and_preprocess", ["--fold", "3"]),
        ("plan_and_preprocess", ["--preset", "papre"]),
        ("plan_and_preprocess", ["--seed", "-1"]),
        ("import", ["-i", "export", "-o", "out"]),
        ("import", ["-o", "out", "--channels", "T1"]),
        ("import", ["-i", "export", "-o", "out", "--channels", "T1", "--patient-by", "name"]),
        ("train", []),
        ("train", ["0", "--epoch", "3"]),
        ("train", ["0", "--epochs", "0"]),
        ("train", ["0", "--epochs", "many"]),
        ("train", ["0", "--gpus", "0"]),
        ("train", ["0", "--batch-size", "large"]),
        ("train", ["0", "--workers", "-1"]),
        ("train", ["0", "--resume", "--overwrite"]),
        ("train", ["0", "--recipe", "slow"]),
        ("train", ["0", "--precision", "fp16"]),
        ("predict", ["-i", "a.nii.gz"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--part", "3/2"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--part", "0/2"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--extra-formats", "rtstruct"]),
        ("evaluate", ["--split", "proximal/proximal"]),
        ("evaluate", ["--reference", "there"]),
        ("evaluate", ["--region-rule", "height"]),
        ("model", []),
        ("model", ["import"]),
        ("model", ["export", "results", "a.zip", "--fold", "0"]),
        ("model", ["export", "results", "a.zip", "--folds", "x"]),
        ("plan_and_preprocess", ["--folds", "x"]),
        ("train", ["0", "--learning-rate", "x"]),
        ("predict", ["-i", "in", "-o", "out", "--model", "m", "--folds", "-1"]),
        ("report", ["--folds", "x"]),
    ],
)
def test_an_invalid_option_is_refused_with_status_2(
    call: Callable[..., Any], command: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(command, *words) == 2
    message = capsys.readouterr().err
    assert f"dvt_{command}" in message and ": error: " in message
    assert "invalid int" not in message and "invalid float" not in message  # argparse's own words explain nothing


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("import", ["-i", "none", "-o", "out", "--channels", "T1"]),
        ("plan_and_preprocess", []),
        ("train", ["0"]),
        ("evaluate", []),
        ("predict", ["-i", "none.nii.gz", "-o", "out", "--model", "none"]),
        ("model", ["export", "none", "a.zip"]),
        ("model", ["info", "none.zip"]),
    ],
)
def test_an_error_that_the_user_can_fix_is_one_line(
    call: Callable[..., Any],
    command: str,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    line = call(command, *words)
    assert isinstance(line, str) and line.startswith(f"dvt_{command}: ") and "\n" not in line
    assert list(tmp_path.iterdir()) == []


def test_the_error_is_printed_to_stderr_with_status_1_and_without_a_traceback(tmp_path: Path) -> None:
    process = start("evaluate", "--root", tmp_path)
    out, err = process.communicate()
    assert process.returncode == 1 and out == ""
    assert err.startswith("dvt_evaluate: ") and "no data set found" in err and err.count("\n") == 1


def test_a_command_without_console_script_is_explained() -> None:
    for words, status in (([], 1), (["trian"], 1), (["--help"], 0)):
        done = processes.python(["-m", "dvtplan.cli", *words])
        assert done.returncode == status
        shown = done.stderr if status else done.stdout
        assert shown.startswith("usage: ") and "plan_and_preprocess" in shown and shown.count("\n") == 1


def test_a_bug_keeps_its_traceback(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", fault)
    with pytest.raises(RuntimeError, match="a bug"):
        call("plan_and_preprocess")


def test_an_interrupt_ends_quietly_with_status_130(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", interrupt)
    assert call("plan_and_preprocess") == cli.INTERRUPTED
    assert "kept" in capsys.readouterr().err


# --- dvt_plan_and_preprocess ----------------------------------------------------------------------


def test_verification_alone_writes_nothing(
    toy: Workspace, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(toy.preprocessed)
    words = ["--root", toy.root, "--folds", "2", "--jobs", "1"]
    assert call("plan_and_preprocess", *words, "--verify-only") == 0
    assert "nothing was written" in capsys.readouterr().out and not toy.preprocessed.exists()
    assert call("plan_and_preprocess", *words) == 0
    assert f"Preprocessed in {toy.preprocessed}" in capsys.readouterr().out and toy.plan.exists()


# --- dvt_train ------------------------------------------------------------------------------------


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Record what would be trained and predicted, in order."""
    seen: list[SimpleNamespace] = []

    def train(workspace: Workspace, fold: int, **how: Any) -> FoldFolder:
        seen.append(SimpleNamespace(fold=fold, setup=None, **how))
        return workspace.fold(how["network"], fold)

    def predict(workspace: Workspace, network: str, fold: int, *, setup: Any) -> None:
        assert (seen[-1].fold, seen[-1].network) == (fold, network)
        seen[-1].setup = setup

    monkeypatch.setattr("dvtplan.training.train.train_fold", train)
    monkeypatch.setattr("dvtplan.inference.predict.predict_fold", predict)
    return seen


def test_a_fold_is_trained_with_the_paper_recipe_by_default_and_then_predicted(
    toy_once: Workspace,
    call: Callable[..., Any],
    trainings: list[SimpleNamespace],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("train", "1", "--root", toy_once.root) == 0
    (one,) = trainings
    assert (one.fold, one.network, one.recipe, one.epochs) == (1, "gn_unet", None, None)
    assert one.options.processes == 1 and not one.options.resume and not one.options.overwrite
    assert one.setup is not None and not one.setup.compiled
    assert capsys.readouterr().out == f"{toy_once.fold('gn_unet', 1).path}\n"


def test_every_recipe_field_can_be_overridden(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    words = (
        "--recipe quick --epochs 3 --batch-size 4 --learning-rate 2e-3 --lr-drops 0.5,0.9 --lr-factor 0.2 "
        "--beta1 0.8 --loss focal --focal-gamma 1.5 --focal-alpha 0.6 --oversampling 0.3 --norm-groups 2 --width 4 "
        "--target lesion --seed 5"
    )
    assert call("train", "0", "--root", toy_once.root, *words.split()) == 0
    assert trainings[0].epochs == 3
    quick = {k: getattr(trainings[0].recipe, k) for k in ("name", "epochs")}
    assert trainings[0].recipe == Recipe(
        **quick,
        batch_size=4,
        learning_rate=2e-3,
        lr_drops=(0.5, 0.9),
        lr_factor=0.2,
        beta1=0.8,
        loss="focal",
        focal_gamma=1.5,
        focal_alpha=0.6,
        oversampling=0.3,
        norm_groups=2,
        width=4,
        target="lesion",
        seed=5,
    )
    assert quick["name"].startswith("quick with ") and "focal_alpha" in quick["name"]


def test_the_batch_size_can_be_chosen_automatically(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    assert call("train", "0", "--root", toy_once.root, "--batch-size", "auto") == 0
    assert call("train", "0", "--root", toy_once.root, "--batch-size", "2") == 0
    assert [one.options.batch_size_auto for one in trainings] == [True, False]
    assert trainings[0].recipe.name == "paper with batch_size"


def test_the_command_line_has_an_option_for_every_field_of_the_recipe_but_its_name() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    add_recipe(parser)
    options = {action.dest for action in parser._actions}
    assert options == {*Recipe.__dataclass_fields__, "recipe"} - {"name"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--learning-rate", "-1"], "--learning-rate must be positive, not -1.0"),
        (["--width", "30", "--norm-groups", "4"], "--norm-groups 4 must divide --width 30"),
        (["--lr-drops", "0.9,0.5"], "--lr-drops must rise within 0..1"),
        (["--focal-alpha", "1.5"], "--focal-alpha must lie in"),
    ],
)
def test_an_invalid_recipe_is_reported_in_one_line(
    toy_once: Workspace, call: Callable[..., Any], words: list[str], message: str
) -> None:
    assert message in call("train", "0", "--root", toy_once.root, *words)


def test_device_options_reach_training_and_prediction(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    words = "--device cpu --precision bf16 --no-compile --no-channels-last --workers 0 --gpus 2 --overwrite"
    assert call("train", "0", "--root", toy_once.root, *words.split()) == 0
    options, setup = trainings[0].options, trainings[0].setup
    assert (options.device, options.precision, options.compiled, options.channels_last) == (
        "cpu",
        "bf16",
        False,
        False,
    )
    assert (options.workers, options.processes, options.overwrite) == (0, 2, True)
    assert (setup.device, setup.precision, setup.channels_last) == ("cpu", "bf16", False)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("8h", 28800), ("1.5h", 5400)])
def test_a_time_budget_is_read_in_seconds_minutes_or_hours(
    toy_once: Workspace,
    call: Callable[..., Any],
    trainings: list[SimpleNamespace],
    text: str,
    seconds: float,
) -> None:
    assert call("train", "0", "--root", toy_once.root, "--time-budget", text) == 0
    assert trainings[0].options.time_budget_s == seconds


@pytest.mark.parametrize("text", ["", "0", "90", "0m", "-5m", "20 m", "1d", "h", "20m30s"])
def test_an_invalid_time_is_refused(
    toy_once: Workspace, call: Callable[..., Any], capsys: pytest.CaptureFixture[str], text: str
) -> None:
    assert call("train", "0", "--root", toy_once.root, f"--time-budget={text}") == 2
    assert "write 90s, 20m or 8h" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "folds"), [(["0"], [0]), (["1", "0"], [1, 0]), (["all"], [0, 1]), (["1", "1"], [1])])
def test_folds_are_trained_in_the_order_given(
    toy_once: Workspace,
    call: Callable[..., Any],
    trainings: list[SimpleNamespace],
    words: list[str],
    folds: list[int],
) -> None:
    assert call("train", *words, "--root", toy_once.root) == 0
    assert [one.fold for one in trainings] == folds


@pytest.mark.parametrize("words", [["2"], ["0", "9"], ["-1"], ["first"], ["1.0"]])
def test_a_missing_fold_is_refused_before_any_is_trained(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace], words: list[str]
) -> None:
    line = call("train", *words, "--root", toy_once.root)
    assert "the folds 0 to 1" in line
    assert trainings == []


def test_resuming_several_folds_starts_those_that_were_not_started(
    trained: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    trained.fold("gn_unet", 1).checkpoint.unlink()
    assert call("train", "all", "--resume", "--root", trained.root) == 0
    assert [(one.fold, one.options.resume) for one in trainings] == [(0, True), (1, False)]
    begun = json_records.load(Run, trained.fold("gn_unet", 0).run, "test").recipe
    assert [one.recipe for one in trainings] == [None, begun]  # which is not the paper's
    assert begun.width == 4


def test_resuming_without_a_started_training_is_an_error(toy_once: Workspace, call: Callable[..., Any]) -> None:
    for words in (["0"], ["all"]):
        line = call("train", *words, "--resume", "--root", toy_once.root)
        assert isinstance(line, str) and "nothing to resume" in line


def test_several_folds_on_several_gpus_run_side_by_side(
    toy_once: Workspace, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def run_queue(commands: list[list[str]], slots: list[list[str]]) -> list[int]:
        seen.update(commands=commands, slots=slots)
        return [0, 1]

    monkeypatch.setattr("dvtplan.training.distributed.run_commands", run_queue)
    line = call("train", "all", "--gpus", 2, "--device=cpu", "--epochs", 3, "--root", toy_once.root)
    assert isinstance(line, str) and "fold 1: failed" in line and "--resume" in line
    assert seen["slots"] == [["--device", "cpu"], ["--device", "cpu"]]
    for fold, command in enumerate(seen["commands"]):
        assert command[:4] == [sys.executable, "-m", "dvtplan.cli", "train"]
        assert command[-4:] == ["--gpus", "1", "--only", str(fold)] and "--epochs" in command


def test_a_process_of_the_queue_trains_only_its_fold(
    toy_once: Workspace, call: Callable[..., Any], trainings: list[SimpleNamespace]
) -> None:
    words = ["all", "--gpus", "2", "--gpus", "1", "--only", "1", "--device", "cpu"]
    assert call("train", *words, "--root", toy_once.root) == 0
    assert [(one.fold, one.options.processes) for one in trainings] == [(1, 1)]


# --- under torchrun -------------------------------------------------------------------------------

SMALL_TRAINING = ["--width", "4", "--norm-groups", "2", "--device", "cpu", "--workers", "0"]


def pair(command: str, *words: object) -> list[tuple[int, str, str]]:
    """Run two processes in torchrun's environment, as on two machines; return status, stdout and stderr of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "0"}
    both = [start(command, *words, RANK=str(rank), **world) for rank in (0, 1)]
    try:
        said = [process.communicate(timeout=120) for process in both]
    finally:
        for process in both:
            process.send_signal(signal.SIGKILL)
    return [(process.returncode, *words) for process, words in zip(both, said, strict=True)]


def test_under_torchrun_the_processes_train_together_and_one_of_them_predicts(toy: Workspace) -> None:
    one, other = pair("train", "0", "--root", toy.root, "--epochs", "1", *SMALL_TRAINING)
    (status, out, err), (other_status, other_out, other_err) = one, other
    folder = toy.fold("gn_unet", 0)
    assert [status, other_status] == [0, 0], err + other_err
    assert out == f"{folder.path}\n" and other_out == ""
    assert "Trained 1 epoch" in err and "Trained" not in other_err
    assert '"processes": 2' in folder.run.read_text()
    assert len(list(folder.predictions.glob("c*.nii.gz"))) == 2


def bodies(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_under_torchrun_preprocessing_is_distributed(toy: Workspace) -> None:
    """Two processes write the same bytes as one; the second prints nothing."""
    alone = bodies(toy.preprocessed)
    shutil.rmtree(toy.preprocessed)
    (status, out, err), (other_status, other_out, other_err) = pair(
        "plan_and_preprocess", "--root", toy.root, "--folds", "2", "--jobs", "1"
    )
    assert [status, other_status] == [0, 0], err + other_err
    assert f"Preprocessed in {toy.preprocessed}" in out and other_out == ""
    assert bodies(toy.preprocessed) == alone
    for printed in (err, other_err):
        assert "Preprocess: 100%" in printed and "2/2" in printed


def test_under_torchrun_a_bad_case_is_reported_whichever_process_read_it(toy: Workspace) -> None:
    """The first process reports all of it, the other one line."""
    shutil.rmtree(toy.preprocessed)
    bad = toy.raw / "imagesTr" / "c1_0000.nii.gz"
    bad.write_bytes(b"no image")
    both = pair("plan_and_preprocess", "--root", toy.root, "--folds", "2", "--jobs", "1")
    assert [status for status, _, _ in both] == [1, 1]
    assert f"\n{bad}: " in both[0][2] and "1 problem found; nothing was written." in both[0][2]
    assert "(process 2 of 2): 1 problem found" in both[1][2] and str(bad) not in both[1][2]
    assert not toy.preprocessed.exists()


def test_under_torchrun_scans_are_distributed(trained_once: Workspace, tmp_path: Path) -> None:
    scans = ["-i", trained_once.raw / "imagesTr", "--model", trained_once.results("gn_unet"), "--device", "cpu"]
    both = pair("predict", *scans, "-o", tmp_path / "two")
    assert [status for status, _, _ in both] == [0, 0], both[0][2] + both[1][2]
    assert [sorted(Path(line).name[:2] for line in out.split()) for _, out, _ in both] == [["c0", "c2"], ["c1", "c3"]]
    assert sorted(p.name for p in (tmp_path / "two").glob("c*.nii.gz")) == [f"c{k}.nii.gz" for k in range(4)]
    refused = pair("predict", *scans, "-o", tmp_path / "none", "--part", "1/2")
    assert [status for status, _, _ in refused] == [1, 1] and not (tmp_path / "none").exists()
    assert "--part and torchrun" in refused[0][2]


def child_of_rank(parent: int, rank: int) -> int | None:
    """Return the process that a launcher started for a rank."""
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            environment = (folder / "environ").read_bytes().split(b"\0")
            if int(fields[1]) == parent and f"RANK={rank}".encode() in environment:
                return int(folder.name)
    return None


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc to find the worker")
def test_torchrun_resumes_from_the_last_checkpoint_after_a_worker_died(toy: Workspace) -> None:
    """The first process dies, which writes the files. The result is bit-identical to an uninterrupted training."""
    words = ["train", "0", "--root", str(toy.root), "--epochs", "20", *SMALL_TRAINING]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "--max-restarts", "1", "-m", "dvtplan.cli", *words]
    folder = toy.fold("gn_unet", 0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while not folder.checkpoint.exists() and process.poll() is None:
            time.sleep(0.01)
        victim = child_of_rank(process.pid, 0)
        assert victim is not None
        os.kill(victim, signal.SIGKILL)
        try:
            said, _ = process.communicate(timeout=120)
        finally:
            process.terminate()
    assert process.returncode == 0, said
    assert "from the start" in said and "resumed after epoch" in said
    died = folder.checkpoint.read_bytes()
    assert json_records.load(Run, folder.run, "").epochs_done == 20
    straight = pair(*words, "--overwrite")
    assert [status for status, _, _ in straight] == [0, 0]
    assert folder.checkpoint.read_bytes() == died


# --- dvt_predict and dvt_evaluate -----------------------------------------------------------------


def test_predict_passes_its_options_on(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvtplan.findings.options import ReportOptions
    from dvtplan.inference.options import PredictOptions
    from dvtplan.inference.outcome import PredictionOutcome

    seen: dict[str, Any] = {}

    def predict_scans(*what: Any, **how: Any) -> PredictionOutcome:
        seen.update(what=what, **how)
        return PredictionOutcome(files=(Path("out/a.nii.gz"),))

    monkeypatch.setattr("dvtplan.inference.session.predict_scans", predict_scans)
    words = "-i in -o out --model results/DVT/gn_unet --folds 1 2 --save-probabilities --overwrite --device cpu"
    assert call("predict", *words.split()) == 0
    *paths, options, reports = seen["what"]
    assert paths == [Path("in"), Path("out"), Path("results/DVT/gn_unet")] and seen["folds"] == [1, 2]
    assert options == PredictOptions(overwrite=True, save_probabilities=True) and seen["setup"].device == "cpu"
    assert reports == ReportOptions()
    captured = capsys.readouterr()
    assert captured.out == "out/a.nii.gz\n" and captured.err.startswith("Running on cpu: ")


def test_every_extra_format_can_be_requested(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from dvtplan.inference.options import EXTRA_FORMATS
    from dvtplan.inference.outcome import PredictionOutcome

    seen: list[Any] = []
    monkeypatch.setattr(
        "dvtplan.inference.session.predict_scans", lambda *what, **_: seen.extend(what) or PredictionOutcome()
    )
    words = ["-i", "in", "-o", "out", "--model", "m", "--device", "cpu", "--extra-formats"]
    assert call("predict", *words, *EXTRA_FORMATS) == 0
    assert seen[3].extra_formats == tuple(EXTRA_FORMATS)


def test_import_passes_its_options_on(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from dvtplan.dicom.dataset_import import ImportResult
    from dvtplan.dicom.import_options import ImportOptions

    seen: dict[str, Any] = {}

    def import_dicom(*what: Any) -> ImportResult:
        seen.update(what=what)
        names = {
            "added": ("case_002",),
            "kept": ("case_001",),
            "without_mask": ("case_001",),
            "faults": ("c: gap", "d: no"),
        }
        return ImportResult(folder=Path("raw/X"), key=Path("raw/key.csv"), **names)

    monkeypatch.setattr("dvtplan.dicom.dataset_import.import_dicom", import_dicom)
    words = "-i a b -o raw/X --channels T1 T2 --label-names p d --series 5 vein --segmentation 12 --masks m.csv"
    line = call("import", *words.split(), *["--key", "k.csv", "--patient-by", "folder", "--keep-names"])
    assert line == "dvt_import: 2 scans not imported.\nc: gap\nd: no"
    options = ImportOptions(
        channels=["T1", "T2"],
        label_names=["p", "d"],
        series=["5", "vein"],
        segmentation="12",
        masks=Path("m.csv"),
        key=Path("k.csv"),
        patient_by="folder",
        keep_names=True,
    )
    assert seen == {"what": ([Path("a"), Path("b")], Path("raw/X"), options)}
    out = capsys.readouterr().out
    assert "raw/X: 1 case imported, 1 already present" in out and "Without a mask" in out


SCANS = ("c0", "c1", "c2", "c3")


def test_predict_measures_the_burden(trained_once: Workspace, tmp_path: Path, call: Callable[..., Any]) -> None:
    """It is split at the level if one is given. The table of levels is read before prediction."""
    words = ["-i", trained_once.raw / "imagesTr", "-o", tmp_path / "out", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--burden", tmp_path / "burden.csv"]
    (tmp_path / "levels.csv").write_text("case_id,level_left_mm\nc1,20\n")
    assert "cases.csv" in str(call("predict", *words, "--levels-table", tmp_path / "cases.csv"))
    assert not (tmp_path / "out").exists()
    assert call("predict", *words, "--levels-table", tmp_path / "levels.csv") == 0
    table = pd.read_csv(tmp_path / "burden.csv")
    assert table.groupby("case_id").size().to_dict() == {"c0": 2, "c1": 6, "c2": 2, "c3": 2}
    assert table.groupby("case_id").level_source.first().to_dict() == {
        k: "table" if k == "c1" else "none" for k in SCANS
    }
    assert table[table.case_id == "c0"].level_note.str.contains("no knee in view").all()
    assert sorted(p.name for p in (tmp_path / "out").glob("*_levels.json")) == [f"c{k}_levels.json" for k in (0, 2, 3)]
    assert call("predict", *words, "--levels-table", tmp_path / "levels.csv", "--level=-5.5,30") == 0
    table = pd.read_csv(tmp_path / "burden.csv").query("region == 'all'").set_index(["case_id", "limb"])
    assert table.level_mm["c1"].tolist() == [20, 20] and table.level_mm["c2"].tolist() == [-5.5, 30]
    assert table.level_source["c2"].tolist() == ["given"] * 2
    assert call("predict", *words, "--no-levels") == 0
    table = pd.read_csv(tmp_path / "burden.csv")
    assert set(table.level_source) == {"none"} and table.level_note.isna().all() and set(table.region) == {"all"}
    assert "--no-levels" in str(call("predict", *words, "--no-levels", "--level", "-5"))
    assert call("predict", *words, "--level", "high") == 2
    assert "--burden" in str(call("predict", *words, "--part", "1/2"))
    assert "--levels-table needs --burden" in str(call("predict", *words[:-2], "--levels-table", "x.csv"))


def test_a_corrected_mask_is_measured_as_corrected(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """A scan that fails later is no longer reported as analysed."""
    shutil.copytree(trained_once.raw / "imagesTr", tmp_path / "in")
    words = ["-i", tmp_path / "in", "-o", tmp_path / "out", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--findings", "--burden", tmp_path / "burden.csv", "--no-levels"]
    assert call("predict", *words) == 0
    mask = tmp_path / "out" / "c1.nii.gz"
    values, grid = volume_io.read(mask)
    volume_io.write_mask(mask, np.ones_like(values), grid)
    (tmp_path / "in" / "c2_0000.nii.gz").write_bytes(b"damaged")
    capsys.readouterr()
    assert "c2" in str(call("predict", *words))
    assert f"warning: {mask}: was edited or comes from elsewhere" in capsys.readouterr().err
    table = pd.read_csv(tmp_path / "burden.csv")
    status = table.groupby("case_id").status.first().to_dict()
    assert status == {"c0": "analysed", "c1": "mask changed", "c2": "not analysed", "c3": "analysed"}
    assert set(table[table.case_id == "c1"].scan_in_words.str.split(" ").str[1]) == {"edited"}
    whole = table[table.case_id == "c1"].volume_ml.sum()
    assert whole == pytest.approx(values.size * grid.voxel_ml, abs=2e-3)
    assert ".0" not in "".join(line.split(",")[5] for line in (tmp_path / "burden.csv").read_text().splitlines())


def test_levels_are_looked_up_by_the_name_of_the_scan_not_of_the_mask(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any]
) -> None:
    scan = shutil.copy(trained_once.raw / "imagesTr" / "c0_0000.nii.gz", tmp_path / "a.nii.gz")
    (tmp_path / "levels.csv").write_text("case_id,level_left_mm\na,20\n")
    words = ["-i", scan, "-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--burden", tmp_path / "burden.csv", "--levels-table", tmp_path / "levels.csv"]
    assert call("predict", *words) == 0
    assert set(pd.read_csv(tmp_path / "burden.csv").level_source) == {"table"}


def test_a_single_failed_scan_is_listed_as_not_analysed(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any]
) -> None:
    scan = tmp_path / "a.nii.gz"
    shutil.copy(trained_once.raw / "imagesTr" / "c0_0000.nii.gz", scan)
    words = ["-i", scan, "-o", tmp_path / "mask.nii.gz", "--model", trained_once.results("gn_unet")]
    words += ["--device", "cpu", "--burden", tmp_path / "burden.csv"]
    assert call("predict", *words) == 0
    scan.write_bytes(b"damaged")
    assert str(call("predict", *words)).startswith(f"dvt_predict: {scan}: ")
    assert pd.read_csv(tmp_path / "burden.csv").status.tolist() == ["not analysed"]
    assert not (tmp_path / "mask.nii.gz").exists()


def test_an_exported_model_predicts_the_same(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    results, archive = trained_once.results("gn_unet"), tmp_path / "toy.zip"
    assert call("model", "export", results, archive, "--folds", 1) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{archive} (") and ", folds 1, digest " in out
    assert "warning: no Table 1: " in err
    digest = out.rpartition(" ")[2].strip(")\n")
    assert call("model", "info", archive) == 0 and digest in (printed := capsys.readouterr().out)
    assert "gn_unet, width 4" in printed and "not a medical device" in printed
    image = next((trained_once.raw / "imagesTr").glob("*_0000.nii.gz"))
    for name, model in (("here", results), ("there", archive)):
        words = ["-i", image, "-o", tmp_path / f"{name}.nii.gz", "--model", model, "--folds", 1, "--device", "cpu"]
        assert call("predict", *words) == 0
    assert (tmp_path / "here.nii.gz").read_bytes() == (tmp_path / "there.nii.gz").read_bytes()
    found = json_records.load(PredictionRecord, tmp_path / "there_run.json", "")
    assert (found.model, found.model_digest, found.folds) == (str(archive), digest, (1,))
    assert call("model", "info", results) == 0 and f"model       {results}" in capsys.readouterr().out


def test_each_action_of_dvt_model_has_help_with_an_example(
    call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for action in ("export", "info"):
        assert call("model", action, "--help") == 0
        assert f"example: dvt_model {action} " in capsys.readouterr().out
        assert call("model", action) == 2
        assert f"dvt_model {action}: error: the following arguments are required" in capsys.readouterr().err


def test_predict_continues_after_a_bad_scan_and_ends_with_its_reason(
    trained_once: Workspace, tmp_path: Path, call: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """The outputs of the good scan are written and printed; the bad one is never reported as empty."""
    (tmp_path / "in").mkdir()
    shutil.copy(trained_once.raw / "imagesTr" / "c0_0000.nii.gz", tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"")
    out = tmp_path / "out"
    words = ["-i", tmp_path / "in", "-o", out, "--model", trained_once.results("gn_unet"), "--device", "cpu"]
    ended = call("predict", *words, "--summary", "--burden", tmp_path / "burden.csv")
    first, line = str(ended).splitlines()
    assert first == "dvt_predict: 1 of 2 scans could not be analysed; nothing is known about them:"
    assert line.startswith(f"{tmp_path / 'in' / 'bad.nii.gz'}: is empty")
    names = ("findings.json", "levels.json", "summary.html", "summary.pdf", "summary.png")
    paths = {out / f"good_{name}" for name in names}
    assert set(map(Path, capsys.readouterr().out.split())) == {out / "good.nii.gz", tmp_path / "burden.csv", *paths}
    assert {p.name for p in out.iterdir() if p.name.startswith("bad")} == {"bad_findings.json"}
    table = pd.read_csv(tmp_path / "burden.csv").set_index("case_id")
    assert table.loc["bad", "status"] == "not analysed" and pd.isna(table.loc["bad", "volume_ml"])
    assert set(table.loc["good", "status"]) == {"analysed"}


EVALUATE = """
import sys
from dvtplan import cli
cli.evaluate()
assert "torch" not in sys.modules, "torch was loaded"
"""


def test_evaluation_never_loads_torch(trained: Workspace) -> None:
    """Pictures included."""
    words = [sys.executable, "-c", EVALUATE, "--root", str(trained.root), "--overlays"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.splitlines() if line.startswith(str(trained.root))]
    assert trained.results("gn_unet") / "metrics.csv" in written
    assert len([p for p in written if p.suffix == ".png"]) == 4 and all(p.exists() for p in written)


def test_a_dvt_error_of_several_lines_names_the_command_once(
    call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DvtError("first\nsecond")

    monkeypatch.setattr("dvtplan.planning.preprocess.plan_and_preprocess", refuse)
    assert call("plan_and_preprocess") == "dvt_plan_and_preprocess: first\nsecond"


def test_a_closed_output_is_not_an_error(trained_once: Workspace) -> None:
    """As in ``dvt_model info M | head``."""
    reading, writing = os.pipe()
    os.close(reading)
    words = [sys.executable, "-m", "dvtplan.cli", "model", "info", str(trained_once.results("gn_unet"))]
    done = subprocess.run(words, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 141 and done.stderr == ""
