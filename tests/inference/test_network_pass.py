"""The network pass: the mask is on the grid of the input in any orientation, and memory is bounded."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from helpers.models import Bright, model_of
from helpers.predictions import CORONAL, Constant, mask_of, names, picture, write
from helpers.refusals import refused
from torch import nn

from dvtplan.data.paths import Workspace
from dvtplan.imaging import volume_io
from dvtplan.inference.model import Model
from dvtplan.inference.options import PredictOptions
from dvtplan.inference.predict import predict_path
from dvtplan.planning.plan import Plan


def predict_image(image: sitk.Image, path: Path, model: Model) -> sitk.Image:
    """Write and predict an image, check that the mask has its geometry, and return the mask."""
    sitk.WriteImage(image, str(path))
    out = path.parent / "mask.nii.gz"
    predict_path(path, out, model)
    there, mask = sitk.ReadImage(str(path)), sitk.ReadImage(str(out))
    assert mask.GetSize() == there.GetSize() and mask.GetPixelID() == sitk.sitkUInt8
    # NIfTI holds its affine in float32: 1e-7 of some hundred mm.
    np.testing.assert_allclose(mask.GetOrigin(), there.GetOrigin(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(mask.GetSpacing(), there.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(mask.GetDirection(), there.GetDirection(), rtol=0, atol=1e-6)
    return mask


@pytest.fixture
def coronal(tmp_path: Path) -> sitk.Image:
    return sitk.ReadImage(str(write(tmp_path / "coronal.nii.gz")))


def test_the_mask_is_where_the_image_is_bright(coronal: sitk.Image, tmp_path: Path, bright: Model) -> None:
    mask = sitk.GetArrayFromImage(predict_image(coronal, tmp_path / "image.nii.gz", bright))
    truth = picture() > 350
    # Prepared and native pixels are of nearly one size, so edges may move by a pixel, not insides.
    assert np.array_equal(mask[2, 6:14, 21:28], np.ones((8, 7))) and not mask[truth.sum(axis=(1, 2)) == 0].any()
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9


@pytest.mark.parametrize("code", ["RAS", "LPS", "SPL", "AIR", "PIR", "IRP"])
def test_the_same_scan_in_another_orientation_gives_the_same_mask(
    coronal: sitk.Image, tmp_path: Path, bright: Model, code: str
) -> None:
    """Axes permuted and flipped; voxel by voxel after turning the mask back."""
    expected = predict_image(coronal, tmp_path / "image.nii.gz", bright)
    turned = sitk.DICOMOrient(coronal, code)
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(turned.GetDirection()) == code
    mask = predict_image(turned, tmp_path / "turned.nii.gz", bright)
    own = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(coronal.GetDirection())
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(mask, own))
    assert back.any() and np.array_equal(back, sitk.GetArrayFromImage(expected))


def test_an_oblique_scan_keeps_its_oblique_grid(coronal: sitk.Image, tmp_path: Path, bright: Model) -> None:
    expected = predict_image(coronal, tmp_path / "image.nii.gz", bright)
    tilt = np.array(sitk.Euler3DTransform((0, 0, 0), 0.12, -0.2, 0.15).GetMatrix()).reshape(3, 3)
    coronal.SetDirection((tilt @ np.array(coronal.GetDirection()).reshape(3, 3)).ravel().tolist())
    mask = predict_image(coronal, tmp_path / "oblique.nii.gz", bright)
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(expected))


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
@pytest.mark.parametrize("pixel", [sitk.sitkInt16, sitk.sitkUInt16, sitk.sitkFloat64])
def test_formats_and_number_types_make_no_difference(
    coronal: sitk.Image, tmp_path: Path, bright: Model, ending: str, pixel: int
) -> None:
    """The picture holds whole numbers only."""
    expected = predict_image(coronal, tmp_path / "image.nii.gz", bright)
    mask = predict_image(sitk.Cast(coronal, pixel), tmp_path / f"other{ending}", bright)
    assert np.array_equal(sitk.GetArrayFromImage(mask), sitk.GetArrayFromImage(expected))


def test_a_single_slice_is_a_volume(tmp_path: Path, bright: Model) -> None:
    grid = replace(CORONAL, shape=(1, 34, 33))
    predict_path(write(tmp_path / "one.nii.gz", picture()[2:3], grid), tmp_path / "mask.nii.gz", bright)
    assert mask_of(tmp_path / "mask.nii.gz").shape == (1, 34, 33)


def test_the_mask_does_not_depend_on_the_block_size(
    tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = write(tmp_path / "image.nii.gz")
    predict_path(image, tmp_path / "at_once.nii.gz", bright)
    monkeypatch.setattr("dvtplan.inference.model.BLOCK_PIXELS", 4 * 32 * 32)
    predict_path(image, tmp_path / "in_blocks.nii.gz", bright)
    assert np.array_equal(mask_of(tmp_path / "at_once.nii.gz"), mask_of(tmp_path / "in_blocks.nii.gz"))


def test_context_is_the_neighbouring_slices_and_the_ends_are_repeated(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of three channels is the slice before."""
    image = write(tmp_path / "image.nii.gz")
    predict_path(image, tmp_path / "own.nii.gz", model_of(plan, Bright()))
    own = mask_of(tmp_path / "own.nii.gz")
    monkeypatch.setattr("dvtplan.inference.model.BLOCK_PIXELS", 4 * 32 * 32)
    for channel, source in ((0, [0, 0, 1, 2, 3, 4]), (1, [0, 1, 2, 3, 4, 5]), (2, [1, 2, 3, 4, 5, 5])):
        model = replace(model_of(plan, Bright(channel)), context=1)
        predict_path(image, tmp_path / f"{channel}.nii.gz", model)
        assert own.any() and np.array_equal(mask_of(tmp_path / f"{channel}.nii.gz"), own[source])


