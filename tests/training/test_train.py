"""Training: it learns, it resumes to the bit, it refuses what would mislead."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from dvtplan.core import files, json_records, process_group, worker_pool
from dvtplan.core.errors import DvtError
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import checkpoint, devices
from dvtplan.models.devices import Forward
from dvtplan.models.networks.registry import NETWORKS
from dvtplan.models.training_run import Run
from dvtplan.planning.cost import training_bytes
from dvtplan.planning.plan import Plan
from dvtplan.planning.preprocess import PreprocessOptions, plan_and_preprocess
from dvtplan.planning.recipe import RECIPES, Recipe
from dvtplan.rendering import charts
from dvtplan.training import data_loading, distributed, train, tuning
from dvtplan.training.distributed import TorchProcessGroup
from dvtplan.training.job import TrainingOptions, TrainingRequest
from dvtplan.training.train import train_fold

TINY = Recipe(name="tiny", epochs=4, width=4, norm_groups=2)
"""Twelve training slices of 32x32, so six steps an epoch, and both drops of the learning rate."""
CPU = TrainingOptions(device="cpu", workers=0)


class Stop(BaseException):
    """Ends a training as an interrupt does."""


@pytest.fixture
def stop_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """End trainings once the checkpoint of a number of epochs is written."""
    save = checkpoint.save

    def arrange(epochs: int) -> None:
        def saved(path: Path, network: object, optimizer: object, done: int) -> None:
            save(path, network, optimizer, done)  # type: ignore[arg-type]
            if done == epochs:
                raise Stop

        monkeypatch.setattr(checkpoint, "save", saved)

    return arrange


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than training here; ``straight`` and the commands draw in earnest."""
    monkeypatch.setattr(charts, "learning_curve", lambda rows, path, title: path.write_text(title))


def rows(folder: FoldFolder) -> list[dict[str, str]]:
    with folder.epochs.open(newline="") as file:
        return list(csv.DictReader(file))


def timeless(folder: FoldFolder) -> list[dict[str, str]]:
    """The table of epochs without what depends on the clock."""
    return [{k: row[k] for k in ("epoch", "loss", "learning_rate")} for row in rows(folder)]


def load_run(folder: FoldFolder) -> Run:
    return json_records.load(Run, folder.run, "dvt_train")


def refused(act: Callable[[], object]) -> str:
    """The message of the refusal, which is one line."""
    with pytest.raises(DvtError) as caught:
        act()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def straight(toy_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> FoldFolder:
    """Fold 0 trained by TINY without a stop. Read it; never write to it."""
    return train_fold(link(toy_once, tmp_path_factory.mktemp("straight")), 0, recipe=TINY, options=CPU)


def link(workspace: Workspace, root: Path) -> Workspace:
    """Return a workspace with the same raw and preprocessed data and results of its own."""
    for name in ("datasets_raw", "datasets_preprocessed"):
        (root / name).symlink_to(workspace.root / name)
    return Workspace(root, workspace.dataset)


@pytest.fixture
def fresh(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """The toy with results of its own; its data must not be written to."""
    return link(toy_once, tmp_path)


# --- what a training leaves -----------------------------------------------------------------------


def test_the_loss_falls_on_what_can_be_learnt(fresh: Workspace) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=8, learning_rate=3e-3), options=CPU)
    losses = [float(row["loss"]) for row in rows(folder)]
    # A bright disc in noise: about a tenth of the first epoch's loss is left; a third is asked for.
    assert losses[-1] < losses[0] / 3


def test_a_training_leaves_checkpoint_table_picture_log_and_record(straight: FoldFolder) -> None:
    names = {"checkpoint.pt", "epochs.csv", "progress.png", "log.txt", "run.json"}
    assert {p.name for p in straight.path.iterdir()} == names
    assert checkpoint.epochs_done(straight.checkpoint) == 4
    assert (straight.path.parent / "plan.json").exists()
    log = straight.log.read_text()
    assert "Trained 4 epochs" in log and "waiting for data" in log and "between epochs" in log


def test_the_record_says_what_was_done(straight: FoldFolder, toy_once: Workspace) -> None:
    run = load_run(straight)
    assert run.recipe == replace(TINY, target="lesion") and run.classes == {"thrombus": 1}
    assert (run.network, run.fold, run.epochs_done, run.channels, run.processes) == ("gn_unet", 0, 4, 1, 1)
    assert sorted((*run.train, *run.test)) == ["c0", "c1", "c2", "c3"] and len(run.train) == 2
    assert run.plan_digest == json_records.digest(json_records.load(Plan, toy_once.plan, "test"))
    assert run.seconds == pytest.approx(sum(float(r["seconds"]) for r in rows(straight)))
    assert 0 <= run.waiting_share < 1 and run.setup.startswith("Running on cpu")


