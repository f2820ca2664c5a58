"""Pictures appear, whole, also for the cases in which there is nothing to see."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from dvtplan.errors import DvtError
from dvtplan.figures import learning_curve, overlay

FULL = np.ones((40, 20), np.uint8)
EMPTY = np.zeros((40, 20), np.uint8)
PATCH = np.pad(np.ones((6, 4), np.uint8), ((10, 24), (3, 13)))
CORNER = np.pad(np.ones((1, 1), np.uint8), ((39, 0), (0, 19)))
NOISE = np.random.default_rng(0).random((40, 20))


def row(epoch: int, loss: float) -> dict[str, object]:
    return {"epoch": epoch, "loss": f"{loss:.6g}", "learning_rate": "0.001"}


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG\r\n")


def draw(path: Path, image: np.ndarray, truth: np.ndarray, prediction: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an empty contour must not complain either
        overlay(image, truth, prediction, path, "case c0", (1.45, 1.45))


@pytest.mark.parametrize("losses", [[0.3], [0.3, 0.1, 0.05], [0.0, 0.0], [0.2, 0.2]])
def test_a_learning_curve_is_drawn_from_one_epoch_on_and_at_loss_zero(tmp_path: Path, losses: list[float]) -> None:
    path = tmp_path / "progress.png"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learning_curve([row(k, loss) for k, loss in enumerate(losses)], path, "gn_unet, fold 0")
    assert is_png(path) and [p.name for p in tmp_path.iterdir()] == ["progress.png"]


@pytest.mark.parametrize("truth", [PATCH, EMPTY, FULL, CORNER], ids=["patch", "empty", "full", "corner"])
@pytest.mark.parametrize("prediction", [PATCH.T[:20].T, EMPTY], ids=["patch", "empty"])
def test_an_overlay_is_drawn_for_any_masks(tmp_path: Path, truth: np.ndarray, prediction: np.ndarray) -> None:
    draw(tmp_path / "c0.png", NOISE, truth, prediction)
    assert is_png(tmp_path / "c0.png")


def test_an_overlay_of_an_image_that_is_zero_everywhere(tmp_path: Path) -> None:
    draw(tmp_path / "c0.png", np.zeros((40, 20)), PATCH, EMPTY)
    assert is_png(tmp_path / "c0.png")


@pytest.mark.parametrize(("height", "width"), [(961, 345), (8, 200), (3, 3)])
def test_slices_of_any_format_are_drawn(tmp_path: Path, height: int, width: int) -> None:
    mask = np.zeros((height, width), bool)
    mask[height // 2, width // 2] = True
    overlay(np.arange(height * width).reshape(height, width), mask, mask, tmp_path / "c0.png", "c0", (0.5, 2.0))
    assert is_png(tmp_path / "c0.png")


@pytest.mark.parametrize(("ending", "begin"), [(".pdf", b"%PDF"), (".svg", b"<?xml")])
def test_the_ending_decides_the_format(tmp_path: Path, ending: str, begin: bytes) -> None:
    draw(tmp_path / f"c0{ending}", NOISE, PATCH, PATCH)
    assert (tmp_path / f"c0{ending}").read_bytes().startswith(begin)


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DvtError, match="cannot be written"):
        draw(tmp_path / "file" / "c0.png", NOISE, PATCH, PATCH)