class RightHalf(nn.Module):
    """Two classes: the first is probable on the right half of a slice, the second nowhere."""

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        p = torch.tensor([0.8, 0.1, 0.1]).log()[None, :, None, None].repeat(len(image_BCHW), 1, *image_BCHW.shape[-2:])
        p[..., 16:] = torch.tensor([0.1, 0.8, 0.1]).log()[None, :, None, None]
        return p


@pytest.mark.parametrize(("exchanged", "left"), [((0, 1), 0.45), ((1, 0), 0.1)])
def test_a_mirrored_slice_is_averaged_with_its_classes_exchanged(
    tmp_path: Path, plan: Plan, exchanged: tuple[int, int], left: float
) -> None:
    """.1 on the left of the slice and .8 on that of its mirror image give .45, unless the classes have sides."""
    image = write(tmp_path / "in" / "scan.nii.gz")
    model = replace(model_of(plan, RightHalf(), classes={"one": 1, "two": 2}), mirror=exchanged)
    predict_path(image.parent, tmp_path / "out", model, PredictOptions(save_probabilities=True))
    one, two = (mask_of(tmp_path / "out" / f"scan_probability_{name}.nii.gz") for name in ("one", "two"))
    sides = [float(one[:, :, 0].mean()), float(one[:, :, -1].mean())]
    assert min(sides) == pytest.approx(left, abs=1e-3)
    assert max(sides) == pytest.approx(0.45, abs=1e-3)
    assert float(two.max()) == pytest.approx(0.1 if exchanged == (0, 1) else 0.45, abs=1e-3)


def test_tiles_of_a_pixelwise_network_give_the_mask_of_whole_slices(tmp_path: Path, bright: Model) -> None:
    image = write(tmp_path / "image.nii.gz")
    predict_path(image, tmp_path / "whole.nii.gz", bright)
    predict_path(image, tmp_path / "tiles.nii.gz", replace(bright, tile=(16, 32)))
    predict_path(image, tmp_path / "mirrored.nii.gz", replace(bright, tile=(16, 32), mirror=(0,)))
    for name in ("tiles", "mirrored"):
        assert np.array_equal(mask_of(tmp_path / "whole.nii.gz"), mask_of(tmp_path / f"{name}.nii.gz"))