def test_the_learning_rate_drops_at_the_recipes_shares(straight: FoldFolder) -> None:
    """60 % and 85 % of 4 epochs: from the third (index 2) and from the fourth on."""
    assert [row["learning_rate"] for row in rows(straight)] == ["0.001", "0.001", "0.0001", "1e-05"]


def test_the_learning_rate_is_what_the_optimizer_steps_by(fresh: Workspace, stop_after: Callable[[int], None]) -> None:
    """Dropped to next to nothing for the second of two epochs, it leaves the weights of the first."""
    recipe = replace(TINY, epochs=2, lr_drops=(0.5,), lr_factor=1e-30)
    stop_after(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=recipe, options=CPU)
    path = fresh.fold("gn_unet", 0).checkpoint
    first = torch.load(path, weights_only=True)["network"]
    train_fold(fresh, 0, options=replace(CPU, resume=True))
    second = torch.load(path, weights_only=True)["network"]
    assert checkpoint.epochs_done(path) == 2
    for name in first:
        torch.testing.assert_close(second[name], first[name], rtol=0, atol=1e-30)


def test_every_field_of_the_recipe_changes_what_is_learnt(fresh: Workspace) -> None:
    changes: list[dict[str, object]] = [
        {},
        {"batch_size": 4},
        {"learning_rate": 2e-3},
        {"lr_drops": ()},
        {"lr_factor": 0.5},
        {"beta1": 0.5},
        {"focal_gamma": 1.0},
        {"focal_alpha": 0.7},
        {"oversampling": 0.9},
        {"norm_groups": 1},
        {"seed": 1},
    ]
    heads = []
    for change in changes:
        recipe = replace(TINY, **{"epochs": 2, "lr_drops": (0.5,), **change})  # type: ignore[arg-type]
        folder = train_fold(fresh, 0, recipe=recipe, options=replace(CPU, overwrite=True))
        heads.append(torch.load(folder.checkpoint, weights_only=True)["network"]["head.weight"])
    same = [(a, b) for a in range(len(heads)) for b in range(a) if torch.equal(heads[a], heads[b])]
    assert same == []


def test_an_overridden_recipe_lands_in_the_record(fresh: Workspace) -> None:
    wanted = replace(
        RECIPES["quick"],
        batch_size=4,
        learning_rate=2e-3,
        lr_drops=(),
        beta1=0.5,
        focal_gamma=1.0,
        focal_alpha=0.6,
        oversampling=0.25,
        norm_groups=1,
        width=4,
        seed=3,
    )
    folder = train_fold(fresh, 0, recipe=wanted, epochs=1, options=CPU)
    assert load_run(folder).recipe == replace(wanted, epochs=1, target="lesion")


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    fresh: Workspace, straight: FoldFolder, tmp_path: Path
) -> None:
    again = train_fold(fresh, 0, recipe=TINY, options=CPU)
    assert again.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert timeless(again) == timeless(straight)
    other = train_fold(fresh, 0, recipe=replace(TINY, seed=1), options=replace(CPU, overwrite=True))
    assert other.checkpoint.read_bytes() != straight.checkpoint.read_bytes()


