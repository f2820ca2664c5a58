"""What tests share: small raw data sets written to disk, prepared and trained once a session."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dvtplan import preprocess, volumes
from dvtplan.geometry import Grid
from dvtplan.workspace import Workspace

os.environ.setdefault("OMP_NUM_THREADS", "1")
"""Set before anything loads torch, and inherited by every process that a test starts: networks of
four channels lose more by waiting for a second thread than they gain, and the sums of one thread
are the same on every machine."""

TOY_GRID = Grid(
    shape=(6, 34, 33),
    spacing_mm=(5.0, 2.0, 2.0),
    origin_mm=(-32.0, -10.0, 66.0),
    direction=((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)),
)
"""Coronal, head up; 34x33 is prepared as 32x32."""


def toy_case(number: int, classes: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image, and the label of a bright disc that drifts from slice to slice.

    With two classes the disc's upper half is 1 and its lower half 2; the first and last slice are
    empty.
    """
    rows, columns = np.mgrid[: TOY_GRID.shape[1], : TOY_GRID.shape[2]]
    label = np.zeros(TOY_GRID.shape, np.uint8)
    for s in range(1, TOY_GRID.shape[0] - 1):
        top, left = 10 + 3 * (number % 4), 8 + 4 * s
        disc = (rows - top) ** 2 + (columns - left) ** 2 < 30
        label[s][disc] = np.where(rows < top, 1, classes)[disc]
    noise = np.random.default_rng(number).normal(300.0, 40.0, label.shape)
    return np.float32(noise + 500.0 * (label > 0) + 150.0 * (label == 2)).clip(1), label


def write_raw(root: Path, *, labels: tuple[str, ...] = ("thrombus",), channels: int = 1, cases: int = 4) -> Workspace:
    """A raw data set ``Toy`` with the cases c0, c1, ...; a second channel is the first one's negative."""
    workspace = Workspace(root, "Toy")
    for case in range(cases):
        image, label = toy_case(case, len(labels))
        for channel in range(channels):
            path = workspace.raw / "imagesTr" / f"c{case}_{channel:04d}.nii.gz"
            volumes.write_probabilities(path, image if channel == 0 else 2000.0 - image, TOY_GRID)
        volumes.write_mask(workspace.raw / "labelsTr" / f"c{case}.nii.gz", label, TOY_GRID)
    body = {
        "channel_names": {str(i): f"MR{i}" for i in range(channels)},
        "labels": {"background": 0, **{name: i for i, name in enumerate(labels, start=1)}},
        "file_ending": ".nii.gz",
    }
    (workspace.raw / "dataset.json").write_text(json.dumps(body))
    return workspace


@pytest.fixture(scope="session")
def prepare_toy() -> Callable[..., Workspace]:
    """Write and prepare a toy data set under a root: two folds of two test cases."""

    def make(root: Path, **kinds: object) -> Workspace:
        workspace = write_raw(root, **kinds)  # type: ignore[arg-type]
        preprocess.plan_and_preprocess(root, n_folds=2, jobs=1)
        return workspace

    return make


@pytest.fixture(scope="session")
def toy_once(tmp_path_factory: pytest.TempPathFactory, prepare_toy: Callable[..., Workspace]) -> Workspace:
    """A prepared data set of four cases and one label. Read it; never write to it."""
    return prepare_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy(toy_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of ``toy_once`` to write to."""
    shutil.copytree(toy_once.root, tmp_path / "toy")
    return Workspace(tmp_path / "toy", toy_once.dataset)


@pytest.fixture(scope="session")
def trained_once(toy_once: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The toy with both folds trained and their test cases predicted. Read it; never write to it."""
    from dvtplan import predict, train
    from dvtplan.records import Recipe

    root = tmp_path_factory.mktemp("trained") / "toy"
    shutil.copytree(toy_once.root, root)
    workspace = Workspace(root, toy_once.dataset)
    recipe = Recipe(epochs=8, width=4, norm_groups=2, learning_rate=3e-3)
    for fold in (0, 1):
        train.train_fold(workspace, fold, recipe=recipe, options=train.Options(device="cpu", workers=0))
        predict.predict_fold(workspace, "gn_unet", fold)
    return workspace


@pytest.fixture
def trained(trained_once: Workspace, tmp_path: Path) -> Workspace:
    """A copy of ``trained_once`` to write to."""
    shutil.copytree(trained_once.root, tmp_path / "toy")
    return Workspace(tmp_path / "toy", trained_once.dataset)


# --- hand-made volumes, tiny data sets, commands as a user runs them --------------------------------

SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Real images beside the checkout; a user does not have them."""

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

TINY_SHAPE = (20, 3, 18)
"""Axes z, y, x: 3 coronal slices of 20 x 18 pixels, which a plan makes 32 x 32."""


def write_volume(
    path: Path,
    array: np.ndarray,
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    origin: Sequence[float] = (0.0, 0.0, 0.0),
    direction: Sequence[float] = IDENTITY,
) -> Path:
    """Write a (z, y, x) array; spacing, origin and direction as ITK has them: x, y, z, columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path), path.name.endswith(".gz"))
    return path


