"""A training that is killed at any moment resumes to the bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers.trainings import CPU, link, load_run, rows, timeless

from dvtplan.core import files
from dvtplan.data.paths import FoldFolder, Workspace
from dvtplan.models import checkpoint
from dvtplan.planning.recipe import Recipe
from dvtplan.training.train import train_fold

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
def counted(path, network, optimizer, done, **more):
    global now
    now = done
    checkpoint.atomic_write = cut if (where, at) == ("half", now) else atomic_write
    save(path, network, optimizer, done, **more)
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