def test_streamed_slices_train_the_same_weights(fresh: Workspace, straight: FoldFolder) -> None:
    streamed = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, workers=2))
    assert streamed.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_a_compiled_network_leaves_a_plain_checkpoint(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilation is imitated: what matters is whose weights are saved."""
    seen = []

    def pretend(module: torch.nn.Module, mode: str | None) -> torch.nn.Module:
        seen.append(module)
        return torch.nn.Sequential(module)

    monkeypatch.setattr(torch, "compile", pretend)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True))
    assert len(seen) == 1
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_where_compilation_fails_the_training_goes_on_without_and_says_so(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(module: torch.nn.Module, mode: str | None) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(image: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C compiler\nand much more")

        return forward

    monkeypatch.setattr(torch, "compile", broken)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    message = "torch.compile does not work here (no C compiler)"
    assert message in capsys.readouterr().err and message in load_run(folder).setup


def test_bf16_learns_too(fresh: Workspace) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, learning_rate=3e-3), options=replace(CPU, precision="bf16"))
    losses = [float(row["loss"]) for row in rows(folder)]
    assert losses[-1] < losses[0] and "bf16" in load_run(folder).setup


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "target", "classes"),
    [
        (("anterior", "posterior"), "auto", {"anterior": 1, "posterior": 2}),
        (("anterior", "posterior"), "lesion", {"lesion": 1}),
        (("proximal", "distal"), "auto", {"lesion": 1}),
        (("proximal", "distal"), "labels", {"proximal": 1, "distal": 2}),
    ],
)
def test_named_labels_give_a_softmax_head_and_lesion_their_union(
    prepare_toy: Callable[..., Workspace],
    tmp_path: Path,
    labels: tuple[str, ...],
    target: str,
    classes: dict[str, int],
) -> None:
    workspace = prepare_toy(tmp_path, labels=labels, cases=2)
    recipe = replace(TINY, epochs=1, target=target)
    folder = train_fold(workspace, 0, recipe=recipe, options=CPU)
    run = load_run(folder)
    assert run.classes == classes
    assert run.recipe.target == ("lesion" if len(classes) == 1 else "labels")
    head = torch.load(folder.checkpoint, weights_only=True)["network"]["head.weight"]
    assert len(head) == (1 if len(classes) == 1 else 3)


def test_every_channel_goes_in(prepare_toy: Callable[..., Workspace], tmp_path: Path) -> None:
    folder = train_fold(prepare_toy(tmp_path, channels=2, cases=2), 0, recipe=replace(TINY, epochs=1), options=CPU)
    assert load_run(folder).channels == 2
    assert torch.load(folder.checkpoint, weights_only=True)["network"]["enter.0.weight"].shape[1] == 2


# --- resume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [1, 2, 3])
def test_a_resumed_training_equals_one_that_never_stopped(
    fresh: Workspace, straight: FoldFolder, stop_after: Callable[[int], None], done: int
) -> None:
    stop_after(done)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=TINY, options=CPU)
    torch.rand(5)
    folder = train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()
    assert timeless(folder) == timeless(straight)
    assert load_run(folder).epochs_done == 4


def test_a_record_that_fell_behind_is_mended_by_resume(fresh: Workspace, straight: FoldFolder) -> None:
    """As after a kill between the last checkpoint and its record."""
    folder = train_fold(fresh, 0, recipe=TINY, options=CPU)
    before = load_run(folder)
    json_records.save(replace(before, epochs_done=3, seconds=1.0), folder.run)
    folder.progress.unlink()
    train_fold(fresh, 0, options=replace(CPU, resume=True))
    assert load_run(folder).epochs_done == 4 and folder.progress.exists()
    assert (load_run(folder).started, load_run(folder).seconds) == (before.started, before.seconds)
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_resuming_what_is_trained_changes_nothing(fresh: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    before = {p: p.read_bytes() for p in folder.path.iterdir() if p != folder.log}
    for epochs in (None, 1):
        train_fold(fresh, 0, epochs=epochs, options=replace(CPU, resume=True))
    assert {p: p.read_bytes() for p in folder.path.iterdir() if p != folder.log} == before
    assert "Fold 0 is trained: 1 epoch." in capsys.readouterr().err


def test_more_epochs_may_be_added(fresh: Workspace) -> None:
    """Without drops of the learning rate, which lie at shares of all epochs, 2 + 2 epochs are 4."""
    steady = replace(TINY, lr_drops=())
    train_fold(fresh, 0, recipe=replace(steady, epochs=2), options=CPU)
    folder = train_fold(fresh, 0, epochs=4, options=replace(CPU, resume=True))
    assert load_run(folder).recipe.epochs == 4 and len(rows(folder)) == 4
    once = train_fold(fresh, 1, recipe=steady, options=CPU)
    assert len(rows(once)) == 4
    bytes_added = folder.checkpoint.read_bytes()
    at_once = train_fold(fresh, 0, recipe=steady, options=replace(CPU, overwrite=True))
    assert at_once.checkpoint.read_bytes() == bytes_added


def test_resume_with_nothing_there_is_an_error(fresh: Workspace) -> None:
    message = refused(lambda: train_fold(fresh, 0, recipe=TINY, options=replace(CPU, resume=True)))
    assert "nothing to resume" in message and "`resume`" in message
    assert not fresh.results("gn_unet").exists()


def test_a_training_is_not_begun_over_a_finished_one(fresh: Workspace) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    before = folder.checkpoint.read_bytes()
    message = refused(lambda: train_fold(fresh, 0, recipe=TINY, options=CPU))
    assert "already holds a training" in message and "`resume=True`" in message and "`overwrite=True`" in message
    assert folder.checkpoint.read_bytes() == before


def test_overwriting_leaves_nothing_of_the_old_training_to_resume(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights must not go on under the new recipe."""
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)

    def stop(*_: object) -> None:
        raise Stop

    monkeypatch.setattr(train, "fit", stop)
    with pytest.raises(Stop):
        train_fold(fresh, 0, recipe=replace(TINY, focal_gamma=1.0), options=replace(CPU, overwrite=True))
    assert not folder.checkpoint.exists() and load_run(folder).epochs_done == 0
    assert "nothing to resume" in refused(lambda: train_fold(fresh, 0, options=replace(CPU, resume=True)))