def tiny_image(case: int, channel: int = 0, shape: Sequence[int] = TINY_SHAPE) -> np.ndarray:
    """Whole numbers from 0 to 999 as float32, others for each case and channel."""
    return np.random.default_rng([case, channel]).integers(0, 1000, shape).astype(np.float32)


def tiny_label(values: Sequence[int], shape: Sequence[int] = TINY_SHAPE) -> np.ndarray:
    """Label k fills the 2 x 2 x 2 voxels from (4 k, 0, 4): two of three coronal slices hold some."""
    label = np.zeros(shape, np.uint8)
    for k, value in enumerate(values):
        label[4 * k : 4 * k + 2, :2, 4:6] = value
    return label


def tiny_dataset(
    folder: Path,
    cases: Sequence[str] = ("a", "b", "c", "d"),
    *,
    channels: int = 1,
    labels: dict[str, int] | None = None,
    ending: str = ".nii.gz",
    table: str | None = None,
) -> Path:
    """A sound data set in nnU-Net's raw layout, written in milliseconds; the folder's name is its name."""
    named = {"thrombus": 1} if labels is None else labels
    describe_dataset(folder, channels=channels, labels=named, ending=ending)
    for number, case in enumerate(cases):
        for channel in range(channels):
            write_volume(folder / "imagesTr" / f"{case}_{channel:04d}{ending}", tiny_image(number, channel), (2, 5, 2))
        write_volume(folder / "labelsTr" / f"{case}{ending}", tiny_label(list(named.values())), (2, 5, 2))
    if table is not None:
        (folder / "cases.csv").write_text(table)
    return folder


def describe_dataset(folder: Path, *, channels: int, labels: dict[str, int], ending: str) -> None:
    """Write ``dataset.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    body = {
        "channel_names": {str(c): f"MR{c}" for c in range(channels)},
        "labels": {"background": 0, **labels},
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(body))


def nifti_bytes(
    shape: Sequence[int],
    *,
    order: str = "<",
    spacing: Sequence[float] = (1.0, 1.0, 1.0),
    offset: float = 352.0,
    corner: Sequence[float] = (0.0, 0.0, 0.0),
    data: np.ndarray | None = None,
) -> bytes:
    """A NIfTI-1 file of float32 made by hand (nifti1.h), for what no writer would write.

    ``shape`` and ``spacing`` are in the file's order, x first; ``corner`` is the RAS position of the
    first voxel; ``data`` is in memory order, z y x, and counts up from 0 where it is not given.
    """
    head = bytearray(352)
    struct.pack_into(f"{order}i", head, 0, 348)
    struct.pack_into(f"{order}8h", head, 40, len(shape), *shape, *[1] * (7 - len(shape)))
    struct.pack_into(f"{order}2h", head, 70, 16, 32)  # float32, 32 bits
    struct.pack_into(f"{order}8f", head, 76, 1.0, *spacing, 1.0, 1.0, 1.0, 1.0)
    struct.pack_into(f"{order}2f", head, 108, offset, 1.0)
    struct.pack_into(f"{order}2h", head, 252, 0, 1)  # no qform, an sform
    for axis in range(3):
        row = [spacing[axis] if a == axis else 0.0 for a in range(3)]
        struct.pack_into(f"{order}4f", head, 280 + 16 * axis, *row, corner[axis])
    head[344:348] = b"n+1\0"
    if data is None:
        data = np.arange(max(1, int(np.prod(shape))))
    return bytes(head) + data.astype(f"{order}f4").tobytes()


def command(
    *words: str | Path, file_limit: int | None = None, powerless: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run one of the package's commands in a process of its own.

    Args:
        words: the command's function in ``dvtplan.cli``, then its options.
        file_limit: bytes beyond which no file grows: what a full disk is to a writer.
        powerless: take root's right to read what its permissions forbid.
    """
    return python(["-m", "dvtplan.cli", *words], file_limit=file_limit, powerless=powerless)


def python(
    words: Sequence[str | Path], *, file_limit: int | None = None, powerless: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run Python with some arguments; the rest as ``command``."""

    def before() -> None:
        if file_limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
        if powerless:
            _drop_root()

    return subprocess.run(
        [sys.executable, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=before,
        env={**os.environ, "PYTHONWARNINGS": "default", "COLUMNS": "100"},
    )


def _drop_root() -> None:
    """Take CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH from what root gets by the next exec (prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def ended(pid: int, within_s: float) -> bool:
    """Whether a process ends in time; one that waits to be buried (Z) has ended."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def assert_workers_end(words: Sequence[str | Path]) -> None:
    """Run Python with some arguments, kill it once two processes of its own are at work, and see them end."""
    parent = subprocess.Popen([sys.executable, *map(str, words)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + 60
    while len(pids := [pid for pid in map(int, children.read_text().split()) if _at_work(pid)]) < 2:
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    try:
        assert all(ended(pid, 20) for pid in pids)  # ample time on a busy machine
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _at_work(pid: int) -> bool:
    """Whether a process has used a fifth of a second of a processor; one that waits or only tidies up has not."""
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]
    return int(ticks) >= 0.2 * os.sysconf("SC_CLK_TCK")


def tree(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, hidden ones included, with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