def test_the_progress_bar_counts_slices_not_blocks(
    scan: Path, tmp_path: Path, bright: Model, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("dvtplan.inference.model.BLOCK_PIXELS", 4 * 32 * 32)
    monkeypatch.setattr("dvtplan.core.console.refresh_interval_s", lambda: 0.0)  # so that a short bar is shown, too
    predict_path(scan, tmp_path / "mask.nii.gz", bright)
    shown = re.findall(r"slices: .*?(\d+/\d+) ", capfd.readouterr().err)
    assert {"0/6", "4/6"} <= set(shown) <= {"0/6", "4/6", "6/6"}


def test_a_compiled_network_gets_whole_blocks(
    scan: Path, tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of slices would compile it again."""
    monkeypatch.setattr("dvtplan.inference.model.BLOCK_PIXELS", 4 * 32 * 32)
    sizes = []

    class Counting(Bright):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            sizes.append(len(image))
            return super().forward(image)

    model = model_of(plan, Counting())
    predict_path(scan, tmp_path / "plain.nii.gz", model)
    assert set(sizes) == {4, 2}
    sizes.clear()
    compiled = replace(model, setup=replace(model.setup, compiled=True))
    predict_path(scan, tmp_path / "compiled.nii.gz", compiled)
    assert set(sizes) == {4}
    assert np.array_equal(mask_of(tmp_path / "compiled.nii.gz"), mask_of(tmp_path / "plain.nii.gz"))


def test_an_ensemble_averages_probabilities_not_logits_nor_votes(tmp_path: Path, plan: Plan) -> None:
    """0.3, 0.35 and 0.94 average 0.53: thrombus, although two of three folds are below 0.5."""
    model = model_of(plan, Constant(0.3), Constant(0.35), Constant(0.94))
    write(tmp_path / "in" / "scan.nii.gz")
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", model, PredictOptions(save_probabilities=True))
    probability = mask_of(tmp_path / "out" / "scan_probability_thrombus.nii.gz")
    np.testing.assert_allclose(probability, 0.53, atol=1e-6)
    assert mask_of(mask).all()


def test_a_softmax_gives_the_most_probable_class_by_its_value_in_the_files(tmp_path: Path, plan: Plan) -> None:
    """Background 0.3, then 0.2 and 0.5. The values of the classes need not be 1 and 2."""
    model = model_of(plan, Constant(0.3, 0.2, 0.5), classes={"anterior": 3, "posterior": 7})
    write(tmp_path / "in" / "scan.nii.gz")
    (mask,) = predict_path(tmp_path / "in", tmp_path / "out", model, PredictOptions(save_probabilities=True))
    assert set(np.unique(mask_of(mask))) == {7}
    for name, expected in (("anterior", 0.2), ("posterior", 0.5)):
        probability = mask_of(tmp_path / "out" / f"scan_probability_{name}.nii.gz")
        np.testing.assert_allclose(probability, expected, atol=1e-6)
    labels = json.loads((tmp_path / "out" / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "anterior": 3, "posterior": 7}


def test_background_wins_where_it_is_most_probable(tmp_path: Path, plan: Plan) -> None:
    model = model_of(plan, Constant(0.4, 0.3, 0.3), classes={"anterior": 1, "posterior": 2})
    predict_path(write(tmp_path / "scan.nii.gz"), tmp_path / "mask.nii.gz", model)
    assert not mask_of(tmp_path / "mask.nii.gz").any()


def test_probabilities_have_the_grid_of_the_input_and_decide_the_mask(tmp_path: Path, bright: Model) -> None:
    image = write(tmp_path / "scan.nrrd")
    predict_path(image, tmp_path / "mask.nrrd", bright, PredictOptions(save_probabilities=True))
    probability, grid = volume_io.read(tmp_path / "mask_probability_thrombus.nii.gz")
    np.testing.assert_allclose(grid.corners_mm(), volume_io.read(image)[1].corners_mm(), atol=1e-4)
    assert probability.dtype == np.float32 and probability.min() >= 0 and probability.max() <= 1
    assert np.array_equal(mask_of(tmp_path / "mask.nrrd"), probability >= 0.5)


def test_channels_on_different_grids_are_refused(tmp_path: Path, plan: Plan) -> None:
    two = replace(plan, channels=("MR0", "MR1"))
    write(tmp_path / "in" / "a_0000.nii.gz")
    write(tmp_path / "in" / "a_0001.nii.gz", grid=replace(CORONAL, spacing_mm=(5.0, 2.25, 1.8)))
    model = model_of(two, Bright())
    message = refused(lambda: predict_path(tmp_path / "in", tmp_path / "out", model))
    assert "a_0001.nii.gz: lies up to" in message
    assert names(tmp_path / "out") == set()


PEAKS = """
import resource, sys
from pathlib import Path
from dvtplan.core import json_records
from dvtplan.inference import predict
from dvtplan.inference.model import Model
from dvtplan.models import devices
from dvtplan.models.networks.registry import build
from dvtplan.planning.plan import Plan
from dataclasses import replace
plan = replace(json_records.load(Plan, Path(sys.argv[1]), "test"), target_shape=(192, 192))
network = build("gn_unet", 1, 1, width=4, norm_groups=2).eval()
model = Model(networks=(network,), folds=(0,), plan=plan, classes={"thrombus": 1},
              setup=devices.choose("cpu"), digest="x")
for path in sys.argv[2:]:
    predict.predict_path(Path(path), Path(path + "_out"), model)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def test_memory_does_not_grow_with_the_slices(tmp_path: Path, toy_once: Workspace) -> None:
    """Three times the slices may cost a few times the size of the file, and no more.

    80 more slices of 192x192 are 12 MB as float32. Through the network at once they would be 16
    maps of 47 MB at its first level alone.
    """
    paths = []
    for slices in (40, 120):
        grid = replace(CORONAL, shape=(slices, 192, 192))
        noise = np.random.default_rng(0).random(grid.shape, np.float32)
        paths.append(str(write(tmp_path / f"s{slices}.nrrd", noise, grid)))
    # The slice axis is the one of the plan, although it is not the shortest here.
    words = [sys.executable, "-c", PEAKS, str(toy_once.plan), *paths]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    once, thrice = (int(line) for line in done.stdout.split())
    assert thrice - once < 5 * 12e6


@pytest.mark.parametrize("shares", [(float("nan"),), (0.2, float("nan"), 0.3)])
def test_an_output_that_is_no_number_is_not_written_as_background(
    tmp_path: Path, plan: Plan, shares: tuple[float, ...]
) -> None:
    """Finite weights may overflow in a narrow number format, or if a file of weights is damaged."""
    image = write(tmp_path / "scan.nii.gz")
    model = model_of(plan, Constant(*shares), classes={f"label{k}": k for k in range(1, max(len(shares), 2))})
    message = refused(lambda: predict_path(image, tmp_path / "mask.nii.gz", model))
    assert str(image) in message and "no numbers" in message and "`precision=fp32`" in message
    assert not (tmp_path / "mask.nii.gz").exists()