def test_resume_and_overwrite_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="exclude each other"):
        TrainingOptions(resume=True, overwrite=True)


@pytest.mark.parametrize("change", [{"learning_rate": 5e-3}, {"seed": 9}, {"target": "labels"}, {"batch_size": 4}])
def test_a_resumed_training_keeps_its_recipe(fresh: Workspace, change: dict[str, object]) -> None:
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    before = folder.run.read_bytes()
    other = replace(TINY, **change)  # type: ignore[arg-type]
    message = refused(lambda: train_fold(fresh, 0, recipe=other, epochs=2, options=replace(CPU, resume=True)))
    assert str(folder.run) in message and "keeps its recipe" in message
    assert folder.run.read_bytes() == before
    train_fold(fresh, 0, recipe=TINY, epochs=2, options=replace(CPU, resume=True))
    assert load_run(folder).epochs_done == 2


# --- kill -9 --------------------------------------------------------------------------------------

EPOCHS = 24
KILLED_AT = """
import contextlib, os, signal, sys
from dvtplan import cli
from dvtplan.models import checkpoint
where, at, now = sys.argv.pop(1), int(sys.argv.pop(1)), 0
save, atomic_write = checkpoint.save, checkpoint.atomic_write
def die_at(place):
    if (place, now) == (where, at):
        os.kill(os.getpid(), signal.SIGKILL)
@contextlib.contextmanager
def cut(path):
    with atomic_write(path) as draft:
        yield draft
        os.truncate(draft, draft.stat().st_size // 2)
        die_at("half")
def counted(path, network, optimizer, done):
    global now
    now = done
    checkpoint.atomic_write = cut if (where, at) == ("half", now) else atomic_write
    save(path, network, optimizer, done)
    die_at("after")
checkpoint.save = counted
cli.train()
"""
"""The command, which kills itself in the middle of a certain checkpoint, or right after it."""


def start(workspace: Workspace, *, resume: bool, kill: tuple[str, int] | None = None) -> subprocess.Popen[bytes]:
    entry = ["-m", "dvtplan.cli", "train"] if kill is None else ["-c", KILLED_AT, kill[0], str(kill[1])]
    recipe = f"--width 4 --norm-groups 2 --epochs {EPOCHS} --device cpu --workers 0".split()
    words = ["0", "--root", str(workspace.root), *recipe, *(["--resume"] if resume else [])]
    return subprocess.Popen([sys.executable, *entry, *words], stderr=subprocess.DEVNULL)


def epochs_on_disk(folder: FoldFolder) -> int:
    return len(rows(folder)) if folder.epochs.exists() else 0


def kill_after_epochs(process: subprocess.Popen[bytes], folder: FoldFolder, epochs: int, extra_s: float) -> None:
    """Kill a training a moment after a number of epochs, which is a moment of chance within one."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if folder.run.exists() and epochs_on_disk(folder) >= epochs:
            time.sleep(extra_s)
            break
        time.sleep(0.005)
    process.kill()


def test_killed_at_five_moments_and_resumed_it_equals_an_uninterrupted_training(
    toy_once: Workspace, tmp_path: Path
) -> None:
    """Before the first epoch ends, at two moments of chance, inside a checkpoint, and right after one."""
    (tmp_path / "once").mkdir()
    (tmp_path / "killed").mkdir()
    killed = link(toy_once, tmp_path / "killed")
    folder, chance = killed.fold("gn_unet", 0), random.Random(2019)
    moments: list[tuple[str, int] | int] = [0, 3, ("half", 8), ("after", 12), 15]
    for moment in moments:
        begun = folder.checkpoint.exists()
        expected = (-signal.SIGKILL,)
        if isinstance(moment, int):
            process = start(killed, resume=begun)
            # On a machine that stalls it may have come to its end; the comparison below holds all the same.
            expected = (-signal.SIGKILL, 0)
            kill_after_epochs(process, folder, moment, chance.uniform(0.0, 0.1 if moment else 0.01))
        else:
            process = start(killed, resume=begun, kill=moment)
        assert process.wait(60) in expected
        if isinstance(moment, tuple):
            at = moment[1] if moment[0] == "after" else moment[1] - 1
            assert checkpoint.epochs_done(folder.checkpoint) == at
            assert epochs_on_disk(folder) == moment[1]
            drafts = [p for p in folder.path.iterdir() if p.name.startswith(files.TEMP_PREFIX)]
            assert len(drafts) == (moment[0] == "half")
    assert start(killed, resume=folder.checkpoint.exists()).wait(60) == 0

    recipe = Recipe(width=4, norm_groups=2, epochs=EPOCHS)
    once = train_fold(link(toy_once, tmp_path / "once"), 0, recipe=recipe, options=CPU)
    assert folder.checkpoint.read_bytes() == once.checkpoint.read_bytes()
    assert timeless(folder) == timeless(once)
    assert load_run(folder).epochs_done == EPOCHS
    names = {"checkpoint.pt", "epochs.csv", "progress.png", "log.txt", "run.json", "predictions"}
    assert {p.name for p in folder.path.iterdir()} == names


# --- several processes ----------------------------------------------------------------------------


def test_two_processes_take_the_same_steps_as_one(prepare_toy: Callable[..., Workspace], tmp_path: Path) -> None:
    """Batch 1 each against batch 2, three steps of Adam at 1e-3.

    The averaged gradient of two is that of the pair up to float32 rounding (3e-7 measured). Adam
    divides by the gradient's size, so where that is near zero rounding may become part of a step:
    a tenth of one is allowed to any weight, and 1e-6 to all but a thousandth of them. More steps
    would sooner or later tip a ReLU from one side to the other, and one norm group leaves no
    gradient that is nothing but rounding, as that of the bias before a group of one channel is.
    """
    workspace = prepare_toy(tmp_path, cases=2)
    recipe = replace(TINY, epochs=1, norm_groups=1)
    weights = []
    for processes in (2, 1):
        options = replace(CPU, processes=processes, overwrite=True)
        folder = train_fold(workspace, 0, recipe=recipe, options=options)
        state = torch.load(folder.checkpoint, weights_only=True)
        weights.append(torch.cat([w.ravel() for w in state["network"].values()]))
        assert load_run(folder).processes == processes
        assert state["epochs_done"] == 1 and len(rows(folder)) == 1
    apart = (weights[0] - weights[1]).abs()
    assert float(apart.max()) < 1e-4 and float(apart.quantile(0.999)) < 1e-6


def train_at_an_own_pace(workspace: Workspace) -> None:
    """What a process does that tries more steps than the other before it trains."""
    distributed.TIMEOUT = timedelta(seconds=40)
    tuning.TRIAL_S = 1e9 if process_group.rank_and_world_size()[0] else 0.0
    options = replace(CPU, time_budget_s=3600.0)
    train._train(workspace, TrainingRequest(fold=0, network="gn_unet", recipe=TINY, epochs=None), options)


def test_processes_may_try_different_numbers_of_steps(fresh: Workspace) -> None:
    """How many depends on each one's clock; a sum over the group in any of them would wait for ever."""
    distributed.launch(train_at_an_own_pace, 2, fresh)
    assert load_run(fresh.fold("gn_unet", 0)).epochs_done == TINY.epochs


def test_a_batch_that_processes_cannot_share_is_refused(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = contextlib.nullcontext(TorchProcessGroup(rank=0, world=2))
    monkeypatch.setattr(distributed, "process_group", lambda device: pair)
    message = refused(lambda: train_fold(fresh, 0, recipe=replace(TINY, batch_size=3), options=CPU))
    assert "`batch_size=3`" in message and "2 processes" in message


def test_more_gpus_than_there_are_is_refused_before_anything_starts(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    options = TrainingOptions(device="cuda", processes=2)
    assert "`processes=2`: PyTorch finds 1" in refused(lambda: train_fold(fresh, 0, recipe=TINY, options=options))


# --- what does not fit together -------------------------------------------------------------------


def rewrite(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_an_unknown_loss_is_refused_and_nothing_is_written(fresh: Workspace) -> None:
    message = refused(lambda: train_fold(fresh, 0, recipe=replace(TINY, loss="mse"), options=CPU))
    assert "`loss=mse`" in message and not fresh.results("gn_unet").exists()


def test_a_shape_that_the_network_cannot_process_is_refused_naming_the_plan(
    prepare_toy: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace = prepare_toy(tmp_path, cases=2)
    rewrite(workspace.plan, target_shape=[48, 32])
    plan_and_preprocess(str(tmp_path), options=PreprocessOptions(folds=2, jobs=1))
    message = refused(lambda: train_fold(workspace, 0, network="segnet", recipe=TINY, options=CPU))
    assert str(workspace.plan) in message and "48x32" in message and "multiples of 32" in message
    train_fold(str(tmp_path), 0, recipe=TINY, epochs=1, options=CPU)  # its divisor is 16


def test_slices_of_another_plan_are_refused_naming_both(toy: Workspace) -> None:
    rewrite(toy.plan, target_shape=[48, 32])
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert str(toy.preprocessed) in message and str(toy.plan) in message
    assert "`plan_and_preprocess` again" in message


def test_a_plan_of_other_data_is_refused_naming_both(toy: Workspace) -> None:
    rewrite(toy.fingerprint, dataset="Other")
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert str(toy.fingerprint) in message and str(toy.plan) in message


def test_folds_of_other_cases_are_refused(toy: Workspace) -> None:
    toy.splits.write_text(toy.splits.read_text().replace("c3", "c7"))
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert str(toy.splits) in message and "c7" in message


@pytest.mark.parametrize("which", ["plan", "splits", "fingerprint"])
def test_data_that_are_not_preprocessed_are_refused_with_the_command(toy: Workspace, which: str) -> None:
    path: Path = getattr(toy, which)
    path.unlink()
    assert refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU)) == (
        f"{path}: not found. Run `plan_and_preprocess` first."
    )


def test_missing_slices_are_refused_with_the_command(toy: Workspace) -> None:
    (toy.preprocessed_case("c1") / "case.json").unlink()
    (toy.preprocessed_case("c0") / "case.json").unlink()
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert "case.json: not found. Run `plan_and_preprocess` first" in message


@pytest.mark.parametrize("fold", [-1, 2])
def test_a_fold_that_is_not_there_is_refused(fresh: Workspace, fold: int) -> None:
    message = refused(lambda: train_fold(fresh, fold, recipe=TINY, options=CPU))
    assert message.startswith(f"fold {fold}: ") and "the folds 0 to 1" in message


def test_resuming_by_another_plan_or_other_folds_is_refused(toy: Workspace) -> None:
    train_fold(toy, 0, recipe=replace(TINY, epochs=1), options=CPU)
    plan = toy.plan.read_text()
    rewrite(toy.plan, variants=[{"angle_deg": 0, "scale": 1, "mirror": False}])
    again = replace(CPU, resume=True)
    assert "another plan or other folds" in refused(lambda: train_fold(toy, 0, epochs=2, options=again))
    toy.plan.write_text(plan)
    rewrite(toy.splits, source="another")
    assert "another plan or other folds" in refused(lambda: train_fold(toy, 0, epochs=2, options=again))


# --- loss that is not finite ----------------------------------------------------------------------


def poison(workspace: Workspace, case: str, slice_index: int) -> None:
    path = workspace.preprocessed_case(case) / "image.npy"
    image = np.load(path)
    image[slice_index] = np.inf
    np.save(path, image)


def test_a_loss_that_is_not_finite_names_epoch_batch_and_slices_and_keeps_the_checkpoint(
    toy: Workspace, stop_after: Callable[[int], None]
) -> None:
    stop_after(2)
    with pytest.raises(Stop):
        train_fold(toy, 0, recipe=TINY, options=CPU)
    folder = toy.fold("gn_unet", 0)
    before = folder.checkpoint.read_bytes()
    run = load_run(folder)
    poison(toy, run.train[1], 3)
    message = refused(lambda: train_fold(toy, 0, options=replace(CPU, resume=True)))
    assert f"{run.train[1]}, slice 3" in message and "epoch 3, batch " in message
    assert "The last good checkpoint, of epoch 2, is kept" in message and "`learning_rate`" in message
    numbers = data_loading.SliceSampler(slices=12, variants=12, batch_size=2, seed=0).order(2)[0]
    batch = int(np.argwhere(numbers == 9)[0][0])
    assert f"batch {batch + 1} (" in message
    assert folder.checkpoint.read_bytes() == before and load_run(folder).epochs_done == 2


def test_in_the_first_epoch_no_checkpoint_is_promised(toy: Workspace) -> None:
    for case in ("c0", "c1", "c2", "c3"):
        poison(toy, case, 0)
    message = refused(lambda: train_fold(toy, 0, recipe=TINY, options=CPU))
    assert "epoch 1, batch " in message and "No epoch was finished." in message
    assert not toy.fold("gn_unet", 0).checkpoint.exists()


def test_weights_that_are_not_finite_are_not_saved(fresh: Workspace) -> None:
    """One step of the whole epoch, larger than float32 holds: its loss is finite, its weights are not."""
    recipe = replace(TINY, batch_size=12, learning_rate=1e39)
    message = refused(lambda: train_fold(fresh, 0, recipe=recipe, options=CPU))
    assert "a weight is not finite in epoch 1, batch 1 (" in message
    assert not fresh.fold("gn_unet", 0).checkpoint.exists()


@pytest.fixture
def slow_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock for ``train`` on which every step takes one second: six an epoch."""
    ticks = iter(range(10**6))
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)), monotonic=lambda: 0.0)
    monkeypatch.setattr(tuning, "time", clock)


# --- every network ---------------------------------------------------------------------------------


@pytest.mark.parametrize("network", sorted(set(NETWORKS) - {"gn_unet"}))
def test_every_network_trains_and_resumes_to_the_bit(
    fresh: Workspace, tmp_path: Path, stop_after: Callable[[int], None], network: str
) -> None:
    """Batch statistics are part of the checkpoint, so they must resume too."""
    recipe = replace(TINY, epochs=2)
    (tmp_path / "whole").mkdir()
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, network=network, recipe=recipe, options=CPU)
    stop_after(1)
    with pytest.raises(Stop):
        train_fold(fresh, 0, network=network, recipe=recipe, options=CPU)
    stop_after(0)
    resumed = train_fold(fresh, 0, network=network, options=replace(CPU, resume=True))
    assert resumed.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


@pytest.mark.usefixtures("slow_clock")
def test_measuring_a_step_leaves_no_trace_in_batch_statistics(fresh: Workspace, tmp_path: Path) -> None:
    """Nine tenths of 14 s hold two epochs of 6 s: the checkpoint is that of a recipe of two."""
    (tmp_path / "whole").mkdir()
    whole = train_fold(
        link(fresh, tmp_path / "whole"), 0, network="segnet", recipe=replace(TINY, epochs=2), options=CPU
    )
    folder = train_fold(fresh, 0, network="segnet", recipe=TINY, options=replace(CPU, time_budget_s=14.0))
    assert folder.checkpoint.read_bytes() == whole.checkpoint.read_bytes()


# --- time budget ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("slow_clock")
def test_a_time_budget_picks_the_epochs_and_records_them(fresh: Workspace, straight: FoldFolder) -> None:
    """Nine tenths of 27 s hold four epochs of 6 s; they are the epochs of a recipe of four."""
    recipe = replace(TINY, epochs=50)
    folder = train_fold(fresh, 0, recipe=recipe, options=replace(CPU, time_budget_s=27.0))
    assert load_run(folder).recipe == replace(TINY, target="lesion")
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


@pytest.mark.usefixtures("slow_clock")
def test_a_time_budget_never_exceeds_the_recipe(fresh: Workspace) -> None:
    recipe = replace(TINY, epochs=1)
    folder = train_fold(fresh, 0, recipe=recipe, options=replace(CPU, time_budget_s=1e6))
    assert load_run(folder).recipe.epochs == 1


@pytest.mark.usefixtures("slow_clock")
def test_a_time_budget_below_one_epoch_is_refused(fresh: Workspace) -> None:
    message = refused(lambda: train_fold(fresh, 0, recipe=TINY, options=replace(CPU, time_budget_s=6.0)))
    assert "`time_budget_s`: one epoch takes about 6 s here" in message
    assert not fresh.fold("gn_unet", 0).path.exists()


def test_a_time_budget_without_effect_is_said(fresh: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    train_fold(fresh, 0, epochs=2, options=replace(CPU, resume=True, time_budget_s=1.0))
    assert "has no effect on a resumed training" in capsys.readouterr().err


def test_a_time_budget_counts_a_checkpoint_for_every_epoch(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six steps of a second and a checkpoint of three, a third of it tried: nine tenths of 27 s hold two epochs."""
    ticks = iter(range(10**6))
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)), monotonic=lambda: float(next(ticks)))
    monkeypatch.setattr(tuning, "time", clock)
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=50), options=replace(CPU, time_budget_s=27.0))
    assert load_run(folder).recipe.epochs == 2


# --- compiled -------------------------------------------------------------------------------------


def test_no_gradient_is_alive_when_a_compiled_network_runs_again(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUDA graph writes its gradients over those of its last run; PyTorch refuses what then still holds them."""
    runs = []

    def compiled(network: torch.nn.Module, setup: object, trial: Callable[[Forward], object]) -> tuple[Forward, str]:
        def strict(_: torch.nn.Module, inputs: object) -> None:
            runs.append(all(p.grad is None for p in network.parameters()))

        network.register_forward_pre_hook(strict)
        trial(network)
        return network, ""

    monkeypatch.setattr(devices, "try_compile", compiled)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True, time_budget_s=1e6))
    assert len(runs) > 4 + 4 * 6 and all(runs)
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


def test_a_compiled_training_learns_the_same(
    fresh: Workspace, straight: FoldFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled for real, by a backend that needs no C compiler and leaves every product as it is."""
    compiled = []

    def eager(network: torch.nn.Module, mode: str | None = None) -> torch.nn.Module:
        compiled.append(mode)
        return torch_compile(network, backend="eager")

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", eager)
    folder = train_fold(fresh, 0, recipe=TINY, options=replace(CPU, compiled=True))
    assert compiled == [None] and "does not work" not in load_run(folder).setup
    assert folder.checkpoint.read_bytes() == straight.checkpoint.read_bytes()


# --- batch size -----------------------------------------------------------------------------------

AUTO = replace(CPU, batch_size_auto=True)


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0, 2: 1.1, 4: 1.2, 8: 1.3}, 8),  # the next would be more slices than there are
        ({1: 1.0, 2: 1.1, 4: 2.1, 8: 1.0}, 2),  # twice the slices must be worth it
        ({1: 1.0, 2: 1.1, 4: None}, 2),  # no memory
        ({1: 1.0, 2: 2.0}, 1),
    ],
)
def test_the_batch_size_is_doubled_while_that_pays(
    fresh: Workspace, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float | None], chosen: int
) -> None:
    def took(job: object, trainer: object, slices: int, forward: object = None) -> float:
        found = seconds[slices]
        if found is None:
            raise torch.OutOfMemoryError
        return found

    monkeypatch.setattr(tuning, "_step_seconds", took)
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=AUTO)
    assert load_run(folder).recipe.batch_size == chosen
    assert torch.load(folder.checkpoint, weights_only=True)["optimizer"]["state"][0]["step"] == -(-12 // chosen)


def test_no_batch_is_tried_that_memory_does_not_hold(fresh: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = json_records.load(Plan, fresh.plan, "")
    monkeypatch.setattr(worker_pool, "free_memory_bytes", lambda: training_bytes(plan, 5))
    monkeypatch.setattr(tuning, "_step_seconds", lambda job, trainer, slices, forward: 1.0)
    folder = train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=AUTO)
    assert load_run(folder).recipe.batch_size == 2


def test_what_was_tried_leaves_no_trace_and_a_resumed_training_keeps_its_batch_size(
    fresh: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With real steps, of batch normalization too: the checkpoint is that of a recipe with the batch size chosen."""
    tried = train_fold(fresh, 0, network="segnet", recipe=replace(TINY, epochs=1), options=AUTO)
    chosen = load_run(tried).recipe.batch_size
    (tmp_path / "whole").mkdir()
    recipe = replace(TINY, epochs=1, batch_size=chosen)
    whole = train_fold(link(fresh, tmp_path / "whole"), 0, network="segnet", recipe=recipe, options=CPU)
    assert tried.checkpoint.read_bytes() == whole.checkpoint.read_bytes()
    monkeypatch.setattr(tuning, "_step_seconds", lambda *what: pytest.fail("tried again"))
    again = replace(AUTO, resume=True)
    train_fold(fresh, 0, network="segnet", recipe=replace(TINY, batch_size=1), epochs=2, options=again)
    assert load_run(tried).recipe.batch_size == chosen and load_run(tried).epochs_done == 2


def test_the_environment_is_left_as_it_was(fresh: Workspace) -> None:
    before = dict(os.environ)
    train_fold(fresh, 0, recipe=replace(TINY, epochs=1), options=CPU)
    assert dict(os.environ) == before


def test_what_the_data_look_like_travels_with_the_model(toy: Workspace) -> None:
    train_fold(toy, 0, recipe=TINY, epochs=1, options=CPU)
    copy = toy.results_fingerprint("gn_unet").read_text()
    assert copy == toy.fingerprint.read_text() and '"shares_below": [' in copy
    described = toy.results_description("gn_unet").read_text()
    assert described == (toy.raw / "dataset.json").read_text()
    # A model of an older version gets it when its training is resumed.
    toy.results_fingerprint("gn_unet").unlink()
    train_fold(toy, 0, epochs=2, options=replace(CPU, resume=True))
    assert toy.results_fingerprint("gn_unet").read_text() == copy
